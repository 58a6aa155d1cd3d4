//! The shell of `tidemill sql` on a real terminal: keys go in, and what a person sees comes out.

use tidemill_tests::harness::{Process, Terminal};

const PROMPT: &str = "tidemill> ";

fn shell(home: &std::path::Path, args: &[&str]) -> Terminal {
    let mut terminal = Terminal::start(home, &[&["sql"], args].concat());
    terminal.sees("Ctrl-D leaves");
    terminal.sees(PROMPT);
    terminal
}

#[test]
fn statements_of_several_lines_are_answered_with_a_box() {
    let home = tempfile::tempdir().expect("a folder");
    let mut terminal = shell(home.path(), &[]);
    terminal.types("SELECT 1 AS one,");
    terminal.types("NULL AS nothing, 'x' AS text;");
    terminal.sees("┌───────┬─────────┬──────┐");
    terminal.sees("│   one │ nothing │ text │");
    terminal.sees("│ Int64 │ Null    │ Utf8 │");
    terminal.sees("│     1 │ NULL    │ x    │");
    terminal.sees("1 row in ");
    terminal.sees(PROMPT);
    terminal.presses_control('d');
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn a_long_result_shows_its_ends_and_a_wide_one_fits() {
    let home = tempfile::tempdir().expect("a folder");
    let mut terminal = shell(home.path(), &[]);
    terminal.types("SELECT value FROM generate_series(1, 1000) ORDER BY value;");
    let shown = terminal.sees("1,000 rows (40 shown)");
    assert!(shown.contains("    20 │") && shown.contains("   981 │"), "{shown}");
    assert!(!shown.contains("    21 │"), "{shown}");
    terminal.sees(PROMPT);
    let columns = (0..40).map(|i| format!("'{}' AS column_{i}", "x".repeat(30))).collect::<Vec<_>>().join(", ");
    terminal.types(&format!("SELECT {columns};"));
    terminal.sees("┌");
    let shown = terminal.sees("┘");
    for line in shown.lines() {
        assert!(line.trim_end().chars().count() <= 80, "{line}");
    }
    assert!(shown.contains("column_0") && shown.contains("column_39") && shown.contains("│ … │"), "{shown}");
}

#[test]
fn wrong_statements_and_commands_do_not_leave() {
    let home = tempfile::tempdir().expect("a folder");
    let mut terminal = shell(home.path(), &[]);
    terminal.types("SELECT * FROM natoin;");
    terminal.sees("error: there is no table `natoin`");
    terminal.sees("line 1: SELECT * FROM natoin");
    terminal.sees("\n                      ^");
    terminal.sees(PROMPT);
    terminal.types("\\nonsense");
    terminal.sees("there is no command \\nonsense: \\? lists them");
    terminal.sees(PROMPT);
    terminal.types("\\?");
    terminal.sees("\\timing");
    terminal.sees(PROMPT);
    terminal.types("SELECT 'still here' AS alive;");
    terminal.sees("│ still here │");
    terminal.types("exit");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn tables_are_listed_described_and_completed() {
    let home = tempfile::tempdir().expect("a folder");
    let mut terminal = shell(home.path(), &[]);
    terminal.types("CREATE VIEW forest AS SELECT 7 AS firwood;");
    terminal.sees("done in ");
    terminal.sees(PROMPT);
    terminal.types("\\d");
    terminal.sees("│ public │ forest     │ view │");
    terminal.sees(PROMPT);
    terminal.types("\\d forest");
    terminal.sees("│ firwood ");
    terminal.sees(PROMPT);
    terminal.presses("SELECT firw\t FROM fore\t;\r");
    terminal.sees("│       7 │");
    terminal.sees(PROMPT);
}

#[test]
fn patterns_choose_which_tables_and_functions_are_listed() {
    let home = tempfile::tempdir().expect("a folder");
    let mut terminal = shell(home.path(), &[]);
    terminal.types("CREATE VIEW forest AS SELECT 1 AS a; CREATE VIEW fores_t AS SELECT 2 AS b;");
    terminal.sees("done in ");
    terminal.sees("done in ");
    for listed in ["\\dv Fores_*", "\\d fores_*", "\\dv public.fores?t"] {
        terminal.types(listed);
        terminal.sees("│ public │ fores_t │ view │");
        terminal.sees("1 row in ");
    }
    terminal.types("\\df nosuch*");
    terminal.sees("0 rows in ");
    terminal.types("\\df Abs");
    terminal.sees("│ abs ");
    terminal.sees(" in ");
}

#[test]
fn formats_and_files_are_chosen_by_commands() {
    let home = tempfile::tempdir().expect("a folder");
    let mut terminal = shell(home.path(), &[]);
    terminal.types("\\f csv");
    terminal.sees("results are printed as csv");
    terminal.types("SELECT 1 AS a, 2 AS b;");
    terminal.sees("a,b\r\n1,2\r\n");
    terminal.types("\\f nonsense");
    terminal.sees("`nonsense` is no format: use table, box, ");
    terminal.types("\\o out.jsonl");
    terminal.sees("results go to out.jsonl");
    terminal.types("SELECT 3 AS c;");
    terminal.sees("1 row in ");
    terminal.types("\\o");
    terminal.sees("results are shown here");
    terminal.types("\\q");
    assert_eq!(terminal.ends(), 0);
    assert_eq!(std::fs::read_to_string(home.path().join("out.jsonl")).expect("a file"), "{\"c\":3}\n");
}

#[test]
fn the_history_is_kept_without_secrets() {
    let home = tempfile::tempdir().expect("a folder");
    let mut terminal = shell(home.path(), &[]);
    terminal.types("SELECT 'from the first session' AS told;");
    terminal.sees("│ from the first session │");
    terminal.sees(PROMPT);
    terminal.types(
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://b/t' OPTIONS ('aws.secret_access_key' 'hunter2');",
    );
    terminal.sees("error: ");
    terminal.sees(PROMPT);
    terminal.presses_control('d');
    assert_eq!(terminal.ends(), 0);
    let history = std::fs::read_to_string(home.path().join("history")).expect("a history");
    assert!(history.contains("from the first session") && !history.contains("hunter2"), "{history}");
    let mut terminal = shell(home.path(), &[]);
    // The key for the line before.
    terminal.presses("\x1b[A");
    terminal.sees("SELECT 'from the first session'");
    terminal.presses("\r");
    terminal.sees("│ from the first session │");
}

#[test]
fn ctrl_c_cancels_the_run_and_not_the_shell_and_progress_is_shown_meanwhile() {
    let home = tempfile::tempdir().expect("a folder");
    let server = Process::start(&["server", "--bind", "127.0.0.1:0", "--slots", "2"]);
    let url = server.url();
    let mut terminal = shell(home.path(), &["--connect", &url]);
    terminal.types(
        "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b, generate_series(1, 100000) c \
         WHERE a.value + b.value + c.value = 77;",
    );
    terminal.sees(" tasks · ");
    terminal.sees(" exchanged");
    terminal.presses_control('c');
    terminal.sees("error: cancelled by Ctrl-C");
    terminal.sees(PROMPT);
    terminal.types(
        "SELECT state FROM system.runs WHERE statement LIKE '%generate_series(1, 100000)%' AND state <> 'planning';",
    );
    terminal.sees("│ cancelled │");
    terminal.sees(PROMPT);
    // At the prompt it gives up the line.
    terminal.presses("SELECT nonsense");
    terminal.presses_control('c');
    terminal.sees(PROMPT);
    terminal.types("SELECT 42 AS alive;");
    terminal.sees("│    42 │");
    terminal.presses_control('d');
    assert_eq!(terminal.ends(), 0);
}
