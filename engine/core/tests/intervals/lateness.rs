//! What the model computes again because of late data: each interval on its own, by when it ended and what else wants it.

use std::collections::BTreeMap;

use tidemill_core::interval::{Cause, JobName};

use crate::check::{Check, Context, ensure};
use crate::model::{JobModel, Model, Set};

impl Model {
    pub(crate) fn check_late(&self, name: &JobName, k: u64, x: &Context) -> Check {
        let job = self.jobs.get(name).ok_or("late data of an unknown job")?;
        ensure(self.is_late(job, k, x.now), || format!("{k} of {name} is not late"))?;
        ensure(job.late_runs() == 0, || format!("two late intervals of {name}"))?;
        let all: usize = self.jobs.values().map(|job| job.late_runs()).sum();
        ensure(all < x.limits.backfill_runs.div_ceil(2), || format!("{all} late intervals"))?;
        // No job reads itself; looking at its own would take long.
        let held = self.reading(&self.about_to_run(Some(name), x.now)).remove(name).unwrap_or_default();
        ensure(!held.contains(&k), || format!("{k} of {name} begins before what it reads"))
    }

    /// Where there is a place, late data does not wait.
    pub(crate) fn nothing_late_is_left_out(&self, x: &Context) -> Check {
        let all: usize = self.jobs.values().map(|job| job.late_runs()).sum();
        if all >= x.limits.backfill_runs.div_ceil(2) {
            return Ok(());
        }
        let left = self.next_late(x.now);
        ensure(left.is_none(), || format!("{left:?} is late, and does not begin"))
    }

    /// An interval that could begin because of late data, were there a place.
    pub(crate) fn next_late(&self, now: u64) -> Option<(JobName, u64)> {
        let idle = self.jobs.iter().filter(|(_, job)| job.late_runs() == 0);
        let late = idle.map(|(name, job)| {
            let late: Set = job.stale.keys().copied().filter(|k| self.is_late(job, *k, now)).collect();
            (name, late)
        });
        let late: Vec<(&JobName, Set)> = late.collect();
        if late.iter().all(|(_, late)| late.is_empty()) {
            return None;
        }
        let held = self.reading(&self.about_to_run(None, now));
        late.into_iter().find_map(|(name, late)| {
            let next = late.into_iter().find(|k| !held[name].contains(k))?;
            Some((name.clone(), next))
        })
    }

    /// Whether nothing but late data wants an interval, and it could begin.
    fn is_late(&self, job: &JobModel, k: u64, now: u64) -> bool {
        let is_allowed = job.spec.options.allowed_lateness_ms.is_some() && !job.is_too_late(k, now);
        let is_wanted = job.stale.contains_key(&k) && !job.left.contains(&k) && job.may_start(Cause::Late);
        let elsewhere = [&job.due, &job.again, &job.requested].iter().any(|set| set.contains(&k))
            || job.backfills.values().any(|backfill| backfill.remaining.contains(&k));
        is_allowed && is_wanted && !elsewhere && self.may_begin(job, k, now)
    }

    /// The stale intervals that are computed again whatever nobody does, but for those of one job.
    fn about_to_run(&self, except: Option<&JobName>, now: u64) -> BTreeMap<JobName, Set> {
        let about = self.jobs.iter().map(|(name, job)| {
            let is_about = |k: &u64| {
                let wanted = (job.requested.contains(k) && job.may_start(Cause::Manual))
                    || ((job.due.contains(k) || job.again.contains(k)) && job.may_start(job.automatic()))
                    || job.backfills.iter().any(|(id, backfill)| {
                        backfill.remaining.contains(k) && job.may_start(Cause::Backfill { backfill: *id })
                    });
                job.active.contains_key(k) || (wanted && self.may_begin(job, *k, now)) || self.is_late(job, *k, now)
            };
            let stale = job.stale.keys().copied().filter(|_| except != Some(name));
            (name.clone(), stale.filter(is_about).collect::<Set>())
        });
        about.collect()
    }
}

impl JobModel {
    /// Whether an interval ended longer ago than its job allows; never, where it says nothing of that.
    pub(crate) fn is_too_late(&self, k: u64, now: u64) -> bool {
        self.spec.options.allowed_lateness_ms.is_some_and(|allowed| self.end(k) + allowed < now)
    }

    fn late_runs(&self) -> usize {
        self.active.values().filter(|active| active.cause == Cause::Late).count()
    }

    /// Where late intervals fail one after the other, the others are not tried.
    pub(crate) fn leave_late(&mut self) {
        let limit = self.spec.options.suspend_after_failures;
        if limit > 0 && self.late_failures >= limit {
            self.left.extend(self.stale.keys().copied());
            self.late_failures = 0;
        }
    }
}
