//! Inputs: what an update makes due.

use std::ops::Range;

use super::calendar::Interval;
use super::decide::Decider;
use super::names::{DatasetName, JobName};
use super::record::Record;
use super::spans::Ranges;
use super::spec::{CatchUp, Mode, Overlap};
use super::state::{Coverage, Job};
use super::zone::CALENDAR_END;
use crate::{Error, Millis, Result};

/// Pieces of time that may be reported of one dataset.
const MOST_PIECES: usize = 10_000;

impl Decider<'_> {
    pub(super) fn dataset_covered(
        &mut self,
        dataset: DatasetName,
        from: Millis,
        to: Millis,
        version: u64,
    ) -> Result<()> {
        let to = to.min(CALENDAR_END);
        if from >= to {
            return Err(Error::invalid(format!("dataset {dataset} was reported complete for no time")));
        }
        let known = self.state.datasets.get(&dataset);
        let is_reported = |known: &Coverage| known.reported.within(from.0..to.0).count() == to.since(from);
        if known.is_some_and(|known| known.versions.contains(version) && is_reported(known)) {
            return Ok(()); // It was reported again: a version may be complete for several times.
        }
        if known.is_some_and(|known| is_too_scattered(&known.reported, from.0..to.0)) {
            let what = format!("dataset {dataset} was reported complete for {MOST_PIECES} separate times");
            return Err(Error::resources_exhausted(format!("{what}: report those between first")));
        }
        self.record(Record::DatasetCovered { dataset: dataset.clone(), from, to, version, at: self.now });
        self.updated(&dataset, Interval { start: from, end: to });
        Ok(())
    }

    pub(super) fn dataset_dropped(&mut self, dataset: DatasetName) {
        if self.state.datasets.contains_key(&dataset) {
            self.record(Record::DatasetDropped { dataset, at: self.now });
        }
    }

    /// A dataset has other rows than before in a stretch of time. Jobs that only depend on it do not look back: what they
    /// published is stale.
    pub(super) fn updated(&mut self, dataset: &DatasetName, stretch: Interval) {
        for job in self.jobs_where(|job| job.spec.inputs().any(|input| input == dataset)) {
            self.outdate(job, dataset, stretch);
        }
        for job in self.jobs_where(|job| job.spec.triggers().contains(dataset)) {
            self.updated_for(job, stretch);
        }
    }

    /// Rows that were added stay, whatever becomes of what they were made from.
    fn outdate(&mut self, name: JobName, input: &DatasetName, stretch: Interval) {
        let is_replaced = |job: &&Job| job.spec.options.mode == Mode::ReplaceInterval;
        let Some(job) = self.state.jobs.get(&name).filter(is_replaced) else { return };
        let touched = job.touched(stretch.start, stretch.end);
        let mut stale = job.in_progress().within(touched.clone());
        stale.insert_all(&job.ledger.which(touched, |entry| entry.published > 0));
        if !stale.is_empty() {
            self.record(Record::InputChanged { job: name, input: input.clone(), stale, at: self.now });
        }
    }

    fn updated_for(&mut self, name: JobName, stretch: Interval) {
        let Some(job) = self.state.jobs.get(&name) else { return };
        let touched = job.touched(stretch.start, stretch.end);
        let done = job.ledger.which(touched.clone(), |entry| entry.published > 0);
        let mut again = job.in_progress().within(touched.clone());
        again.insert_all(&done);
        let mut new = Ranges::from(touched.clone());
        new.remove_all(&again);
        if job.spec.catch_up == CatchUp::Latest {
            // The first report of an input tells its whole history.
            let before = 0..job.calendar.complete_to(job.created_at);
            let ran = job.ledger.which(touched, |entry| entry.generation > 0).intersection(&new);
            new.remove(before);
            new.insert_all(&ran);
        }
        if job.spec.options.mode == Mode::Append {
            again.remove_all(&done); // What was added stays.
        }
        if let Some(young) = job.young_from(self.now) {
            again.remove(0..young); // It is stale, until somebody asks for it.
        }
        let (due, missed) = if job.suspended.is_none() { (new, Ranges::default()) } else { (Ranges::default(), new) };
        let replaces = job.suspended.is_none() && replaced(job, &again);
        let updated = again.clone();
        self.record(Record::InputUpdated { job: name.clone(), due, again, missed, at: self.now });
        if replaces {
            self.replace_runs(&name, |index| updated.contains(index));
        }
    }
}

fn is_too_scattered(reported: &Ranges, new: Range<u64>) -> bool {
    if reported.pieces() < MOST_PIECES {
        return false;
    }
    let mut with = reported.clone();
    with.insert(new);
    with.pieces() > MOST_PIECES
}

fn replaced(job: &Job, again: &Ranges) -> bool {
    job.spec.options.overlap == Overlap::Replace && job.active.keys().any(|index| again.contains(*index))
}
