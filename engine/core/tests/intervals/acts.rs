//! What inputs, users and clocks do.

use tidemill_core::Millis;
use tidemill_core::interval::{DatasetName, Event, JobName, Order, Reprocess, Request, RunKey, Spec};

use crate::check::{Check, ensure};
use crate::world::World;

/// Jobs and what they publish into, one after the other; two share a dataset.
const JOBS: [(&str, &str); 5] =
    [("clean", "cleaned"), ("join", "joined"), ("north", "regions"), ("south", "regions"), ("report", "reported")];

impl World {
    /// Inputs become complete, late and in any order, and are sometimes said to be again.
    pub(crate) fn inputs_go_on(&mut self) -> Check {
        for name in self.sources.keys().cloned().collect::<Vec<_>>() {
            let lag = self.rng.between(0, self.weather.jump(&mut crate::rng::Rng::new(self.now)));
            let late = self.rng.chance(self.weather.late);
            let Some(source) = self.sources.get_mut(&name) else { continue };
            let version = (source.reports.len() + source.held.len()) as u64 * 2 + 1;
            let until = self.now.saturating_sub(lag);
            if until > source.until && self.rng.chance(700) {
                let report = (source.until, until, version);
                source.until = until;
                if late { source.held.push(report) } else { self.report(&name, report)? }
            }
            let Some(source) = self.sources.get_mut(&name) else { continue };
            if !source.held.is_empty() && self.rng.chance(400) {
                let report = source.held.swap_remove(self.rng.between(0, source.held.len() as u64 - 1) as usize);
                self.report(&name, report)?;
            }
            self.say_again(&name, version + 1)?;
        }
        Ok(())
    }

    fn say_again(&mut self, name: &DatasetName, version: u64) -> Check {
        let said = self.sources.get(name).map(|source| source.reports.clone()).unwrap_or_default();
        if self.rng.chance(self.weather.doubled)
            && let Some(report) = self.rng.pick(&said).copied()
        {
            self.count("reports said again");
            self.report(name, report)?;
        }
        if self.rng.chance(self.weather.late / 4)
            && let Some((from, to, _)) = self.rng.pick(&said).copied()
        {
            self.count("late data");
            let middle = from + (to - from) / 2;
            self.report(name, (middle, to.max(middle + 1), version))?;
        }
        Ok(())
    }

    pub(crate) fn report(&mut self, name: &DatasetName, (from, to, version): (u64, u64, u64)) -> Check {
        let said = self.sources.get_mut(name).map(|source| &mut source.reports).ok_or("no such source")?;
        if !said.iter().any(|(_, _, known)| *known == version) {
            said.push((from, to, version));
        }
        let event = Event::DatasetCovered { dataset: name.clone(), from: Millis(from), to: Millis(to), version };
        let refused = self.tell(event)?;
        ensure(refused.is_none(), || format!("a report is refused: {refused:?}"))
    }

