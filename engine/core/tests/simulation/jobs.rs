//! Jobs in the simulated cluster: one that is backfilled, and one that waits until all of that is there. Whoever dies, an
//! interval is published once.

use std::collections::BTreeMap;

use tidemill_core::interval::{
    self, CatchUp, Cron, DatasetName, Fate, JobName, Length, Local, Options, Order, Reprocess, RunKey, Spec, Trigger,
    Unit, Zone, is_retried,
};
use tidemill_core::record::{Record, State};
use tidemill_core::schedule::{Command, Event};
use tidemill_core::{Millis, RunId};

use crate::graphs;
use crate::happening::{Happening, Plan};
use crate::invariants::ensure;
use crate::world::{Check, World};

const MINUTE_MS: u64 = 60_000;
/// Intervals that are backfilled.
const INTERVALS: u64 = 5;
/// What a client of the simulation calls its statements.
const STATEMENTS: [&str; 3] = ["create clean", "create sums", "backfill clean"];

/// What jobs published: a dataset's versions are its commits, counted from 1.
#[derive(Debug, Default)]
pub(crate) struct Datasets {
    commits: Vec<RunKey>,
    /// The newest generation by what names an interval, as the transaction identifiers of a Delta table have it.
    newest: BTreeMap<(JobName, u64, u64), (u32, u64)>,
}

impl Datasets {
    /// Commits, unless that was done; the version that has it.
    fn commit(&mut self, key: &RunKey) -> u64 {
        let newest = self.newest.entry((key.job.clone(), key.incarnation, key.index)).or_default();
        if newest.0 < key.generation {
            self.commits.push(key.clone());
            *newest = (key.generation, self.commits.len() as u64);
        }
        newest.1
    }
}

fn job(name: &str) -> JobName {
    JobName(name.to_owned())
}

fn spec(output: &str, trigger: Trigger, minutes: u32) -> Spec {
    let options = Options {
        retries: 100,
        retry_backoff_ms: 100,
        // Leaders' clocks are hours apart.
        timeout_ms: 30 * 24 * 60 * MINUTE_MS,
        suspend_after_failures: 0,
        ..Options::default()
    };
    Spec {
        statement: format!("CREATE JOB … INTO {output}"),
        output: DatasetName(output.to_owned()),
        trigger,
        zone: Zone::UTC,
        interval: Length { count: minutes, unit: Unit::Minute },
        start: Some(Local(0)),
        catch_up: CatchUp::All,
        depends_on: Vec::new(),
        options,
        identity: String::new(),
        by: None,
    }
}

fn statement(run: &RunId) -> interval::Event {
    if run.0 == STATEMENTS[0] {
        let trigger = Trigger::Schedule { cron: Cron::parse("@yearly").unwrap() };
        let spec = Spec { catch_up: CatchUp::Latest, ..spec("clean", trigger, 1) };
        return interval::Event::JobCreated { job: job("clean"), spec };
    }
    if run.0 == STATEMENTS[1] {
        let of = vec![DatasetName("clean".to_owned())];
        let minutes = u32::try_from(INTERVALS).unwrap();
        return interval::Event::JobCreated { job: job("sums"), spec: spec("sums", Trigger::Update { of }, minutes) };
    }
    let (from, to) = (Millis(0), Millis(INTERVALS * MINUTE_MS));
    let (reprocess, order) = (Reprocess::Missing, Order::Reverse);
    let request = interval::Request { from, to, reprocess, max_runs: 2, order };
    interval::Event::BackfillRequested { job: job("clean"), request }
}

impl World {
    /// Two jobs, and later a backfill.
    pub(crate) fn set_up_jobs(&mut self) {
        for statement in &STATEMENTS[..2] {
            let (run, at) = (RunId((*statement).to_owned()), self.rng.between(0, 3_000));
            self.plans.insert(run.clone(), Plan::Command);
            self.after(at, Happening::Submit(run));
        }
    }

    /// Its client goes on when it knows that its job is there.
    pub(crate) fn follow_up(&mut self, run: &RunId) {
        let backfill = RunId(STATEMENTS[2].to_owned());
        if run.0 == STATEMENTS[0] && !self.plans.contains_key(&backfill) {
            self.plans.insert(backfill.clone(), Plan::Command);
            self.after(1, Happening::Submit(backfill));
        }
    }

    pub(crate) fn command(run: RunId) -> Event {
        let command = Command::Job { event: Box::new(statement(&run)), basis: None };
        Event::Commanded { run, command, kept: None }
    }

