//! Runs that jobs submit.

use serde::{Deserialize, Serialize};

use super::{Outcome, Run, RunState, State};
use crate::interval::{self, Cause, Ended, Interval, JobName, Notice, RunKey};
use crate::{Error, RunId};

/// The interval that a run computes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRun {
    /// Of which job, which interval, and which try of it.
    pub key: RunKey,
    /// From when to when.
    pub interval: Interval,
    /// Why.
    pub cause: Cause,
    /// Which of the job's clauses it goes by.
    pub revision: u64,
    /// What its commit carries, with its incarnation and position.
    #[serde(default)]
    pub identity: String,
}

/// Something that somebody is to be told of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedNotice {
    /// The job.
    pub job: JobName,
    /// Who: an address, or the name of a secret that has it.
    pub to: String,
    /// What.
    pub notice: Notice,
}

impl Outcome {
    /// What a run's end means for its interval; `rows` are those that it published, if it published any itself.
    #[must_use]
    pub fn of_interval(&self, rows: Option<u64>) -> Ended {
        match self {
            Self::Succeeded { version: Some(version), .. } => Ended::Published { version: *version, rows },
            Self::Succeeded { version: None, .. } => Ended::Failed { error: unpublished() },
            Self::Failed { error } => Ended::Failed { error: error.clone() },
            Self::Cancelled => Ended::Cancelled,
        }
    }
}

impl State {
    /// Why a run of a job was told to end, if no user did.
    pub(super) fn why_stopped(&self, run: &RunId) -> Option<Error> {
        interval::why_stopped(&self.jobs, &self.runs.get(run)?.spec.job.as_ref()?.key)
    }
}

impl Run {
    /// The rows that it published or is about to; none if it found them published.
    #[must_use]
    pub fn published_rows(&self) -> Option<u64> {
        self.intent.as_ref().map(|intent| intent.rows)
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match (self.state, &self.error) {
            (RunState::Succeeded, _) => {
                let (rows, kept, version) = (self.rows.unwrap_or_default(), self.kept.clone(), self.version);
                Some(Outcome::Succeeded { rows, kept, version })
            }
            (RunState::Failed, Some(error)) => Some(Outcome::Failed { error: error.clone() }),
            (RunState::Failed, None) => Some(Outcome::Failed { error: unpublished() }),
            (RunState::Cancelled, _) => Some(Outcome::Cancelled),
            (RunState::Queued | RunState::Planning | RunState::Running, _) => None,
        }
    }
}

fn unpublished() -> Error {
    Error::internal("the run of a job ended and made no version of its dataset: please report this as a bug")
}
