//! Checks of what becomes due: fires, updates, requests, backfills, deadlines, clocks.

use std::collections::BTreeMap;
use std::rc::Rc;

use tidemill_core::interval::{
    Backfill, CatchUp, Cursor, DatasetName, Event, Fate, JobName, Mode, Ranges, Record, Reprocess, SuspendReason,
    Trigger,
};

use crate::check::{Check, Context, SLACK_MS, ensure};
use crate::clocks::boundaries;
use crate::model::{BackfillModel, FateModel, JobModel, Model, Set};

pub(crate) fn set(ranges: &Ranges) -> Set {
    ranges.numbers().collect()
}

impl Model {
    pub(crate) fn check_clock(&mut self, at: u64, cursors: &[(JobName, Cursor)]) -> Check {
        ensure(at + SLACK_MS < self.clock, || "the clock was not set back".to_owned())?;
        self.clock = at;
        let cursors: BTreeMap<_, _> = cursors.iter().cloned().collect();
        for (name, job) in &mut self.jobs {
            let job = Rc::make_mut(job);
            job.created_at = job.created_at.min(at);
            for active in job.active.values_mut() {
                active.since = active.since.min(at);
            }
            job.judged_to = job.judged_to.min(job.passed(at));
            if matches!(job.spec.trigger, Trigger::Schedule { .. }) && job.fired_to > at {
                let back = job.scheduled_to.min(job.ended(at));
                job.due.retain(|k| !(back..job.scheduled_to).contains(k));
                for k in back..job.scheduled_to {
                    if let Some(fate) = job.fate(k).filter(|fate| fate.published == 0) {
                        job.set_fate(k, FateModel { fate: Fate::Skipped, ..fate });
                    }
                }
                job.scheduled_to = back;
            }
            job.fired_to = job.fired_to.min(at);
            if let Some(cursor) = cursors.get(name) {
                job.agrees(name, *cursor)?;
            }
        }
        Ok(())
    }

    pub(crate) fn check_fired(
        &mut self,
        job: &JobName,
        due: &Ranges,
        skipped: &Ranges,
        cursor: Cursor,
        x: &Context,
    ) -> Check {
        if *x.event == Event::Restarted {
            return ensure(due.is_empty() && skipped.is_empty(), || {
                format!("{job} fires before the clock was looked at")
            });
        }
        let known = self.job(job)?;
        ensure(known.suspended.is_none(), || format!("{job} fires while it is suspended"))?;
        let fired = known.fire(x.now).ok_or_else(|| format!("{job} fires at {} and should not", cursor.fired_to.0))?;
        ensure(fired.due == set(due), || format!("{job} should make {:?} due, not {due:?}", fired.due))?;
        ensure(fired.skipped == set(skipped), || format!("{job} should skip {:?}, not {skipped:?}", fired.skipped))?;
        known.fired_to = fired.at;
        known.scheduled_to = fired.scheduled_to;
        known.due.extend(fired.due);
        known.skip(&fired.skipped);
        known.agrees(job, cursor)
    }

    /// The jobs that an update of a dataset concerns, with what is due, again, and missed.
    pub(crate) fn owed(&self, dataset: &DatasetName, from: u64, to: u64, now: u64) -> Vec<(JobName, [Set; 3])> {
        let mut owed = Vec::new();
        for (name, job) in self.jobs.iter().filter(|(_, job)| job.spec.triggers().contains(dataset)) {
            let (mut due, mut again, mut missed) = (Set::new(), Set::new(), Set::new());
            for k in job.touched(from, to) {
                if job.active.contains_key(&k) && !(job.spec.options.mode == Mode::Append && job.is_published(k)) {
                    again.insert(k);
                } else if job.is_published(k) {
                    if job.spec.options.mode == Mode::ReplaceInterval {
                        again.insert(k);
                    }
                } else if job.spec.catch_up == CatchUp::Latest && job.end(k) <= job.created_at && job.generation(k) == 0
                {
                    // It was over before anybody asked.
                } else if job.suspended.is_some() {
                    missed.insert(k);
                } else {
                    due.insert(k);
                }
            }
            again.retain(|k| !job.is_too_late(*k, now));
            owed.push((name.clone(), [due, again, missed]));
        }
        owed
    }

    /// What a job owes to what its inputs cover already, of the intervals from one on that nobody has looked at.
    pub(crate) fn owed_to_inputs(&self, name: &JobName, job: &JobModel, from: u64) -> Option<(JobName, [Set; 3])> {
        let mut new = self.begun_by_inputs(job);
        new.retain(|k| *k >= from && job.fate(*k).is_none() && !job.active.contains_key(k));
        new.retain(|k| job.spec.catch_up == CatchUp::All || job.end(*k) > job.created_at);
        let is_owed = !new.is_empty();
        let (due, missed) = if job.suspended.is_none() { (new, Set::new()) } else { (Set::new(), new) };
        is_owed.then(|| (name.clone(), [due, Set::new(), missed]))
    }

