//! Runs that the machine submitted: they go on whatever becomes of the coordinator, and publish at most once.

use tidemill_core::interval::{Active, ActiveState, Cause, Ended, Event, Interval, Job, JobName, Reprocess, RunKey};
use tidemill_core::{Error, ErrorKind};

use crate::check::{Check, ensure};
use crate::world::World;

/// A run.
pub(crate) struct ModelRun {
    ends_at: u64,
    fate: RunFate,
    /// Whether it was told to end.
    is_cancelled: bool,
    pub(crate) ended: Option<Ended>,
}

/// How a run will end.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RunFate {
    Publishes,
    Fails(ErrorKind),
    /// Only when it is told to.
    Hangs,
}

const KINDS: [ErrorKind; 5] = [
    ErrorKind::Unavailable,
    ErrorKind::LostInput,
    ErrorKind::ResourcesExhausted,
    ErrorKind::Invalid,
    ErrorKind::Conflict,
];

/// The runs of a job's intervals that are such.
fn runs_of(name: &JobName, job: &Job, is_such: impl Fn(&Active) -> bool) -> Vec<RunKey> {
    let such = job.active.iter().filter(|(_, active)| is_such(active));
    let keys = such.map(|(index, active)| RunKey {
        job: name.clone(),
        incarnation: job.incarnation,
        index: *index,
        generation: active.generation,
        attempt: active.attempt,
    });
    keys.collect()
}

impl World {
    pub(crate) fn submit(&mut self, run: RunKey, interval: Interval, cause: Cause) -> Check {
        self.trace(|| format!("    submit {run} {interval:?}"));
        if self.runs.contains_key(&run) {
            self.count("runs submitted again");
            return Ok(()); // Its end is told again if it has ended.
        }
        self.may_be_submitted(&run, interval)?;
        self.count(match cause {
            Cause::Schedule => "runs by schedule",
            Cause::Update => "runs by update",
            Cause::Manual => "runs by hand",
            Cause::Backfill { .. } => "runs of backfills",
            Cause::Late => "runs of late data",
        });
        if let Cause::Backfill { backfill } = cause
            && let Some(backfill) = self.model.jobs.get(&run.job).and_then(|job| job.backfills.get(&backfill))
            && backfill.request.reprocess == Reprocess::Stale
        {
            self.count("runs of what was stale");
        }
        let chance = self.rng.between(0, 999);
        let fate = if self.is_calm {
            RunFate::Publishes
        } else if chance < self.weather.failing {
            RunFate::Fails(*self.rng.pick(&KINDS).unwrap())
        } else if chance < self.weather.failing + self.weather.hanging {
            RunFate::Hangs
        } else {
            RunFate::Publishes
        };
        let ends_at = if self.is_calm { self.now } else { self.now + self.weather.run_ms(&mut self.rng) };
        self.open.insert(run.clone());
        self.runs.insert(run, ModelRun { ends_at, fate, is_cancelled: false, ended: None });
        Ok(())
    }

    /// What must hold of the world, whatever the records say.
    fn may_be_submitted(&self, run: &RunKey, interval: Interval) -> Check {
        let first = RunKey { generation: 0, attempt: 0, ..run.clone() };
        let last = RunKey { generation: u32::MAX, attempt: u32::MAX, ..run.clone() };
        for (other, known) in self.runs.range(first..=last) {
            ensure(known.ended.is_some(), || format!("{run} begins while {other} runs"))?;
            let is_newer = (other.generation, other.attempt) < (run.generation, run.attempt);
            ensure(is_newer, || format!("{run} begins after {other}"))?;
            let published = matches!(known.ended, Some(Ended::Published { .. }));
            ensure(!published || other.generation < run.generation, || format!("{run} is published, by {other}"))?;
        }
        ensure(interval.start < interval.end, || format!("{run} has an empty interval"))?;
        let job = self.model.jobs.get(&run.job).ok_or("a run of an unknown job")?;
        let own = (job.start(run.index), job.end(run.index));
        ensure(own == (interval.start.0, interval.end.0), || format!("{run} is of {own:?}, not {interval:?}"))
    }

