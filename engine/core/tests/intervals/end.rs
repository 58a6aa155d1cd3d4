//! When faults have ended: everything that should run has, and the ledger says what was published.

use tidemill_core::Millis;
use tidemill_core::interval::{CatchUp, Event, Fate, JobName, Overlap, Standing, standing};

use crate::check::{Check, ensure};
use crate::clocks::MINUTE;
use crate::model::{FateModel, JobModel};
use crate::world::World;

/// After so many ticks nothing waits any more.
const PATIENCE: usize = 6_000;

impl World {
    /// Faults end: jobs are resumed, inputs complete, clocks right, and runs succeed.
    pub(crate) fn calm(&mut self) -> Check {
        self.is_calm = true;
        self.skew = 0;
        for job in self.state.jobs.keys().cloned().collect::<Vec<_>>() {
            self.tell(Event::JobResumed { job })?;
        }
        self.complete_inputs()?;
        for _ in 0..PATIENCE {
            self.tell(Event::Tick)?;
            self.end_runs()?;
            if self.is_quiet() {
                break;
            }
            // For retries, which wait for minutes.
            self.now += 2 * MINUTE;
            self.resume_all()?;
        }
        self.check_end()
    }

    fn resume_all(&mut self) -> Check {
        let suspended = self.state.jobs.iter().filter(|(_, job)| job.suspended.is_some()).map(|(name, _)| name.clone());
        for job in suspended.collect::<Vec<_>>() {
            self.tell(Event::JobResumed { job })?;
        }
        Ok(())
    }

    /// Inputs are complete until now, and what was held back is told.
    fn complete_inputs(&mut self) -> Check {
        for name in self.sources.keys().cloned().collect::<Vec<_>>() {
            let Some(source) = self.sources.get_mut(&name) else { continue };
            let mut left = std::mem::take(&mut source.held);
            if source.until < self.now {
                left.push((source.until, self.now, 1_000_000));
            }
            for report in left {
                self.report(&name, report)?;
            }
        }
        Ok(())
    }

    /// Whether nothing is in progress, and nothing that waits could begin: its inputs are not covered.
    fn is_quiet(&self) -> bool {
        self.model.jobs.iter().all(|(name, job)| {
            let asked = job.backfills.values().flat_map(|backfill| {
                let held = self.model.held(name, backfill.request.reprocess);
                backfill.remaining.iter().filter(move |k| !held.contains(k))
            });
            let mut waits = job.due.iter().chain(&job.again).chain(&job.requested).chain(asked);
            job.active.is_empty() && !waits.any(|k| self.model.may_begin(job, *k, self.clock()))
        }) && self.model.next_late(self.clock()).is_none()
    }

    fn check_end(&mut self) -> Check {
        ensure(self.is_quiet(), || "something still runs long after the last fault".to_owned())?;
        self.compare()?;
        for (name, job) in &self.model.jobs {
            let over = job.ended(self.clock());
            self.check_published(name, job)?;
            for k in [&job.due, &job.again, &job.requested].into_iter().flatten().copied().filter(|k| *k < over) {
                // Only a producer that left something out holds others up.
                ensure(job.is_empty(k) || !self.model.is_ready(job, k), || format!("{k} of {name} was not run"))?;
            }
            let catches_up = job.spec.catch_up == CatchUp::All && job.spec.triggers().is_empty();
            if catches_up && job.spec.options.overlap == Overlap::Queue {
                let left_out = (0..job.scheduled_to).find(|k| self.was_skipped(job, *k));
                ensure(left_out.is_none(), || format!("{left_out:?} of {name} was skipped"))?;
            }
        }
        Ok(())
    }

    /// Whether an interval of a job that catches up was left out, without anybody's having asked for that.
    fn was_skipped(&self, job: &JobModel, k: u64) -> bool {
        let waits = job.due.contains(&k) || job.again.contains(&k) || job.active.contains_key(&k);
        !waits && !job.is_empty(k) && job.fate(k).is_none()
    }

    /// The ledger knows every publication of the world, and no other.
    fn check_published(&self, name: &JobName, job: &JobModel) -> Check {
        for k in 0..job.bounds.len() as u64 - 1 {
            let place = (name.clone(), job.incarnation, k);
            let newest = self.published.get(&place).and_then(|generations| generations.last()).copied().unwrap_or(0);
            let known = job.fate(k).map_or(0, |fate| fate.published);
            ensure(newest == known, || {
                format!("generation {newest} of {k} of {name} was published, the ledger says {known}")
            })?;
        }
        Ok(())
    }

    /// The state and the model agree on everything.
    pub(crate) fn compare(&self) -> Check {
        ensure(self.state.jobs.keys().eq(self.model.jobs.keys()), || "there are other jobs".to_owned())?;
        self.compare_stale()?;
        for (name, job) in &self.model.jobs {
            let own = &self.state.jobs[name];
            let sets = [
                (&job.due, &own.due),
                (&job.again, &own.again),
                (&job.requested, &own.requested),
                (&job.missed, &own.missed),
            ];
            for (set, ranges) in sets {
                ensure(set.iter().copied().eq(ranges.numbers()), || {
                    format!("{name} has {ranges:?} and should {set:?}")
                })?;
            }
            ensure(job.failures == own.failures, || {
                format!("{name} counts {} failures, not {}", own.failures, job.failures)
            })?;
            ensure(job.late_failures == own.late_failures, || format!("{name} counts other failures of late data"))?;
            for k in 0..job.bounds.len() as u64 - 1 {
                let entry = own.ledger.entry(k);
                let entry = entry.map(|e| FateModel { fate: e.fate, generation: e.generation, published: e.published });
                ensure(entry == job.fate(k), || format!("{k} of {name} is {entry:?}, not {:?}", job.fate(k)))?;
                self.check_standing(name, job, k)?;
            }
        }
        Ok(())
    }

    fn check_standing(&self, name: &JobName, job: &JobModel, k: u64) -> Check {
        let stands = standing(&self.state, &self.state.jobs[name], k, Millis(self.clock()));
        let asked = job.backfills.values().any(|backfill| backfill.remaining.contains(&k));
        let waits = asked || [&job.due, &job.again, &job.requested].iter().any(|set| set.contains(&k));
        let expected = match (job.active.get(&k), job.fate(k)) {
            (Some(_), _) => ["running", "stopping", "retrying"].contains(&stands.name()),
            (None, _) if waits => ["queued", "waiting"].contains(&stands.name()),
            (None, None) => ["future", "missing"].contains(&stands.name()),
            (None, Some(fate)) => match fate.fate {
                Fate::Published => matches!(stands, Standing::Published { .. }),
                Fate::Failed => matches!(stands, Standing::Failed { .. }),
                Fate::Cancelled => matches!(stands, Standing::Cancelled { .. }),
                Fate::Skipped => matches!(stands, Standing::Skipped { .. }),
            },
        };
        ensure(expected, || format!("{k} of {name} is said to be {stands:?}"))
    }
}
