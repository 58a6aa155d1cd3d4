//! Progress of one task.

use serde::{Deserialize, Serialize};

use super::state::Output;
use crate::{Attempt, Error, ExecutorId, Millis};

/// Progress of one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Where it stands.
    pub state: TaskState,
    /// The latest attempt.
    pub attempt: Option<Attempt>,
    /// The latest attempt's executor.
    pub executor: Option<ExecutorId>,
    /// A ready task is not started before this.
    pub not_before: Millis,
    /// The winner's output, while it is available.
    pub output: Option<Output>,
    /// Attempts that failed by themselves.
    pub failures: u32,
    /// Executors that died while running it, under the leader that gave it to them.
    pub executor_losses: u32,
    /// Attempts that ended because an input was lost.
    pub input_losses: u32,
    /// When the latest attempt started.
    pub started_at: Option<Millis>,
    /// When the latest attempt ended.
    pub finished_at: Option<Millis>,
    /// The latest attempt's error.
    pub error: Option<Error>,
    /// How often it had succeeded, and its output was lost.
    pub repeats: u32,
    /// What its output's rows were when it first succeeded, from the inputs that it has.
    pub checksum: Option<u64>,
    /// Whether its latest attempt is an earlier leader's.
    pub adopted: bool,
    /// A second attempt, because the first takes long; the first that succeeds wins.
    #[serde(default)]
    pub rival: Option<Rival>,
    /// The newest attempt that was ever started: older ones, and it, are no news.
    #[serde(default)]
    pub newest: Option<Attempt>,
}

/// A second attempt of a task that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rival {
    /// The attempt.
    pub attempt: Attempt,
    /// Who runs it.
    pub executor: ExecutorId,
    /// Since when.
    pub started_at: Millis,
}

impl Task {
    /// Who runs the attempt, if it is one of those that run.
    #[must_use]
    pub fn runner(&self, attempt: Attempt) -> Option<&ExecutorId> {
        if self.state != TaskState::Running {
            return None;
        }
        let rival = self.rival.as_ref().filter(|rival| rival.attempt == attempt).map(|rival| &rival.executor);
        if self.attempt == Some(attempt) { self.executor.as_ref() } else { rival }
    }

    /// Who else runs an attempt of it.
    #[must_use]
    pub fn other_than(&self, attempt: Attempt) -> Option<(ExecutorId, Attempt)> {
        let first = self.executor.clone().zip(self.attempt);
        let second = self.rival.as_ref().map(|rival| (rival.executor.clone(), rival.attempt));
        let mut running = first.into_iter().chain(second).filter(|_| self.state == TaskState::Running);
        running.find(|(_, other)| *other != attempt)
    }

    /// The first and the second attempt change places.
    pub(super) fn swap(&mut self, rival: Rival) {
        let Rival { attempt, executor, started_at } = rival;
        let first = self.attempt.replace(attempt).zip(self.executor.replace(executor));
        let since = self.started_at.replace(started_at);
        self.rival = first.zip(since).map(|((attempt, executor), started_at)| Rival { attempt, executor, started_at });
    }
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskState {
    /// Inputs are missing, or nobody needs it.
    Waiting,
    /// It waits for a slot.
    Ready,
    /// An attempt holds a slot.
    Running,
    /// Its output is available.
    Succeeded,
    /// Its last attempt failed and so did the run.
    Failed,
    /// The run ended first.
    Cancelled,
    /// Its output is gone and nobody needs it.
    Lost,
}

impl TaskState {
    /// The name in `system.tasks`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }
}
