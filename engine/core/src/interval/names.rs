//! Names of what the interval machine speaks of.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::RunId;

/// How the names of runs begin that jobs submit: a client's never do.
pub const RUN_PREFIX: &str = "job-";
/// Of a job's name, this many characters are in those of its runs.
const SHOWN_CHARS: usize = 16;

/// A named job, as in `CREATE JOB name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobName(pub String);

/// A dataset: what jobs publish into and wait for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DatasetName(pub String);

/// One execution of a job for one interval. The same key is the same run, however often it is submitted.
///
/// (job, incarnation, index, generation) is what publishes at most once; attempts of it share that right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunKey {
    /// The job.
    pub job: JobName,
    /// Which of all jobs that ever had this name and other intervals.
    pub incarnation: u64,
    /// The position of the interval in the job's calendar.
    pub index: u64,
    /// How often the interval was computed anew, from 1.
    pub generation: u32,
    /// Which try of the generation, from 1.
    pub attempt: u32,
}

/// Why a run was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// Its schedule fired.
    Schedule,
    /// An input was updated.
    Update,
    /// `EXECUTE JOB`.
    Manual,
    /// `BACKFILL JOB`.
    Backfill {
        /// Which of the job's backfills.
        backfill: u64,
    },
    /// What it was published from is not what its inputs have since, and `allowed_lateness` is not over.
    Late,
}

impl Cause {
    /// The name in `system.runs`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Update => "update",
            Self::Manual => "manual",
            Self::Backfill { .. } => "backfill",
            Self::Late => "late",
        }
    }

    /// Whether the run counts among those of the job itself, which backfills and late data do not hold up.
    pub(super) const fn is_live(self) -> bool {
        match self {
            Self::Schedule | Self::Update | Self::Manual => true,
            Self::Backfill { .. } | Self::Late => false,
        }
    }

    /// Whether the job asked for it by itself, as one of those that keep it up to date.
    pub(super) const fn is_automatic(self) -> bool {
        match self {
            Self::Schedule | Self::Update => true,
            Self::Manual | Self::Backfill { .. } | Self::Late => false,
        }
    }

    /// Whether somebody asked for it.
    pub(super) const fn is_asked_for(self) -> bool {
        match self {
            Self::Manual | Self::Backfill { .. } => true,
            Self::Schedule | Self::Update | Self::Late => false,
        }
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { job, incarnation, index, generation, attempt } = self;
        let shown = job.0.chars().filter(|c| matches!(c, 'a'..='z' | '0'..='9' | '_')).take(SHOWN_CHARS);
        write!(f, "{RUN_PREFIX}{}-{incarnation}-{index}-{generation}-{attempt}", shown.collect::<String>())
    }
}

impl RunKey {
    /// The name of the run. No two keys have one name, as no two jobs have one incarnation; the job's own name is for people,
    /// and only what may stand in the name of a file is left of it.
    #[must_use]
    pub fn run(&self) -> RunId {
        RunId(self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_the_name_of_its_key_whatever_its_job_is_called() {
        let name = |job: &str, incarnation| {
            let job = JobName(job.to_owned());
            RunKey { job, incarnation, index: 400, generation: 2, attempt: 3 }.run().0
        };
        assert_eq!(name("daily_spend", 1), "job-daily_spend-1-400-2-3");
        assert_eq!(name("../Ärger mit-Namen.1", 7), "job-rgermitamen1-7-400-2-3");
        assert_ne!(name("a/b", 1), name("ab", 2));
    }
}
