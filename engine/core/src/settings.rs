//! Numbers that the scheduler goes by, with their defaults in one place.

use serde::{Deserialize, Serialize};

/// Limits and deadlines of the scheduler. Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How often an executor says that it lives.
    pub heartbeat_ms: u64,
    /// An executor that has been silent for this long is dead.
    pub executor_timeout_ms: u64,
    /// A new leader waits this long for the executors of the last one before it gives their work to others.
    pub registration_ms: u64,
    /// A run fails after waiting this long for a first executor.
    pub no_executor_timeout_ms: u64,
    /// A task fails its run after this many failed attempts; lost executors do not count.
    pub task_attempts: u32,
    /// A task fails its run after it was running on this many executors when they died. One that died with its leader, or
    /// before the next one knew it, does not count: whoever kills everybody says nothing of the task.
    pub task_executor_losses: u32,
    /// A task fails its run after its inputs were lost under it this often: it may never be able to read them.
    pub task_input_losses: u32,
    /// A retry waits this long times the number of failures so far, and of lost inputs behind the first.
    pub retry_backoff_ms: u64,
    /// A task that runs at least this long, and twice the median of its stage, is given to a second executor that has
    /// nothing else to do. 0 is never.
    pub straggler_ms: u64,
    /// How many finished runs stay visible in `system.runs`.
    pub run_history: usize,
    /// How many tasks they have together: of more, the oldest runs leave sooner, but for the latest hundred.
    pub task_history: usize,
    /// How long a finished run's result can be fetched again.
    pub result_retention_ms: u64,
    /// How many runs are planned or running at once; the others are queued. The same again for express runs, and for those of jobs.
    pub active_runs: usize,
    /// How many more may wait for nothing but their clients, who have not read their rows yet. Those behind them count as
    /// active.
    pub unread_runs: usize,
    /// A session that was not heard of for this long has ended, and the rows of its temporary tables go.
    pub session_timeout_ms: u64,
    /// Bytes of rows that one session's temporary tables may have.
    pub session_bytes: u64,
    /// Bytes of rows that the temporary tables of all sessions may have.
    pub sessions_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat_ms: 1_000,
            executor_timeout_ms: 15_000,
            registration_ms: 2_000,
            no_executor_timeout_ms: 60_000,
            task_attempts: 4,
            task_executor_losses: 3,
            task_input_losses: 20,
            retry_backoff_ms: 500,
            straggler_ms: 10_000,
            run_history: 1_000,
            task_history: 50_000,
            result_retention_ms: 3_600_000,
            active_runs: 16,
            unread_runs: 100,
            session_timeout_ms: 900_000,
            session_bytes: 256 << 20,
            sessions_bytes: 1 << 30,
        }
    }
}
