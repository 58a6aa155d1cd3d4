//! What the model calls stale: each interval on its own, by what it has read.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_core::interval::{DatasetName, Inherited, JobName, Mode, Ranges, Reprocess};

use crate::check::{Check, Context, ensure};
use crate::dues::set;
use crate::model::{JobModel, Model, Set};
use crate::world::World;

impl Model {
    /// The intervals that were published, or are in progress, without rows that a dataset has had since in a stretch of time.
    pub(crate) fn left_behind(&self, dataset: &DatasetName, from: u64, to: u64) -> Vec<(JobName, DatasetName, Set)> {
        let readers = self.jobs.iter().filter(|(_, job)| job.reads(dataset));
        let left = readers.map(|(name, job)| {
            let known = job.published_intervals().chain(job.active.keys().copied());
            let read = known.filter(|k| job.window(*k).0 < to && job.window(*k).1 > from);
            (name.clone(), dataset.clone(), read.collect::<Set>())
        });
        left.filter(|(_, _, left)| !left.is_empty()).collect()
    }

    pub(crate) fn check_changed(
        &mut self,
        name: &JobName,
        input: &DatasetName,
        stale: &Ranges,
        x: &mut Context,
    ) -> Check {
        let at = x.changed.iter().position(|(job, by, _)| job == name && by == input);
        let (_, _, expected) =
            x.changed.remove(at.ok_or_else(|| format!("nothing of {name} was made without {input}"))?);
        ensure(expected == set(stale), || format!("{expected:?} of {name} lack rows of {input}, not {stale:?}"))?;
        let job = self.job(name)?;
        for k in expected {
            job.left.remove(&k);
            if job.is_published(k) {
                job.stale.entry(k).or_default().insert(input.clone());
            }
            if let Some(active) = job.active.get_mut(&k) {
                active.outdated.insert(input.clone());
            }
        }
        Ok(())
    }

    /// The published intervals that read what is stale, or reads what is stale: looked for until no more are found.
    pub(crate) fn inherited(&self) -> BTreeMap<JobName, Set> {
        let marked = self.jobs.iter().map(|(name, job)| (name.clone(), job.stale.keys().copied().collect::<Set>()));
        let marked: BTreeMap<JobName, Set> = marked.collect();
        self.reading(&marked)
    }

    /// The same of some intervals.
    pub(crate) fn reading(&self, some: &BTreeMap<JobName, Set>) -> BTreeMap<JobName, Set> {
        let mut inherited: BTreeMap<JobName, Set> = self.jobs.keys().map(|name| (name.clone(), Set::new())).collect();
        while some.values().any(|own| !own.is_empty()) {
            let mut found = Vec::new();
            for (name, job) in &self.jobs {
                let new = job.published_intervals().filter(|k| !inherited[name].contains(k));
                let new = new.filter(|k| self.reads_some(job, *k, [some, &inherited]));
                found.extend(new.map(|k| (name.clone(), k)));
            }
            if found.is_empty() {
                break;
            }
            for (name, k) in found {
                inherited.entry(name).or_default().insert(k);
            }
        }
        inherited
    }

    fn reads_some(&self, job: &JobModel, k: u64, some: [&BTreeMap<JobName, Set>; 2]) -> bool {
        let (from, to) = job.window(k);
        self.jobs.iter().filter(|(_, maker)| job.reads(&maker.spec.output)).any(|(name, maker)| {
            let read = maker.ended(from)..maker.bounds.partition_point(|start| *start < to) as u64;
            !read.is_empty() && some.iter().any(|some| some[name].range(read.clone()).next().is_some())
        })
    }

    /// Those of a job that a backfill may not begin before others.
    pub(crate) fn held(&self, name: &JobName, reprocess: Reprocess) -> Set {
        match reprocess {
            Reprocess::Stale => self.inherited().remove(name).unwrap_or_default(),
            Reprocess::Missing | Reprocess::Failed | Reprocess::All => Set::new(),
        }
    }
}

impl JobModel {
    /// Whether its intervals are computed from a dataset, and may be computed again.
    fn reads(&self, dataset: &DatasetName) -> bool {
        self.spec.options.mode == Mode::ReplaceInterval && self.spec.inputs().any(|input| input == dataset)
    }

    /// An interval is as new as its run.
    pub(crate) fn computed_without(&mut self, k: u64, outdated: BTreeSet<DatasetName>) {
        self.stale.remove(&k);
        self.left.remove(&k);
        if !outdated.is_empty() {
            self.stale.insert(k, outdated);
        }
        self.forget_stale();
    }

    /// What is no input any more changes nothing, and nothing changes what was added.
    pub(crate) fn forget_stale(&mut self) {
        let (spec, adds) = (&self.spec, self.spec.options.mode == Mode::Append);
        for inputs in self.stale.values_mut() {
            inputs.retain(|input| !adds && spec.inputs().any(|other| other == input));
        }
        self.stale.retain(|_, inputs| !inputs.is_empty());
    }
}

impl World {
    /// The state and the model agree on what is stale, and why.
    pub(crate) fn compare_stale(&self) -> Check {
        let (inherited, expected) = (Inherited::of(&self.state), self.model.inherited());
        for (name, job) in &self.model.jobs {
            let own = &self.state.jobs[name];
            for k in job.published_intervals() {
                let changed: BTreeSet<DatasetName> = own.changed(k).cloned().collect();
                let why = job.stale.get(&k).cloned().unwrap_or_default();
                ensure(changed == why, || format!("{k} of {name} is stale by {changed:?}, and should by {why:?}"))?;
            }
            let (said, expected) = (set(&inherited.intervals(name)), &expected[name]);
            ensure(said == *expected, || format!("{said:?} of {name} read what is stale, and should {expected:?}"))?;
            ensure(set(&own.left) == job.left, || format!("{:?} of {name} are left, not {:?}", own.left, job.left))?;
            let unpublished = job.stale.keys().find(|k| !job.is_published(**k));
            ensure(unpublished.is_none(), || format!("{unpublished:?} of {name} is stale and not published"))?;
        }
        Ok(())
    }
}