    /// What the last coordinator may not have written down.
    pub(crate) fn report_again(&mut self) -> Check {
        for name in self.sources.keys().cloned().collect::<Vec<_>>() {
            for report in self.sources.get(&name).map(|source| source.reports.clone()).unwrap_or_default() {
                let known = self.state.datasets.get(&name).is_some_and(|known| known.versions.contains(report.2));
                if !known {
                    self.report(&name, report)?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn clock_jumps(&mut self) {
        let far = self.rng.between(0, self.weather.skew);
        let far = if self.rng.chance(500) { far } else { self.rng.between(0, 120_000) };
        let old = self.skew;
        self.skew = if self.rng.chance(500) { i64::try_from(far).unwrap() } else { -i64::try_from(far / 4).unwrap() };
        self.count(if self.skew > old { "clocks set forward" } else { "clocks set back" });
        self.trace(|| format!("the clock jumps by {} ms", self.skew - old));
    }

    /// Something that a user asks for. What makes no sense is refused, and changes nothing.
    pub(crate) fn somebody_asks(&mut self) -> Check {
        let (name, output) = *self.rng.pick(&JOBS).unwrap();
        let job = JobName(name.to_owned());
        let choice = self.rng.between(0, 99);
        let event = match choice {
            0..20 => Event::JobCreated { spec: self.spec(name, output), job },
            20..24 => Event::JobReplaced { spec: self.spec(name, output), job },
            24..32 => match self.altered(&job) {
                Some(spec) => Event::JobAltered { job, spec },
                None => return Ok(()),
            },
            32 => Event::JobDropped { job },
            33 => Event::DatasetDropped {
                dataset: DatasetName((*self.rng.pick(&["clicks", "cleaned"]).unwrap()).to_owned()),
            },
            34..42 => Event::JobSuspended { job },
            42..56 => Event::JobResumed { job },
            56..66 => Event::Requested { start: Millis(self.some_boundary(&job)), job },
            66..68 => match self.some_stale() {
                Some((job, request)) => Event::BackfillRequested { job, request },
                None => return Ok(()),
            },
            68..86 => {
                let (a, b) = (self.some_boundary(&job), self.some_boundary(&job));
                let reprocess = [Reprocess::Missing, Reprocess::Failed, Reprocess::Stale, Reprocess::All];
                let reprocess = *self.rng.pick(&reprocess).unwrap();
                let order = *self.rng.pick(&[Order::Forward, Order::Reverse]).unwrap();
                let (from, to, max_runs) = (Millis(a.min(b)), Millis(a.max(b)), self.rng.count(1, 3));
                Event::BackfillRequested { job, request: Request { from, to, reprocess, max_runs, order } }
            }
            86..90 => match self.some_backfill() {
                Some((job, id)) => Event::BackfillCancelled { id, job },
                None => return Ok(()),
            },
            _ => match self.some_run() {
                Some(run) => Event::RunCancelled { run },
                None => return Ok(()),
            },
        };
        let what = name_of(&event);
        let refused = self.tell(event)?;
        self.count(if refused.is_some() { "refused" } else { what });
        Ok(())
    }

    /// A backfill in progress, with its job; or, rarely, one that there is not.
    fn some_backfill(&mut self) -> Option<(JobName, u64)> {
        if self.rng.chance(100) {
            return Some((JobName(self.rng.pick(&JOBS)?.0.to_owned()), self.state.backfills));
        }
        let jobs = self.state.jobs.iter();
        let all: Vec<_> = jobs.flat_map(|(job, found)| found.backfills.keys().map(|id| (job.clone(), *id))).collect();
        self.rng.pick(&all).cloned()
    }

    /// A backfill of the first stale interval that there is.
    fn some_stale(&self) -> Option<(JobName, Request)> {
        let stale = self.model.jobs.iter().find_map(|(name, job)| Some((name, job, *job.stale.keys().next()?)));
        let (name, job, first) = stale?;
        let (from, to) = (Millis(job.start(first)), Millis(job.end(first)));
        let (reprocess, order) = (Reprocess::Stale, Order::Forward);
        Some((name.clone(), Request { from, to, reprocess, max_runs: 1, order }))
    }

    fn spec(&mut self, name: &str, output: &str) -> Spec {
        let inputs: &[&str] = match name {
            "clean" => &["clicks", "ads"],
            "join" => &["clicks", "ads", "cleaned"],
            "report" => &["regions", "ads"],
            _ => &["clicks", "cleaned", "joined"],
        };
        let inputs: Vec<DatasetName> = inputs.iter().map(|input| DatasetName((*input).to_owned())).collect();
        let (mut spec, times) = self.weather.spec(&mut self.rng, output, &inputs);
        self.specs += 1;
        spec.statement = format!("{name} {}", self.specs);
        if let Some(times) = times {
            self.times.insert(spec.statement.clone(), times);
        }
        spec
    }

    /// Other options, or everything else that keeps the intervals.
    fn altered(&mut self, job: &JobName) -> Option<Spec> {
        let mut spec = self.state.jobs.get(job)?.spec.clone();
        if self.rng.chance(400) {
            let other = self.spec(&job.0, &spec.output.0.clone());
            let (zone, interval, start) = (spec.zone, spec.interval, spec.start);
            return Some(Spec { zone, interval, start, ..other });
        }
        spec.options = self.weather.options(&mut self.rng);
        Some(spec)
    }

    fn some_boundary(&mut self, job: &JobName) -> u64 {
        let Some(known) = self.model.jobs.get(job) else { return self.now };
        let ended = known.ended(self.clock());
        let (low, high) = if self.rng.chance(500) { (ended.saturating_sub(12), ended + 2) } else { (0, ended + 1) };
        let last = known.bounds.len() as u64 - 2;
        known.start(self.rng.between(low, high).min(last))
    }

    fn some_run(&mut self) -> Option<RunKey> {
        let open: Vec<RunKey> = self.open.iter().cloned().collect();
        self.rng.pick(&open).cloned()
    }
}

const fn name_of(event: &Event) -> &'static str {
    match event {
        Event::JobCreated { .. } => "jobs created",
        Event::JobReplaced { .. } => "jobs replaced",
        Event::JobAltered { .. } => "jobs altered",
        Event::JobDropped { .. } => "jobs dropped",
        Event::JobSuspended { .. } => "jobs suspended",
        Event::JobResumed { .. } => "jobs resumed",
        Event::Requested { .. } => "intervals asked for",
        Event::BackfillRequested { .. } => "backfills",
        Event::BackfillCancelled { .. } => "backfills cancelled",
        Event::RunCancelled { .. } => "runs cancelled",
        Event::DatasetDropped { .. } => "datasets dropped",
        Event::Restarted
        | Event::RunBegan { .. }
        | Event::RunEnded { .. }
        | Event::DatasetCovered { .. }
        | Event::Tick => "other",
    }
}
