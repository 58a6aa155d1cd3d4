//! What `CREATE JOB` says, as far as it decides when what runs, and with which defaults.

use serde::{Deserialize, Serialize};

use super::calendar::Length;
use super::cron::Cron;
use super::names::DatasetName;
use super::zone::{HOUR_MS, Local, MINUTE_MS, Zone};
use crate::Principal;

/// The clauses of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// `CREATE JOB …` as it was typed: the shell plans from it.
    pub statement: String,
    /// `INTO`: what it publishes into.
    pub output: DatasetName,
    /// `SCHEDULE` or `TRIGGER`: what makes intervals due.
    pub trigger: Trigger,
    /// `AT TIME ZONE`: whose clocks the schedule, the calendar and the deadline go by.
    pub zone: Zone,
    /// `INTERVAL`: how long its intervals are.
    pub interval: Length,
    /// `START`: where the first interval begins; with the current day, week, month or year if it is left out.
    pub start: Option<Local>,
    /// `CATCHUP`: what becomes of intervals that no fire was there for.
    pub catch_up: CatchUp,
    /// `DEPENDS ON … COMPLETE`: what must cover an interval before it runs. Triggers are among them without being named.
    pub depends_on: Vec<DatasetName>,
    /// `WITH (…)`.
    pub options: Options,
    /// Unlike that of any other job that ever publishes into its dataset, of any cluster: its commits carry it.
    #[serde(default)]
    pub identity: String,
    /// Whose its runs are, where the cluster knows its users: those of who created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Principal>,
}

impl Spec {
    /// Every dataset that must cover an interval before it runs.
    pub fn inputs(&self) -> impl Iterator<Item = &DatasetName> {
        self.triggers().iter().chain(&self.depends_on)
    }

    /// The datasets whose updates make intervals due.
    #[must_use]
    pub fn triggers(&self) -> &[DatasetName] {
        match &self.trigger {
            Trigger::Schedule { .. } => &[],
            Trigger::Update { of } => of,
        }
    }
}

/// What makes intervals due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trigger {
    /// `SCHEDULE CRON`: at each fire those that ended since the fire before.
    Schedule {
        /// When it fires.
        cron: Cron,
    },
    /// `TRIGGER ON UPDATE OF`: those that an update of a dataset touches.
    Update {
        /// Which datasets.
        of: Vec<DatasetName>,
    },
}

/// What becomes of intervals whose fire was missed: before the job was there, while it was suspended or the coordinator
/// was down, or because an earlier run was in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CatchUp {
    /// `FALSE`: of several missed fires the last one that made anything due counts, the intervals of the others are
    /// skipped.
    #[default]
    Latest,
    /// `TRUE`: all run, from START, in order.
    All,
}

/// `WITH (…)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// What a published interval does to the dataset.
    pub mode: Mode,
    /// What a fire does that finds runs of the job in progress.
    pub overlap: Overlap,
    /// How many intervals run at once, those of backfills not counted.
    pub max_active_runs: u32,
    /// How often an interval is tried again after a failure that may pass.
    pub retries: u32,
    /// The wait before the first retry; each further one waits twice as long, up to an hour.
    pub retry_backoff_ms: u64,
    /// A run that takes longer is cancelled, and counts as failed.
    pub timeout_ms: u64,
    /// By when an interval should be published, or `on_late` is told.
    pub deadline: Option<Deadline>,
    /// After how many failed intervals in a row the job is suspended; 0 is never.
    pub suspend_after_failures: u32,
    /// How many intervals before its own a run reads too: they must be covered, and their updates are its own.
    pub lookback: u32,
    /// How long after an interval's end the job computes it again by itself, if its inputs have other rows since. Without it, a
    /// schedule computes none again, and updates all.
    pub allowed_lateness_ms: Option<u64>,
    /// Who is told of an interval that failed.
    pub on_failure: Option<String>,
    /// Who is told of an interval that was published.
    pub on_success: Option<String>,
    /// Who is told of an interval that is late.
    pub on_late: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::ReplaceInterval,
            overlap: Overlap::Queue,
            max_active_runs: 1,
            retries: 10,
            retry_backoff_ms: MINUTE_MS / 2,
            timeout_ms: HOUR_MS,
            deadline: None,
            suspend_after_failures: 10,
            lookback: 0,
            allowed_lateness_ms: None,
            on_failure: None,
            on_success: None,
            on_late: None,
        }
    }
}

/// What a published interval does to the dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Its rows take the place of those of the same interval: it can be computed again.
    ReplaceInterval,
    /// Its rows are added: it is published once, and never computed again after that.
    Append,
}

/// What a fire does that finds runs of the job in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overlap {
    /// It is missed: the next fire that finds the job idle looks at its intervals, as the job's catch-up says. Updates are
    /// never missed: with them, one interval runs at a time.
    Forbid,
    /// Its intervals wait for their turn.
    Queue,
    /// The runs in progress are cancelled and their intervals skipped. An update cancels only a run of an interval that it
    /// touches, which begins again.
    Replace,
}

/// By when an interval should be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deadline {
    /// `deadline = '03:00'`: when the zone's clocks first show this time at or after the interval's end.
    Clock {
        /// Minutes since midnight.
        minute: u32,
    },
    /// `deadline = '90 minutes'`: this long after the interval's end.
    After {
        /// How long.
        ms: u64,
    },
}
