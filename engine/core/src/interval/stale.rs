//! Which published intervals are stale: computed from rows that are others since, or from stale intervals of other jobs.
//!
//! Only the first are in the state ([`Job::stale`]); the second follow from them, through however many jobs.

use std::collections::BTreeMap;
use std::ops::Range;

use super::names::{DatasetName, JobName};
use super::spans::Ranges;
use super::spec::Mode;
use super::state::{Job, Reprocess, State};

/// By job and input: published intervals that read stale ones of the jobs which make the input.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inherited<'a>(BTreeMap<&'a JobName, BTreeMap<&'a DatasetName, Ranges>>);

impl<'a> Inherited<'a> {
    /// Goes on from what is stale to what reads it, until there is no more.
    #[must_use]
    pub fn of(state: &'a State) -> Self {
        Self::of_some(state, Job::marked)
    }

    /// The same, from some of what is stale.
    pub(super) fn of_some(state: &'a State, some: impl Fn(&Job) -> Ranges) -> Self {
        let mut found = Self::default();
        let marked = state.jobs.values().map(|job| (job, some(job)));
        let mut open: Vec<(&Job, Ranges)> = marked.filter(|(_, marked)| !marked.is_empty()).collect();
        while let Some((job, stale)) = open.pop() {
            for (name, reader) in state.jobs.iter().filter(|(_, reader)| reads(reader, &job.spec.output)) {
                let mut new = Ranges::default();
                for piece in stale.iter() {
                    let (from, to) = (job.calendar.boundary(piece.start), job.calendar.boundary(piece.end));
                    new.insert_all(&published(reader, reader.touched(from, to)));
                }
                let known = found.0.entry(name).or_default().entry(&job.spec.output).or_default();
                new.remove_all(known);
                if !new.is_empty() {
                    known.insert_all(&new);
                    open.push((reader, new));
                }
            }
        }
        found
    }

    /// The inputs of which an interval reads stale intervals.
    #[must_use]
    pub fn inputs(&self, job: &JobName, index: u64) -> Vec<&'a DatasetName> {
        let inputs = self.0.get(job).into_iter().flatten();
        inputs.filter(|(_, stale)| stale.contains(index)).map(|(input, _)| *input).collect()
    }

    /// The first stale interval that one reads in an input, and whose it is.
    #[must_use]
    pub fn first_read<'s>(
        &self,
        state: &'s State,
        job: &Job,
        index: u64,
        input: &DatasetName,
    ) -> Option<(&'s JobName, &'s Job, u64)> {
        let window = job.window(index);
        state.producing(input).find_map(|(name, producer)| {
            let mut stale = self.intervals(name);
            stale.insert_all(&producer.marked());
            let read = stale.within(producer.calendar.overlapping(window.start, window.end));
            Some((name, producer, read.hull()?.start))
        })
    }

    /// The intervals of a job that read stale ones.
    #[must_use]
    pub fn intervals(&self, job: &JobName) -> Ranges {
        let inputs = self.0.get(job).into_iter().flat_map(BTreeMap::values);
        let mut all = Ranges::default();
        inputs.for_each(|stale| all.insert_all(stale));
        all
    }

    /// The inputs whose stale intervals are to be computed before one that nothing but backfills of what is stale asks for.
    #[must_use]
    pub fn holding(&self, name: &JobName, job: &Job, index: u64) -> Vec<&'a DatasetName> {
        let mut asking = job.backfills.values().filter(|backfill| backfill.remaining.contains(index));
        let by_others = [&job.due, &job.again, &job.requested].iter().any(|waiting| waiting.contains(index))
            || asking.any(|backfill| backfill.request.reprocess != Reprocess::Stale);
        if by_others { Vec::new() } else { self.inputs(name, index) }
    }
}

impl Job {
    /// The inputs that have other rows than those from which an interval was published.
    pub fn changed(&self, index: u64) -> impl Iterator<Item = &DatasetName> {
        let marked = self.stale.iter().filter(move |(_, marked)| marked.contains(index));
        marked.filter(move |_| self.ledger.is_published(index)).map(|(input, _)| input)
    }

    /// The intervals that were computed from other rows than their inputs have.
    pub(super) fn marked(&self) -> Ranges {
        let mut all = Ranges::default();
        let ranges = self.stale.values().flat_map(Ranges::iter);
        ranges.for_each(|range| all.insert_all(&published(self, range)));
        all
    }
}

/// All stale intervals of a job.
pub(super) fn stale(state: &State, name: &JobName) -> Ranges {
    let mut all = Inherited::of(state).intervals(name);
    if let Some(job) = state.jobs.get(name) {
        all.insert_all(&job.marked());
    }
    all
}

/// Whether a job computes intervals anew from a dataset.
fn reads(job: &Job, dataset: &DatasetName) -> bool {
    job.spec.options.mode == Mode::ReplaceInterval && job.spec.inputs().any(|input| input == dataset)
}

fn published(job: &Job, range: Range<u64>) -> Ranges {
    job.ledger.which(range, |entry| entry.published > 0)
}