    pub(crate) fn cancel(&mut self, run: &RunKey) {
        self.trace(|| format!("    cancel {run}"));
        if let Some(known) = self.runs.get_mut(run) {
            known.is_cancelled = true;
        }
    }

    /// Ends runs whose time has come, and tells the ends of all that the machine believes in progress.
    pub(crate) fn end_runs(&mut self) -> Check {
        let all = |is_such: fn(&Active) -> bool| {
            let runs = self.state.jobs.iter().flat_map(|(name, job)| runs_of(name, job, is_such));
            runs.collect::<Vec<RunKey>>()
        };
        for key in all(|active: &Active| matches!(active.state, ActiveState::Stopping { .. })) {
            let was_told = self.runs.get(&key).is_none_or(|run| run.is_cancelled);
            ensure(was_told, || format!("nobody told {key} to end"))?;
        }
        for key in all(|active: &Active| active.state == ActiveState::Running && !active.begun) {
            // Some wait longer for their turn.
            if self.is_calm || self.rng.chance(700) {
                self.tell(Event::RunBegan { run: key })?;
            }
        }
        let is_due =
            |run: &ModelRun| run.ended.is_none() && (run.is_cancelled || self.is_calm || run.ends_at <= self.now);
        let due: Vec<RunKey> = self.open.iter().filter(|key| self.runs.get(key).is_some_and(is_due)).cloned().collect();
        for key in due {
            self.end(&key)?;
        }
        let believed = self.state.jobs.iter().flat_map(|(name, job)| runs_of(name, job, |_| true));
        for key in believed.collect::<Vec<_>>() {
            if let Some(ended) = self.runs.get(&key).and_then(|run| run.ended.clone()) {
                self.tell_end(&key, &ended)?;
            }
        }
        if self.rng.chance(self.weather.doubled)
            && let Some(key) = self.rng.pick(&self.over).cloned()
            && let Some(ended) = self.runs.get(&key).and_then(|run| run.ended.clone())
        {
            self.count("ends told long after");
            self.tell_end(&key, &ended)?;
        }
        Ok(())
    }

    fn end(&mut self, key: &RunKey) -> Check {
        let Some(run) = self.runs.get(key) else { return Ok(()) };
        // A publication cannot always be stopped.
        let too_late = run.is_cancelled && self.rng.chance(300) && run.fate == RunFate::Publishes;
        let ended = match &run.fate {
            _ if run.is_cancelled && !too_late => Ended::Cancelled,
            RunFate::Hangs if self.is_calm => Ended::Failed { error: Error::unavailable("it is killed") },
            RunFate::Hangs => return Ok(()),
            RunFate::Fails(kind) => Ended::Failed { error: Error::new(*kind, format!("{key} was to fail")) },
            RunFate::Publishes => Ended::Published { version: self.publish(key)?, rows: None },
        };
        if let Some(run) = self.runs.get_mut(key) {
            run.ended = Some(ended);
        }
        self.open.remove(key);
        self.over.push(key.clone());
        Ok(())
    }

    /// The fence of a commit: one per generation, and none after a newer one.
    fn publish(&mut self, key: &RunKey) -> Result<u64, String> {
        let place = (key.job.clone(), key.incarnation, key.index);
        let generations = self.published.entry(place).or_default();
        ensure(generations.last().is_none_or(|last| *last < key.generation), || format!("{key} is published twice"))?;
        generations.push(key.generation);
        let output = self.model.jobs.get(&key.job).map(|job| job.spec.output.clone());
        let version =
            self.versions.entry(output.unwrap_or(tidemill_core::interval::DatasetName("gone".to_owned()))).or_default();
        *version += 1;
        Ok(*version)
    }
}