    pub(crate) fn check_updated(&mut self, job: &JobName, said: [&Ranges; 3], x: &mut Context) -> Check {
        let known = self.jobs.get(job).ok_or("an unknown job is updated")?;
        let owed = x.owed.iter().position(|(name, _)| name == job);
        let expected: [Set; 3] = owed.map(|at| x.owed.remove(at).1).unwrap_or_default();
        for (expected, said) in expected.iter().zip(said) {
            let mut said = set(said);
            said.retain(|k| *k < known.bounds.len() as u64 - 1 && !known.is_empty(*k));
            let mut expected = expected.clone();
            expected.retain(|k| *k < known.bounds.len() as u64 - 1 && !known.is_empty(*k));
            ensure(expected == said, || format!("an update should concern {expected:?} of {job}, not {said:?}"))?;
        }
        let known = self.job(job)?;
        known.due.extend(set(said[0]));
        known.again.extend(set(said[1]));
        known.missed.extend(set(said[2]));
        Ok(())
    }

    pub(crate) fn check_resumed(
        &mut self,
        job: &JobName,
        due: &Ranges,
        skipped: &Ranges,
        cursor: Cursor,
        now: u64,
    ) -> Check {
        let known: &JobModel = self.jobs.get(job).ok_or("an unknown job goes on")?;
        let complete = known.missed.iter().rev().find(|k| !known.is_empty(**k) && self.is_ready(known, **k));
        let newest: Set = known.missed.range(complete.copied().unwrap_or(0)..).copied().collect();
        let known = self.job(job)?;
        let mut left = Set::new();
        let expected = match known.spec.catch_up {
            CatchUp::All => known.missed.clone(),
            CatchUp::Latest => {
                let known: &JobModel = known;
                let fresh =
                    |k: &&u64| known.fate(**k).is_none() && !known.active.contains_key(k) && !known.due.contains(k);
                left = known.missed.difference(&newest).filter(fresh).copied().collect();
                newest
            }
        };
        ensure(expected == set(due), || format!("{job} should go on with {expected:?}, not {due:?}"))?;
        ensure(left == set(skipped), || format!("{job} should leave {left:?}, not {skipped:?}"))?;
        known.suspended = None;
        known.failures = 0;
        known.missed.clear();
        known.due.extend(expected);
        known.skip(&left);
        known.judged_to = known.passed(now).max(known.judged_to);
        known.agrees(job, cursor)
    }

    pub(crate) fn check_backfill(&mut self, job: &JobName, id: u64, backfill: &Backfill, x: &Context) -> Check {
        let Event::BackfillRequested { request, .. } = x.event else {
            return Err("nobody asked for a backfill".to_owned());
        };
        let held = self.held(job, request.reprocess);
        let known = self.job(job)?;
        let runs_anyhow = matches!(request.reprocess, Reprocess::Missing | Reprocess::Failed);
        let busy = |k: &u64| {
            [&known.due, &known.again, &known.requested].iter().any(|set| set.contains(k))
                || known.active.contains_key(k)
        };
        let chosen: Set = (0..known.ended(x.now))
            .filter(|k| known.start(*k) >= request.from.0 && known.end(*k) <= request.to.0)
            .filter(|k| known.is_wanted(request.reprocess, *k, &held) && !(runs_anyhow && busy(k)))
            .collect();
        let newest = chosen.iter().map(|k| known.generation(*k)).max().unwrap_or(0);
        let mut said = set(&backfill.remaining);
        said.retain(|k| chosen.contains(k) || !known.is_empty(*k));
        ensure(chosen == said, || format!("a backfill should run {chosen:?}, not {said:?}"))?;
        ensure(backfill.generation > newest, || format!("generation {} was there", backfill.generation))?;
        ensure(x.plan.as_ref().is_some_and(|plan| plan.intervals == backfill.remaining), || {
            "dry run said otherwise".to_owned()
        })?;
        let (generation, remaining) = (backfill.generation, set(&backfill.remaining));
        known.backfills.insert(id, BackfillModel { request: *request, generation, remaining, failures: 0 });
        self.backfills += 1;
        ensure(id == self.backfills, || format!("backfill {id} is not the next"))
    }

