//! What a job must be to be accepted.

use super::names::DatasetName;
use super::spec::{CatchUp, Deadline, Mode, Spec, Trigger};
use super::zone::{DAY_MS, HOUR_MS, MINUTE_MS};
use crate::{Error, Result};

/// At most this many runs of one job at once, and of one backfill.
pub(super) const MOST_RUNS: u32 = 1_000;
/// Datasets that one job may wait for.
const MOST_INPUTS: usize = 100;
/// Bytes of a job's statement.
const MOST_STATEMENT_BYTES: usize = 1 << 20;
const MOST_RETRIES: u32 = 100;
const MOST_LOOKBACK: u32 = 10_000;
const MOST_LATENESS_MS: u64 = 10 * 366 * DAY_MS;

impl Spec {
    /// Whether the clauses make sense together, whatever other jobs there are.
    ///
    /// # Errors
    ///
    /// `Invalid`, naming the clause and what it may be.
    pub fn validate(&self) -> Result<()> {
        self.interval.validate()?;
        self.check_inputs()?;
        self.check_numbers()?;
        self.check_lateness()?;
        if self.catch_up == CatchUp::All && self.start.is_none() {
            return Err(Error::invalid("CATCHUP TRUE needs START: from where the job is to catch up"));
        }
        if self.statement.len() > MOST_STATEMENT_BYTES {
            return Err(Error::invalid("the statement of a job has at most 1 MiB"));
        }
        Ok(())
    }

    fn check_inputs(&self) -> Result<()> {
        if matches!(&self.trigger, Trigger::Update { of } if of.is_empty()) {
            return Err(Error::invalid("TRIGGER ON UPDATE OF names no dataset"));
        }
        let inputs: Vec<&DatasetName> = self.inputs().collect();
        if inputs.len() > MOST_INPUTS {
            return Err(Error::invalid(format!(
                "a job waits for at most {MOST_INPUTS} datasets, this one for {}",
                inputs.len()
            )));
        }
        if let Some(own) = inputs.iter().find(|input| ***input == self.output) {
            return Err(Error::invalid(format!("a job that publishes into {own} cannot wait for {own} itself")));
        }
        let twice = |list: &[DatasetName]| {
            list.iter().enumerate().find(|(i, d)| list[..*i].contains(d)).map(|(_, d)| d.clone())
        };
        match twice(self.triggers()).or_else(|| twice(&self.depends_on)) {
            Some(dataset) => Err(Error::invalid(format!("dataset {dataset} is named twice"))),
            None => Ok(()),
        }
    }

    fn check_lateness(&self) -> Result<()> {
        let Some(ms) = self.options.allowed_lateness_ms else { return Ok(()) };
        if ms > 0 && self.options.mode == Mode::Append {
            return Err(Error::invalid(
                "allowed_lateness computes intervals again, and mode = 'append' would add their rows twice: leave it out, or set \
                 it to '0s'",
            ));
        }
        lasts("allowed_lateness", ms, 0, MOST_LATENESS_MS)
    }

    fn check_numbers(&self) -> Result<()> {
        let o = &self.options;
        within("max_active_runs", o.max_active_runs.into(), 1, MOST_RUNS.into())?;
        within("retries", o.retries.into(), 0, MOST_RETRIES.into())?;
        lasts("retry_backoff", o.retry_backoff_ms, 1, DAY_MS)?;
        lasts("timeout", o.timeout_ms, 1_000, 366 * DAY_MS)?;
        within("suspend_after_failures", o.suspend_after_failures.into(), 0, u64::from(u32::MAX))?;
        within("lookback", o.lookback.into(), 0, MOST_LOOKBACK.into())?;
        match o.deadline {
            None => Ok(()),
            Some(Deadline::Clock { minute }) => within("deadline in minutes since midnight", minute.into(), 0, 1_439),
            Some(Deadline::After { ms }) => lasts("deadline", ms, MINUTE_MS, 366 * DAY_MS),
        }
    }
}

fn within(what: &str, value: u64, least: u64, most: u64) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::invalid(format!("{what} is {value} and must be between {least} and {most}")))
}

