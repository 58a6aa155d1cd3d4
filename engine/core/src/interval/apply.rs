//! The one place where the state of jobs changes.

use std::collections::{BTreeMap, BTreeSet};

use super::calendar::Calendar;
use super::ledger::{Failure, Fate, Ledger};
use super::names::{Cause, DatasetName, JobName};
use super::record::{Cursor, Record};
use super::spans::Ranges;
use super::spec::{Mode, Spec};
use super::state::{Active, ActiveState, Coverage, Job, State, Suspension};
use super::zone::Local;
use crate::Millis;

/// Pieces of versions kept per dataset. Where there are more, what was not reported between the oldest counts as seen.
const VERSION_PIECES: usize = 64;
/// Pieces of stale intervals kept per job and input. Where there are more, those between the oldest count as stale.
const STALE_PIECES: usize = 1_000;

impl State {
    /// Applies one record. Records about jobs that are gone change nothing but the clock.
    pub fn apply(&mut self, record: &Record) {
        if let Some(at) = record.at() {
            self.clock = self.clock.max(at);
        }
        match record {
            Record::ClockSetBack { at, jobs } => self.set_clock_back(*at, jobs),
            Record::JobCreated { job, incarnation, spec, start, cursor, at } => {
                self.create(job, *incarnation, spec, *start, *cursor, *at);
            }
            Record::JobAltered { job, spec, cursor, .. } => self.with_job(job, |j| j.alter(spec, *cursor)),
            Record::JobDropped { job, covered, .. } => self.drop_job(job, covered),
            Record::JobSuspended { job, reason, at } => {
                self.with_job(job, |j| j.suspended = Some(Suspension { since: *at, reason: *reason }));
            }
            Record::JobResumed { job, due, skipped, cursor, .. } => {
                self.with_job(job, |j| j.resume(due, skipped, *cursor));
            }
            Record::Fired { job, due, skipped, cursor, .. } => self.with_job(job, |j| j.fire(due, skipped, *cursor)),
            Record::InputUpdated { job, due, again, missed, .. } => {
                self.with_job(job, |j| j.update(due, again, missed));
            }
            Record::InputChanged { job, input, stale, .. } => self.with_job(job, |j| j.outdate(input, stale)),
            Record::Requested { job, index, .. } => self.with_job(job, |j| j.requested.insert(*index..*index + 1)),
            Record::EmptySkipped { job, skipped } => self.with_job(job, |j| j.skip_empty(skipped)),
            Record::BackfillAccepted { job, id, backfill } => {
                self.backfills = self.backfills.max(*id);
                self.with_job(job, |j| _ = j.backfills.insert(*id, backfill.clone()));
            }
            Record::BackfillNarrowed { job, id, done } => self.with_job(job, |j| j.narrow(*id, done)),
            Record::BackfillEnded { job, id } => self.with_job(job, |j| _ = j.backfills.remove(id)),
            Record::RunStarted { job, index, generation, attempt, cause, at } => {
                self.with_job(job, |j| j.start(*index, *generation, *attempt, *cause, *at));
            }
            Record::RunBegan { job, index, at } => self.with_job(job, |j| j.begin(*index, *at)),
            Record::RunStopping { job, index, reason, at } => {
                self.with_job(job, |j| j.set_active(*index, ActiveState::Stopping { reason: *reason }, *at));
            }
            Record::AttemptFailed { job, index, error, wait_ms, at } => {
                let state = ActiveState::Retrying { wait_ms: *wait_ms, error: error.clone() };
                self.with_job(job, |j| j.set_active(*index, state, *at));
            }
            Record::IntervalPublished { job, index, version, rows, .. } => {
                self.with_job(job, |j| j.publish(*index, *version, *rows));
            }
            Record::IntervalFailed { job, index, error, at } => self.with_job(job, |j| {
                j.fail(*index, |Active { generation, attempt, .. }| Failure {
                    generation,
                    attempt,
                    error: error.clone(),
                    at: *at,
                });
            }),
            Record::IntervalCancelled { job, index, .. } => self.with_job(job, |j| j.end(*index, Fate::Cancelled)),
            Record::IntervalReplaced { job, index, .. } => self.with_job(job, |j| j.end(*index, Fate::Skipped)),
            Record::DeadlinesPassed { job, judged_to, .. } => {
                self.with_job(job, |j| j.cursor.judged_to = *judged_to);
            }
            Record::DatasetCovered { dataset, from, to, version, .. } => {
                self.datasets.entry(dataset.clone()).or_default().cover(*from, *to, *version);
            }
            Record::DatasetDropped { dataset, .. } => _ = self.datasets.remove(dataset),
        }
    }

