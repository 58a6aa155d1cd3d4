//! What became of the checks of a job's run, before anything of it was published.

use serde::{Deserialize, Serialize};

/// Checks of one run that are kept.
pub const MOST_CHECKS: usize = 32;
/// Characters that are kept of a name and of a value.
const SHORT: usize = 200;
/// Characters that are kept of a condition and of a sample.
const LONG: usize = 500;

/// A check, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// What it is called: its name, or its condition.
    pub check: String,
    /// What must hold, as it was typed.
    pub condition: String,
    /// Whether it does.
    pub verdict: Verdict,
    /// What the aggregates in its condition were, or what there is to say of its rows.
    pub value: Option<String>,
    /// Rows that are not as expected, where rows are what it looks at.
    pub violations: Option<u64>,
    /// Some of these.
    pub sample: Option<String>,
}

/// What a check led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It does not, and nothing is published.
    Failed,
    /// It does not, and only that is noted.
    Warned,
}

impl Verdict {
    /// As it stands in `system.run_checks`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Warned => "warned",
        }
    }
}

impl Checked {
    /// With texts that are no longer than what is kept.
    fn short(self) -> Self {
        Self {
            check: cut(self.check, SHORT),
            condition: cut(self.condition, LONG),
            value: self.value.map(|value| cut(value, SHORT)),
            sample: self.sample.map(|sample| cut(sample, LONG)),
            ..self
        }
    }
}

/// So many of them, and so much of each, that years of runs can be kept.
#[must_use]
pub(crate) fn bounded(checks: Vec<Checked>) -> Vec<Checked> {
    checks.into_iter().take(MOST_CHECKS).map(Checked::short).collect()
}

fn cut(text: String, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_has_bounds() {
        let long = Checked {
            check: "ä".repeat(1_000),
            condition: "x".repeat(10_000),
            verdict: Verdict::Failed,
            value: Some("v".repeat(1_000)),
            violations: Some(3),
            sample: Some("s".repeat(500)),
        };
        let kept = bounded(vec![long; 100]);
        assert_eq!(kept.len(), MOST_CHECKS);
        let characters = |text: &str| text.chars().count();
        let first =
            kept.first().map(|c| (characters(&c.check), characters(&c.condition), c.sample.as_deref().map(characters)));
        assert_eq!(first, Some((SHORT + 1, LONG + 1, Some(LONG))));
        assert!(kept.iter().all(|checked| checked.check.ends_with('…') && checked.violations == Some(3)));
    }
}
