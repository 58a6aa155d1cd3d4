//! Errors as a terminal shows them: one sentence, and the place in the SQL.
//!
//! ```text
//! error: there is no table `natoin`: did you mean `nation`?
//! line 1: SELECT * FROM natoin
//!                       ^
//! ```

use std::io::Write;

use console::{measure_text_width, style, truncate_str};
use tidemill_core::{Error, Place};

/// Characters of the line that are shown, at the most.
const WIDTH: usize = 160;
/// Of these, how many before the place.
const BEFORE: usize = 80;

/// Tells of an error in a statement; of no statement where that is empty.
pub(super) fn report(error: &Error, statement: &str) {
    let mut stderr = std::io::stderr();
    // Nothing is left to do if stderr is closed too.
    let _ = writeln!(stderr, "{} {}", style("error:").for_stderr().red().bold(), error.message);
    if let Some([line, caret]) = error.place.and_then(|place| excerpt(statement, place)) {
        let _ = writeln!(stderr, "{}\n{}", line, style(caret).for_stderr().red().bold());
    }
}

/// The line, and a caret below the place.
fn excerpt(statement: &str, place: Place) -> Option<[String; 2]> {
    let line = statement.lines().nth((place.line as usize).checked_sub(1)?)?;
    let column = (place.column as usize).checked_sub(1)?;
    let is_inside = column <= line.chars().count();
    let skipped = column.saturating_sub(BEFORE);
    let seen: String = line.chars().skip(skipped).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let before: String = seen.chars().take(column - skipped).collect();
    let (head, cut) = (format!("line {}: ", place.line), if skipped > 0 { "…" } else { "" });
    let indent = measure_text_width(&head) + measure_text_width(cut) + measure_text_width(&before);
    let text = truncate_str(&seen, WIDTH, "…");
    is_inside.then(|| [format!("{head}{cut}{text}"), format!("{}^", " ".repeat(indent))])
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_below_its_place() {
        let place = |line, column| Place { line, column };
        let drawn = excerpt("SELECT 1,\n  tree FROM forest", place(2, 3)).expect("a place");
        assert_eq!(drawn, ["line 2:   tree FROM forest", "          ^"]);
        let drawn = excerpt("SELECT 'ü' frm", place(1, 12)).expect("a place");
        assert_eq!(drawn[1].find('^'), drawn[0].chars().position(|c| c == 'f'));
        assert_eq!(excerpt("SELECT", place(3, 1)), None, "beyond the statement");
        let long = format!("SELECT {}wrong", "1 + ".repeat(100));
        let drawn = excerpt(&long, place(1, 408)).expect("a place");
        let at = drawn[1].find('^').expect("a caret");
        assert_eq!(drawn[0].chars().skip(at).collect::<String>(), "wrong");
    }
}
