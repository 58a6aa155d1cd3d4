//! What statements about jobs say, as values. `CREATE JOB` can be written again: what a job keeps, `SHOW CREATE JOB` shows
//! and the Rust API sends is this text.

use std::fmt;

use datafusion::common::TableReference;
use datafusion::common::utils::quote_identifier;
use tidemill_core::Place;
use tidemill_core::interval::{JobName, Order, Reprocess};

use crate::session::text_literal;

/// Characters of what a check is called.
const NAME_CHARS: usize = 200;

/// A value, and where it stands in its statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) place: Option<Place>,
}

impl<T> At<T> {
    /// A value of no statement's.
    pub(crate) const fn nowhere(value: T) -> Self {
        Self { value, place: None }
    }
}

/// A statement about jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JobStatement {
    Create(Box<CreateJob>),
    Alter {
        job: At<JobName>,
        if_exists: bool,
        change: Alteration,
    },
    Drop {
        job: At<JobName>,
        if_exists: bool,
    },
    Execute {
        job: At<JobName>,
        /// Where the interval begins, on the clocks of the job's zone.
        start: At<String>,
    },
    Backfill(Backfill),
    /// `ALTER DATASET … COMPLETE FROM … TO …`.
    Complete {
        dataset: At<TableReference>,
        from: At<String>,
        to: At<String>,
        zone: Option<At<String>>,
    },
    CancelRun {
        run: At<String>,
    },
    CancelBackfill {
        id: u64,
        job: At<JobName>,
    },
    ShowJobs,
    ShowCreate {
        job: At<JobName>,
    },
    ShowIntervals {
        job: At<JobName>,
        from: Option<At<String>>,
        to: Option<At<String>>,
    },
}

/// `ALTER JOB … `.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Alteration {
    Suspend,
    Resume,
    /// `SET (…)`.
    Set(Vec<Setting>),
    /// `UNSET (…)`: these are what they are where nothing is said.
    Unset(Vec<At<String>>),
}

/// `BACKFILL JOB …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backfill {
    pub(crate) job: At<JobName>,
    pub(crate) from: At<String>,
    pub(crate) to: At<String>,
    pub(crate) reprocess: Reprocess,
    pub(crate) max_runs: u32,
    pub(crate) order: Order,
    pub(crate) dry_run: bool,
}

/// `CREATE JOB …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CreateJob {
    pub(crate) or_replace: bool,
    /// `IF NOT EXISTS`: one that is there stays as it is.
    pub(crate) if_missing: bool,
    pub(crate) job: At<JobName>,
    /// `INTO`.
    pub(crate) output: At<TableReference>,
    pub(crate) trigger: Option<TriggerClause>,
    /// `AT TIME ZONE`.
    pub(crate) zone: Option<At<String>>,
    pub(crate) interval: Option<At<String>>,
    pub(crate) start: Option<At<String>>,
    pub(crate) catch_up: Option<bool>,
    /// `DEPENDS ON … COMPLETE`.
    pub(crate) depends_on: Vec<At<TableReference>>,
    pub(crate) expect: Vec<Expectation>,
    /// `WITH (…)`.
    pub(crate) settings: Vec<Setting>,
    /// Behind `AS`, as it was typed.
    pub(crate) query: At<String>,
}

impl CreateJob {
    /// One without clauses and query.
    pub(super) const fn new(job: At<JobName>, output: At<TableReference>) -> Self {
        Self {
            or_replace: false,
            if_missing: false,
            job,
            output,
            trigger: None,
            zone: None,
            interval: None,
            start: None,
            catch_up: None,
            depends_on: Vec::new(),
            expect: Vec::new(),
            settings: Vec::new(),
            query: At::nowhere(String::new()),
        }
    }
}

/// `SCHEDULE` or `TRIGGER`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TriggerClause {
    Cron(At<String>),
    Update(Vec<At<TableReference>>),
}

/// `EXPECT (…) ON VIOLATION …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expectation {
    /// `CONSTRAINT name`.
    pub(crate) name: Option<String>,
    /// What must hold, as it was typed; `UNIQUE (a, b)` if that stands outside of the parentheses, too.
    pub(crate) predicate: At<String>,
    pub(crate) violation: Violation,
}

/// What a violation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Nothing is published.
    Fail,
    /// It is noted.
    Warn,
}

/// One of `WITH (…)` or `SET (…)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) key: At<String>,
    pub(crate) value: At<String>,
}

impl Expectation {
    /// What it is called in messages: its name or what must hold, as far as a message has room.
    pub(crate) fn shown(&self) -> String {
        let shown = self.name.clone();
        let shown = shown.unwrap_or_else(|| self.predicate.value.split_whitespace().collect::<Vec<_>>().join(" "));
        match shown.char_indices().nth(NAME_CHARS) {
            Some((end, _)) => format!("{}…", shown.get(..end).unwrap_or_default()),
            None => shown,
        }
    }
}

fn names(tables: &[At<TableReference>]) -> String {
    tables.iter().map(|table| table.value.to_quoted_string()).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for CreateJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (job, output) = (quote_identifier(&self.job.value.0), self.output.value.to_quoted_string());
        write!(f, "CREATE JOB {job} INTO {output}")?;
        match &self.trigger {
            Some(TriggerClause::Cron(cron)) => write!(f, "\n  SCHEDULE CRON {}", text_literal(&cron.value))?,
            Some(TriggerClause::Update(of)) => write!(f, "\n  TRIGGER ON UPDATE OF {}", names(of))?,
            None => {}
        }
        if let Some(zone) = &self.zone {
            write!(f, " AT TIME ZONE {}", text_literal(&zone.value))?;
        }
        if let Some(interval) = &self.interval {
            write!(f, "\n  INTERVAL {}", text_literal(&interval.value))?;
        }
        if let Some(start) = &self.start {
            write!(f, " START {}", text_literal(&start.value))?;
        }
        match self.catch_up {
            Some(true) => f.write_str(" CATCHUP TRUE")?,
            Some(false) => f.write_str(" CATCHUP FALSE")?,
            None => {}
        }
        if !self.depends_on.is_empty() {
            write!(f, "\n  DEPENDS ON {} COMPLETE", names(&self.depends_on))?;
        }
        for expect in &self.expect {
            let name = expect.name.as_ref().map(|name| format!("CONSTRAINT {} ", quote_identifier(name)));
            let violation = match expect.violation {
                Violation::Fail => "FAIL",
                Violation::Warn => "WARN",
            };
            let (name, predicate) = (name.unwrap_or_default(), &expect.predicate.value);
            // A comment must end before the parenthesis.
            let end = if predicate.contains("--") { "\n  " } else { "" };
            write!(f, "\n  {name}EXPECT ({predicate}{end}) ON VIOLATION {violation}")?;
        }
        if !self.settings.is_empty() {
            let set =
                |set: &Setting| format!("{} = {}", quote_identifier(&set.key.value), text_literal(&set.value.value));
            let settings = self.settings.iter().map(set);
            write!(f, "\n  WITH ({})", settings.collect::<Vec<_>>().join(", "))?;
        }
        write!(f, "\nAS {}", self.query.value)
    }
}