    fn with_job(&mut self, job: &JobName, change: impl FnOnce(&mut Job)) {
        if let Some(job) = self.jobs.get_mut(job) {
            change(job);
        }
    }

    fn create(&mut self, job: &JobName, incarnation: u64, spec: &Spec, start: Local, cursor: Cursor, at: Millis) {
        self.created = self.created.max(incarnation);
        self.producers.entry(spec.output.clone()).or_default().insert(job.clone());
        let created = Job {
            calendar: Calendar { zone: spec.zone, length: spec.interval, start },
            spec: spec.clone(),
            incarnation,
            revision: 1,
            created_at: at,
            suspended: None,
            cursor,
            due: Ranges::default(),
            again: Ranges::default(),
            requested: Ranges::default(),
            missed: Ranges::default(),
            stale: BTreeMap::new(),
            left: Ranges::default(),
            active: BTreeMap::new(),
            backfills: BTreeMap::new(),
            failures: 0,
            late_failures: 0,
            ledger: Ledger::default(),
        };
        self.jobs.insert(job.clone(), created);
    }

    fn drop_job(&mut self, job: &JobName, covered: &Ranges) {
        let Some(gone) = self.jobs.remove(job) else { return };
        let output = gone.spec.output;
        if let Some(producers) = self.producers.get_mut(&output) {
            producers.remove(job);
            if producers.is_empty() {
                self.producers.remove(&output);
            }
        }
        if !covered.is_empty() {
            self.datasets.entry(output).or_default().reported.insert_all(covered);
        }
    }

    /// What was begun is as if it had begun now, so that nobody waits for the clock to come back.
    fn set_clock_back(&mut self, at: Millis, cursors: &[(JobName, Cursor)]) {
        self.clock = at;
        for job in self.jobs.values_mut() {
            job.created_at = job.created_at.min(at);
            job.active.values_mut().for_each(|active| active.since = active.since.min(at));
        }
        for (job, cursor) in cursors {
            self.with_job(job, |j| {
                // What a clock ahead of time made due was not over.
                let ahead = cursor.scheduled_to..j.cursor.scheduled_to;
                j.due.remove(ahead.clone());
                j.ledger.reopen(ahead);
                j.cursor = *cursor;
            });
        }
    }
}

impl Job {
    fn alter(&mut self, spec: &Spec, cursor: Cursor) {
        self.spec = spec.clone();
        self.revision += 1;
        self.cursor = cursor;
        let spec = &self.spec;
        self.stale.retain(|input, _| spec.inputs().any(|other| other == input));
        self.keep_what_was_added();
    }

    /// With `mode = 'append'` an interval that is published never runs again, whatever asked for it.
    fn keep_what_was_added(&mut self) {
        if self.spec.options.mode == Mode::Append {
            self.stale.clear();
            for waiting in [&mut self.due, &mut self.again, &mut self.requested, &mut self.missed] {
                let Some(hull) = waiting.hull() else { continue };
                waiting.remove_all(&self.ledger.which(hull, |entry| entry.published > 0));
            }
            let ledger = &mut self.ledger;
            // A retry would add its rows to those of an earlier generation.
            self.active.retain(|index, active| {
                let would_add = matches!(active.state, ActiveState::Retrying { .. }) && ledger.is_published(*index);
                if would_add {
                    ledger.end(*index, Fate::Cancelled, active.generation);
                }
                !would_add
            });
        }
    }

    fn resume(&mut self, due: &Ranges, skipped: &Ranges, cursor: Cursor) {
        self.suspended = None;
        self.failures = 0;
        self.missed = Ranges::default();
        self.fire(due, skipped, cursor);
    }

    fn fire(&mut self, due: &Ranges, skipped: &Ranges, cursor: Cursor) {
        self.cursor = cursor;
        self.due.insert_all(due);
        self.ledger.skip(skipped);
    }

    fn update(&mut self, due: &Ranges, again: &Ranges, missed: &Ranges) {
        self.due.insert_all(due);
        self.again.insert_all(again);
        self.missed.insert_all(missed);
    }

    fn outdate(&mut self, input: &DatasetName, stale: &Ranges) {
        self.left.remove_all(stale);
        let progress = self.active.iter_mut().filter(|(index, _)| stale.contains(**index));
        progress.for_each(|(_, active)| _ = active.outdated.insert(input.clone()));
        for range in stale.iter() {
            let published = self.ledger.which(range, |entry| entry.published > 0);
            self.mark(input, &published);
        }
    }