    /// Runs that jobs submitted get a plan like others.
    pub(crate) fn note_runs_of_jobs(&mut self, records: &[Record]) {
        for record in records {
            if let Record::RunAccepted { run, spec, .. } = record
                && spec.job.is_some()
            {
                self.runs_of_jobs.insert(run.clone());
                if !self.plans.contains_key(run) {
                    let graph = graphs::random(&mut self.rng);
                    self.plans.insert(run.clone(), Plan::Sink(graph));
                }
            }
        }
    }

    /// Commits what a run of a job wrote; the version.
    pub(crate) fn commit_interval(&mut self, run: &RunId) -> Option<u64> {
        let key = self.state.runs.get(run)?.spec.job.as_ref()?.key.clone();
        self.ledger.counts.intervals += 1;
        self.ledger.counts.intervals_retried += u64::from(key.attempt > 1);
        Some(self.datasets.commit(&key))
    }

    /// Whether jobs still have something to do that they can.
    pub(crate) fn jobs_go_on(&self) -> bool {
        let jobs = &self.state.jobs.jobs;
        let Some(clean) = jobs.get(&job("clean")) else { return false };
        let all_there = (0..INTERVALS).all(|index| clean.ledger.is_published(index));
        let sums =
            jobs.get(&job("sums")).is_some_and(|sums| !sums.active.is_empty() || (all_there && !sums.due.is_empty()));
        sums || !clean.active.is_empty() || !clean.backfills.is_empty()
    }

    /// Each interval has been published once, or failed for a reason that stays.
    pub(crate) fn check_jobs(&self) -> Check {
        let jobs = &self.state.jobs.jobs;
        let Some(clean) = jobs.get(&job("clean")) else { return Ok(()) };
        // A client that never heard that its job is there asked for nothing more.
        if !self.plans.contains_key(&RunId(STATEMENTS[2].to_owned())) {
            return Ok(());
        }
        let commits = |name: &str, index| {
            let of = |key: &&RunKey| key.job.0 == name && key.index == index;
            self.datasets.commits.iter().filter(of).count()
        };
        let mut all_there = true;
        for index in 0..INTERVALS {
            let entry = clean.ledger.entry(index);
            ensure!(entry.is_some(), "interval {index} never ran");
            let (entry, committed) = (entry.unwrap(), commits("clean", index));
            match entry.fate {
                Fate::Published => {
                    let version = self.datasets.newest.get(&(job("clean"), clean.incarnation, index)).map(|(_, v)| *v);
                    ensure!(committed == 1, "interval {index} was published {committed} times");
                    ensure!(clean.ledger.version(index) == version, "interval {index} is not in version {version:?}");
                }
                Fate::Failed => {
                    all_there = false;
                    let stays = clean.ledger.failure(index).is_some_and(|failure| !is_retried(failure.error.kind));
                    ensure!(stays && committed == 0, "interval {index} failed, and {committed} of it were published");
                }
                other => return Err(format!("interval {index} is {other:?}")),
            }
        }
        ensure!(commits("clean", INTERVALS) == 0, "an interval was published that nobody asked for");
        let sums = jobs.get(&job("sums")).and_then(|sums| sums.ledger.entry(0));
        let committed = commits("sums", 0);
        let is_last = self.datasets.commits.last().is_some_and(|key| key.job.0 == "sums");
        match sums.map(|entry| entry.fate) {
            Some(Fate::Published) => ensure!(
                committed == 1 && all_there && is_last,
                "the sums were published {committed} times, last: {is_last}, of all: {all_there}"
            ),
            Some(Fate::Failed) => ensure!(committed == 0, "the sums failed, and are there"),
            None => ensure!(committed == 0 && !all_there, "the sums did not run, and their input is complete"),
            Some(other) => return Err(format!("the sums are {other:?}")),
        }
        Ok(())
    }
}

/// No interval is in progress without its run, and no run of a job without its interval.
pub(crate) fn check_runs(state: &State) -> Check {
    for (name, known) in &state.jobs.jobs {
        for (index, active) in &known.active {
            let (generation, attempt) = (active.generation, active.attempt);
            let key = RunKey { job: name.clone(), incarnation: known.incarnation, index: *index, generation, attempt };
            let waits = matches!(active.state, interval::ActiveState::Retrying { .. });
            ensure!(
                waits != state.live.contains(&key.run()),
                "interval {index} of {name} is {:?}, and its run is not like that",
                active.state
            );
        }
    }
    for run in &state.live {
        let Some(of) = state.runs[run].spec.job.as_ref().map(|job| &job.key) else { continue };
        let active = state.jobs.jobs.get(&of.job).and_then(|job| job.active.get(&of.index));
        ensure!(
            active.is_some_and(|active| (active.generation, active.attempt) == (of.generation, of.attempt)),
            "run {run} goes on without its interval"
        );
    }
    Ok(())
}