    pub(crate) fn check_narrowed(&mut self, job: &JobName, id: u64, done: &Ranges) -> Check {
        let reprocess = self.job(job)?.backfills.get(&id).ok_or("an unknown backfill is narrowed")?.request.reprocess;
        let held = self.held(job, reprocess);
        let known = self.job(job)?;
        for k in done.numbers() {
            ensure(!known.is_wanted(reprocess, k, &held), || format!("backfill {id} of {job} gives up {k}"))?;
            let backfill = known.backfills.get_mut(&id).ok_or("gone")?;
            ensure(backfill.remaining.remove(&k), || format!("{k} was not left to backfill {id}"))?;
        }
        Ok(())
    }

    pub(crate) fn check_backfill_ended(&mut self, job: &JobName, id: u64, x: &Context) -> Check {
        let known = self.job(job)?;
        let backfill = known.backfills.remove(&id).ok_or("an unknown backfill ends")?;
        let is_done = backfill.remaining.is_empty() && known.of_backfill(id) == 0;
        let limit = known.spec.options.suspend_after_failures;
        let was_cancelled = matches!(x.event, Event::BackfillCancelled { id: named, .. } if *named == id);
        let gave_up = limit > 0 && backfill.failures >= limit;
        ensure(is_done || was_cancelled || gave_up, || {
            format!("backfill {id} of {job} ends with {:?} left", backfill.remaining)
        })
    }

    pub(crate) fn check_deadlines(&mut self, job: &JobName, judged_to: u64, late: &Ranges, x: &Context) -> Check {
        let known = self.job(job)?;
        // Nobody waits for what a new job leaves out.
        let left_out = if *x.event == Event::Tick { 0 } else { known.left_out(x.now) };
        let passed = known.passed(x.now).max(left_out);
        ensure(judged_to == passed, || format!("{passed} deadlines of {job} have passed, not {judged_to}"))?;
        if *x.event == Event::Tick {
            ensure(known.suspended != Some(SuspendReason::ByUser), || format!("{job} is late while it is suspended"))?;
            let is_late = |k: &u64| known.fate(*k).is_none_or(|f| f.published == 0 && f.fate != Fate::Skipped);
            let expected: Set = (known.judged_to..passed).filter(is_late).collect();
            ensure(expected == set(late), || format!("{expected:?} of {job} are late, not {late:?}"))?;
        }
        known.judged_to = passed;
        Ok(())
    }

    pub(crate) fn create(&mut self, record: &Record, x: &mut Context) -> Check {
        let Record::JobCreated { job, incarnation, spec, start, cursor, at } = record else { return Ok(()) };
        self.created += 1;
        ensure(*incarnation == self.created, || format!("incarnation {incarnation} of {job} is not the next"))?;
        let started = chrono::DateTime::from_timestamp_millis(start.0).ok_or("no start")?.naive_utc();
        let bounds = Rc::new(boundaries(x.zone, spec.interval, started, x.horizon));
        let fired_to = match spec.catch_up {
            CatchUp::Latest => at.0,
            CatchUp::All => at.0.min(bounds[0]),
        };
        let created = JobModel {
            spec: spec.clone(),
            zone: x.zone,
            bounds,
            fires: Rc::clone(&x.fires),
            incarnation: *incarnation,
            created_at: at.0,
            suspended: None,
            fired_to,
            scheduled_to: 0,
            judged_to: 0,
            due: Set::new(),
            again: Set::new(),
            requested: Set::new(),
            missed: Set::new(),
            stale: BTreeMap::new(),
            left: Set::new(),
            active: BTreeMap::new(),
            backfills: BTreeMap::new(),
            failures: 0,
            late_failures: 0,
            fates: Vec::new(),
        };
        created.agrees(job, *cursor)?;
        if spec.catch_up == CatchUp::All {
            x.owed.extend(self.owed_to_inputs(job, &created, 0));
        }
        self.jobs.insert(job.clone(), Rc::new(created));
        Ok(())
    }
}

impl JobModel {
    pub(crate) fn skip(&mut self, skipped: &Set) {
        for k in skipped {
            self.set_fate(*k, FateModel { fate: Fate::Skipped, generation: 0, published: 0 });
        }
    }

    /// Whether a cursor says what the model believes.
    pub(crate) fn agrees(&self, name: &JobName, cursor: Cursor) -> Check {
        let next = self.fires.iter().find(|at| **at > cursor.fired_to.0);
        let said = cursor.next_fire.map(|at| at.0).filter(|at| self.fires.last().is_some_and(|last| at <= last));
        ensure(next.copied() == said, || format!("{name} fires next at {next:?}, not {said:?}"))?;
        let own = (self.fired_to, self.scheduled_to, self.judged_to);
        let said = (cursor.fired_to.0, cursor.scheduled_to, cursor.judged_to);
        ensure(own == said, || format!("the cursor of {name} should be {own:?}, not {said:?}"))
    }
}