    fn mark(&mut self, input: &DatasetName, stale: &Ranges) {
        if !stale.is_empty() {
            let marked = self.stale.entry(input.clone()).or_default();
            marked.insert_all(stale);
            marked.join_oldest(STALE_PIECES);
        }
    }

    /// What an interval is computed from now is what its inputs had when its run began.
    fn mark_anew(&mut self, index: u64, outdated: BTreeSet<DatasetName>) {
        let only = Ranges::from(index..index + 1);
        self.left.remove_all(&only);
        self.stale.retain(|_, marked| {
            marked.remove_all(&only);
            !marked.is_empty()
        });
        for input in outdated {
            if self.spec.inputs().any(|other| *other == input) {
                self.mark(&input, &only);
            }
        }
    }

    fn skip_empty(&mut self, empty: &Ranges) {
        let waiting = [&mut self.due, &mut self.again, &mut self.requested, &mut self.missed];
        for waiting in waiting.into_iter().chain(self.backfills.values_mut().map(|backfill| &mut backfill.remaining)) {
            waiting.remove_all(empty);
        }
        self.ledger.skip(empty);
    }

    fn narrow(&mut self, id: u64, done: &Ranges) {
        if let Some(backfill) = self.backfills.get_mut(&id) {
            backfill.remaining.remove_all(done);
        }
    }

    /// A first attempt reads its inputs as they are now: whatever asked for the interval has what it wanted.
    fn start(&mut self, index: u64, generation: u32, attempt: u32, cause: Cause, at: Millis) {
        if attempt == 1 {
            let only = Ranges::from(index..index + 1);
            for waiting in [&mut self.due, &mut self.again, &mut self.requested, &mut self.missed] {
                waiting.remove_all(&only);
            }
            if let Cause::Backfill { backfill } = cause {
                self.narrow(backfill, &only);
            }
            self.try_stale(index);
        }
        // An attempt that was thought dead may have published what a later one says is published.
        let before = self.active.remove(&index).filter(|_| attempt > 1);
        let outdated = before.map(|active| active.outdated).unwrap_or_default();
        let state = ActiveState::Running;
        self.active.insert(index, Active { generation, attempt, cause, state, since: at, begun: false, outdated });
    }

    fn begin(&mut self, index: u64, at: Millis) {
        if let Some(active) = self.active.get_mut(&index) {
            (active.since, active.begun) = (at, true);
        }
    }

    fn set_active(&mut self, index: u64, state: ActiveState, at: Millis) {
        if let Some(active) = self.active.get_mut(&index) {
            active.state = state;
            active.since = at;
        }
    }

    fn publish(&mut self, index: u64, version: u64, rows: Option<u64>) {
        let Some(ended) = self.active.remove(&index) else { return };
        self.ledger.publish(index, ended.generation, version);
        self.ledger.count_rows(index, rows);
        self.mark_anew(index, ended.outdated);
        self.failures = 0;
        self.count_failures(ended.cause, |_| 0);
        self.keep_what_was_added();
    }

    /// Only what the job started by itself speaks for its health.
    fn fail(&mut self, index: u64, failure: impl FnOnce(Active) -> Failure) {
        let Some(ended) = self.active.remove(&index) else { return };
        self.failures += u32::from(ended.cause.is_automatic());
        self.count_failures(ended.cause, |failures| failures + 1);
        self.ledger.fail(index, failure(ended));
        self.leave_late();
    }

    fn count_failures(&mut self, cause: Cause, count: impl FnOnce(u32) -> u32) {
        match cause {
            Cause::Backfill { backfill } => {
                if let Some(backfill) = self.backfills.get_mut(&backfill) {
                    backfill.failures = count(backfill.failures);
                }
            }
            Cause::Late => self.late_failures = count(self.late_failures),
            Cause::Schedule | Cause::Update | Cause::Manual => {}
        }
    }

    fn end(&mut self, index: u64, fate: Fate) {
        let Some(ended) = self.active.remove(&index) else { return };
        self.ledger.end(index, fate, ended.generation);
    }
}

impl Coverage {
    fn cover(&mut self, from: Millis, to: Millis, version: u64) {
        self.reported.insert(from.0..to.0);
        self.versions.insert(version..version.saturating_add(1));
        self.versions.join_oldest(VERSION_PIECES);
    }
}
