//! Jobs: created, altered, dropped, suspended and resumed.

use std::collections::BTreeSet;

use super::calendar::{Calendar, Interval};
use super::coverage;
use super::decide::Decider;
use super::names::{DatasetName, JobName};
use super::record::{Cursor, Record};
use super::spans::Ranges;
use super::spec::{CatchUp, Mode, Spec, Trigger};
use super::state::{ActiveState, Job, SuspendReason};
use super::zone::CALENDAR_END;
use super::{Action, deadlines};
use crate::{Error, Millis, Result};

/// Jobs that there may be.
const MOST_JOBS: usize = 10_000;

impl Decider<'_> {
    pub(super) fn job_created(&mut self, job: JobName, spec: Spec) -> Result<()> {
        if self.state.jobs.contains_key(&job) {
            return Err(Error::conflict(format!(
                "there is a job {job} already: use CREATE OR REPLACE JOB, or ALTER JOB"
            )));
        }
        self.check(&job, &spec)?;
        self.create(job, spec);
        Ok(())
    }

    pub(super) fn job_replaced(&mut self, job: JobName, spec: Spec) -> Result<()> {
        self.check(&job, &spec)?;
        match self.state.jobs.get(&job) {
            Some(old) if is_same_ledger(old, &spec) => self.alter(job, spec),
            Some(_) => {
                self.drop_job(&job);
                self.create(job, spec);
            }
            None => self.create(job, spec),
        }
        Ok(())
    }

    pub(super) fn job_altered(&mut self, job: JobName, spec: Spec) -> Result<()> {
        let old = self.job(&job)?;
        if !is_same_ledger(old, &spec) {
            let what = "INTO, INTERVAL, START and the time zone";
            return Err(Error::invalid(format!(
                "{what} of job {job} cannot be altered: use CREATE OR REPLACE JOB, which begins anew"
            )));
        }
        self.check(&job, &spec)?;
        self.alter(job, spec);
        Ok(())
    }

    pub(super) fn job_dropped(&mut self, job: JobName) -> Result<()> {
        self.job(&job)?;
        self.drop_job(&job);
        Ok(())
    }

    pub(super) fn job_suspended(&mut self, job: JobName) -> Result<()> {
        let known = self.job(&job)?;
        if known.suspended.as_ref().is_none_or(|s| s.reason != SuspendReason::ByUser) {
            self.suspend(&job, SuspendReason::ByUser);
        }
        Ok(())
    }

    pub(super) fn suspend(&mut self, job: &JobName, reason: SuspendReason) {
        self.record(Record::JobSuspended { job: job.clone(), reason, at: self.now });
    }

    pub(super) fn job_resumed(&mut self, job: JobName) -> Result<()> {
        let known = self.job(&job)?;
        if known.suspended.is_none() {
            return Ok(());
        }
        let unknown = |ranges: &Ranges| {
            let mut unknown = ranges.clone();
            unknown.remove_all(&known.in_progress());
            ranges.iter().for_each(|range| unknown.remove_all(&known.ledger.which(range, |_| true)));
            unknown
        };
        // Of updates that were missed the newest counts whose interval is complete, and those behind it that will be.
        let ready =
            known.missed.hull().map(|hull| coverage::ready(self.state, known, hull).intersection(&known.missed));
        let is_real = |index: &u64| !known.calendar.interval(*index).is_empty();
        let newest = ready.unwrap_or_default().numbers().rev().find(is_real).unwrap_or(0);
        let newest = known.missed.within(newest..u64::MAX);
        let (due, skipped) = match known.spec.catch_up {
            CatchUp::All => (known.missed.clone(), Ranges::default()),
            CatchUp::Latest => {
                let mut skipped = unknown(&known.missed);
                skipped.remove_all(&newest);
                skipped.remove_all(&known.due);
                (newest, skipped)
            }
        };
        let judged_to = deadlines::passed(known, self.now).max(known.cursor.judged_to);
        let cursor = Cursor { judged_to, ..known.cursor };
        self.record(Record::JobResumed { job, due, skipped, cursor, at: self.now });
        Ok(())
    }

    fn create(&mut self, job: JobName, spec: Spec) {
        let start = spec.start.unwrap_or_else(|| Calendar::default_start(spec.zone, spec.interval, self.now));
        let calendar = Calendar { zone: spec.zone, length: spec.interval, start };
        let fired_to = match spec.catch_up {
            CatchUp::Latest => self.now,
            CatchUp::All => self.now.min(calendar.boundary(0)),
        };
        let cursor = Cursor { fired_to, next_fire: next_fire(&spec, fired_to), scheduled_to: 0, judged_to: 0 };
        let incarnation = self.state.created + 1;
        let catches_up = spec.catch_up == CatchUp::All && !spec.triggers().is_empty();
        self.record(Record::JobCreated { job: job.clone(), incarnation, spec, start, cursor, at: self.now });
        let Some(created) = self.state.jobs.get(&job) else { return };
        let judged_to = deadlines::unawaited(created, self.now);
        if judged_to > 0 {
            self.record(Record::DeadlinesPassed { job: job.clone(), judged_to, late: Ranges::default(), at: self.now });
        }
        if catches_up {
            self.look_at_inputs(job, 0);
        }
    }

    /// What inputs cover already counts as an update of the intervals from one on that nobody has looked at: they wait for what else
    /// the job depends on.
    fn look_at_inputs(&mut self, job: JobName, from: u64) {
        let Some(known) = self.state.jobs.get(&job) else { return };
        let since = Interval { start: known.window(from).start, end: CALENDAR_END };
        let mut new = Ranges::default();
        for input in known.spec.triggers() {
            for piece in coverage::covered(self.state, input, since).iter() {
                let touched = known.touched(Millis(piece.start), Millis(piece.end));
                new.insert(touched.start.max(from)..touched.end);
            }
        }
        new.remove_all(&known.ledger.which(from..u64::MAX, |_| true));
        new.remove_all(&known.in_progress());
        if known.spec.catch_up == CatchUp::Latest {
            new.remove(0..known.calendar.complete_to(known.created_at));
        }
        if !new.is_empty() {
            let (again, is_suspended) = (Ranges::default(), known.suspended.is_some());
            let (due, missed) = if is_suspended { (Ranges::default(), new) } else { (new, Ranges::default()) };
            self.record(Record::InputUpdated { job, due, again, missed, at: self.now });
        }
    }

    fn alter(&mut self, job: JobName, spec: Spec) {
        let Some(old) = self.state.jobs.get(&job) else { return };
        let fired_to = match (&old.spec.trigger, &spec.trigger) {
            (Trigger::Schedule { .. }, Trigger::Schedule { .. }) => old.cursor.fired_to,
            (Trigger::Update { .. }, _) | (_, Trigger::Update { .. }) => self.now,
        };
        let altered = Job { spec: spec.clone(), ..old.clone() };
        let judged_to = deadlines::passed(&altered, self.now);
        let next_fire = next_fire(&spec, fired_to);
        let cursor = Cursor { fired_to, next_fire, judged_to, ..old.cursor };
        let loses_schedule = old.spec.triggers().is_empty() && !spec.triggers().is_empty();
        self.record(Record::JobAltered { job: job.clone(), spec, cursor, at: self.now });
        if loses_schedule {
            // No fire will, and their updates may have been.
            self.look_at_inputs(job, cursor.scheduled_to);
        }
    }

    /// What it alone had published stays complete: the rows are there. Of what others publish, too, these say what is complete:
    /// from where the first of them begins.
    fn drop_job(&mut self, job: &JobName) {
        let Some(gone) = self.state.jobs.get(job) else { return };
        let others = self.state.producing(&gone.spec.output).filter(|(name, _)| *name != job);
        let alone_to = others.map(|(_, other)| other.calendar.boundary(0)).min().unwrap_or(CALENDAR_END);
        let alone = Interval { start: Millis(0), end: alone_to };
        let covered = coverage::published(gone, alone).within(0..alone_to.0);
        let running = gone.active.iter().filter(|(_, active)| match active.state {
            ActiveState::Running | ActiveState::Stopping { .. } => true,
            ActiveState::Retrying { .. } => false,
        });
        let runs: Vec<_> = running.map(|(index, active)| gone.key(job, *index, active)).collect();
        self.record(Record::JobDropped { job: job.clone(), covered, at: self.now });
        for run in runs {
            self.act(Action::Cancel { run });
        }
    }

    fn check(&self, job: &JobName, spec: &Spec) -> Result<()> {
        spec.validate()?;
        self.check_added(job, spec)?;
        if !self.state.jobs.contains_key(job) && self.state.jobs.len() >= MOST_JOBS {
            return Err(Error::resources_exhausted(format!("there are {MOST_JOBS} jobs: drop one that is not needed")));
        }
        let inputs: Vec<&DatasetName> = spec.inputs().collect();
        match self.waits_for(&inputs, job, &spec.output) {
            None => Ok(()),
            Some(through) => Err(Error::invalid(format!(
                "job {job} would wait for itself: {through} is made from {}, which it publishes into",
                spec.output
            ))),
        }
    }

    /// Refuses a job that would add rows again which one before it has added: its ledger knows nothing of them.
    fn check_added(&self, name: &JobName, spec: &Spec) -> Result<()> {
        let old = self.state.jobs.get(name);
        if spec.options.mode != Mode::Append || old.is_some_and(|old| is_same_ledger(old, spec)) {
            return Ok(());
        }
        let start = spec.start.unwrap_or_else(|| Calendar::default_start(spec.zone, spec.interval, self.now));
        let within = Interval { start: spec.zone.instant(start), end: self.now };
        if within.is_empty() {
            return Ok(());
        }
        let reported = self.state.datasets.get(&spec.output).map(|known| &known.reported);
        let mut added = reported.map(|known| known.within(within.start.0..within.end.0)).unwrap_or_default();
        if let Some(old) = old.filter(|old| old.spec.output == spec.output) {
            added.insert_all(&coverage::published(old, within));
        }
        match added.hull() {
            None => Ok(()),
            Some(hull) => Err(Error::conflict(format!(
                "{} has rows from before this job until {}, and mode = 'append' would add them again: START there or later, or \
                 publish into another dataset",
                spec.output,
                spec.zone.show(Millis(hull.end))
            ))),
        }
    }

    /// The input through which a job would wait for its own output.
    fn waits_for(&self, inputs: &[&DatasetName], job: &JobName, output: &DatasetName) -> Option<DatasetName> {
        for input in inputs {
            let (mut seen, mut open) = (BTreeSet::new(), vec![*input]);
            while let Some(dataset) = open.pop() {
                if dataset == output {
                    return Some((*input).clone());
                }
                for (_, producer) in self.state.producing(dataset).filter(|(name, _)| *name != job) {
                    open.extend(producer.spec.inputs().filter(|dataset| seen.insert(*dataset)));
                }
            }
        }
        None
    }
}

/// When a job fires next after an instant, if it has a schedule.
pub(super) fn next_fire(spec: &Spec, after: Millis) -> Option<Millis> {
    match &spec.trigger {
        Trigger::Schedule { cron } => cron.next(spec.zone, after),
        Trigger::Update { .. } => None,
    }
}

/// Whether a job keeps its ledger with other clauses: the same positions mean the same intervals of the same dataset.
fn is_same_ledger(old: &Job, spec: &Spec) -> bool {
    let start = spec.start.unwrap_or(old.calendar.start);
    let calendar = Calendar { zone: spec.zone, length: spec.interval, start };
    old.calendar == calendar && old.spec.output == spec.output
}