fn lasts(what: &str, ms: u64, least: u64, most: u64) -> Result<()> {
    if (least..=most).contains(&ms) {
        return Ok(());
    }
    let [ms, least, most] = [ms, least, most].map(duration);
    Err(Error::invalid(format!("{what} is '{ms}' and must be between '{least}' and '{most}'")))
}

/// How long something lasts, as people write it: in the largest unit that divides it.
pub(super) fn duration(ms: u64) -> String {
    let units = [(DAY_MS, "day"), (HOUR_MS, "hour"), (MINUTE_MS, "minute"), (1_000, "second")];
    let fits = units.into_iter().find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit));
    let (unit, name) = fits.unwrap_or((1, "millisecond"));
    let count = ms / unit;
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets the unexpected should say so and end")]
mod tests {
    use super::super::{Calendar, Cron, Length, Local, Options, Unit, Zone};
    use super::*;

    fn spec() -> Spec {
        Spec {
            statement: "CREATE JOB …".to_owned(),
            output: DatasetName("out".to_owned()),
            trigger: Trigger::Schedule { cron: Cron::parse("15 2 * * *").unwrap() },
            zone: Zone::UTC,
            interval: Length { count: 1, unit: Unit::Day },
            start: None,
            catch_up: CatchUp::Latest,
            depends_on: vec![DatasetName("in".to_owned())],
            options: Options::default(),
            identity: String::new(),
            by: None,
        }
    }

    fn refused(change: impl FnOnce(&mut Spec), expected: &str) {
        let mut spec = spec();
        change(&mut spec);
        let error = spec.validate().unwrap_err();
        assert!(error.message.contains(expected), "{error}");
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        assert_eq!(spec().validate(), Ok(()));
        refused(|s| s.interval.count = 0, "INTERVAL '0 days'");
        refused(|s| s.trigger = Trigger::Update { of: Vec::new() }, "names no dataset");
        refused(|s| s.depends_on.push(DatasetName("out".to_owned())), "wait for out itself");
        refused(|s| s.depends_on.push(DatasetName("in".to_owned())), "in is named twice");
        refused(|s| s.depends_on = (0..101).map(|i| DatasetName(i.to_string())).collect(), "at most 100");
        refused(|s| s.catch_up = CatchUp::All, "START");
        refused(|s| s.options.max_active_runs = 0, "max_active_runs is 0");
        refused(|s| s.options.retries = 101, "retries is 101");
        refused(|s| s.options.retry_backoff_ms = 0, "retry_backoff is '0 milliseconds'");
        let timeout = "timeout is '999 milliseconds' and must be between '1 second' and '366 days'";
        refused(|s| s.options.timeout_ms = 999, timeout);
        refused(|s| s.options.deadline = Some(Deadline::Clock { minute: 1_440 }), "deadline");
        let deadline = "deadline is '30 seconds' and must be between '1 minute' and '366 days'";
        refused(|s| s.options.deadline = Some(Deadline::After { ms: 30_000 }), deadline);
        refused(
            |s| s.options.retry_backoff_ms = 90_000_000,
            "'25 hours' and must be between '1 millisecond' and '1 day'",
        );
        refused(|s| s.statement = "x".repeat((1 << 20) + 1), "1 MiB");
        refused(|s| s.options.lookback = 10_001, "lookback is 10001");
        let lateness = "allowed_lateness is '3661 days' and must be between '0 milliseconds' and '3660 days'";
        refused(|s| s.options.allowed_lateness_ms = Some(3_661 * DAY_MS), lateness);
    }

    #[test]
    fn what_was_added_has_no_lateness() {
        let adds = |s: &mut Spec, ms| (s.options.mode, s.options.allowed_lateness_ms) = (Mode::Append, Some(ms));
        refused(|s| adds(s, DAY_MS), "mode = 'append' would add their rows twice");
        let mut spec = spec();
        adds(&mut spec, 0);
        assert_eq!(spec.validate(), Ok(()), "it has none");
    }

    #[test]
    fn a_default_start_is_a_boundary() {
        let spec = spec();
        let now = Zone::UTC.instant(Local::parse("2026-05-14 13:07").unwrap());
        let start = Calendar::default_start(spec.zone, spec.interval, now);
        let calendar = Calendar { zone: spec.zone, length: spec.interval, start };
        assert_eq!(calendar.containing(now), Some(0));
    }
}
