//! Jobs: the interval machine, embedded. What it submits is accepted in the step that started it, and a run's end is its
//! interval's in the step that ended it: one batch of the log has both or neither.
//!
//! Invariant: no interval is in progress without its run, and no run of a job ends without its interval.

use super::decide::Decider;
use super::{Action, Basis, Command};
use crate::interval::{self, Cause, Interval, JobName, Limits, Mode, RunKey, Spec};
use crate::record::{AskedNotice, JobRun, Kept, Outcome, Record, Run, RunSpec, RunState};
use crate::{Error, Millis, Principal, Result, RunId};

/// Notices that wait to be told: of more, the oldest are given up.
const MOST_NOTICES: usize = 1_000;

/// Another job that would delete what this one publishes, or the other way round.
#[must_use]
pub fn rival<'a>(jobs: &'a interval::State, job: &JobName, spec: &Spec) -> Option<&'a JobName> {
    let replaces = |spec: &Spec| spec.options.mode == Mode::ReplaceInterval;
    let others = jobs.producers.get(&spec.output).into_iter().flatten().filter(|other| *other != job);
    let mut known = others.filter_map(|name| Some((name, jobs.jobs.get(name)?)));
    known.find(|(_, other)| replaces(spec) || replaces(&other.spec)).map(|(name, _)| name)
}

/// The interval that waits for another try after a run of this name, and whose it is: the history may have forgotten the run by then.
#[must_use]
pub fn tried_again<'a>(jobs: &'a interval::State, run: &RunId) -> Option<(RunKey, Option<&'a Principal>)> {
    let mut keys = jobs.jobs.iter().flat_map(|(name, job)| {
        job.active.iter().map(move |(index, active)| {
            let (generation, attempt) = (active.generation, active.attempt);
            let key = RunKey { job: name.clone(), incarnation: job.incarnation, index: *index, generation, attempt };
            (key, job.spec.by.as_ref())
        })
    });
    keys.find(|(key, _)| key.run() == *run)
}

impl Decider<'_> {
    /// What happened to jobs by itself, of which nothing can be refused.
    pub(super) fn of_jobs(&mut self, event: interval::Event) {
        let refused = self.ask_jobs(event);
        debug_assert!(refused.is_ok(), "{refused:?}");
    }

    /// A new leader: what is in progress goes on, and what somebody was to be told is told, perhaps again.
    pub(super) fn jobs_restarted(&mut self) {
        self.of_jobs(interval::Event::Restarted);
        let begun = self.state.live.iter().filter_map(|run| self.state.runs.get(run));
        let begun = begun.filter(|run| run.state != RunState::Queued).filter_map(|run| run.spec.job.as_ref());
        for run in begun.map(|job| job.key.clone()).collect::<Vec<_>>() {
            self.of_jobs(interval::Event::RunBegan { run });
        }
        for (id, asked) in self.state.notices.clone() {
            self.act(Action::Notify { id, asked });
        }
    }

    /// A run that had to wait for its turn has it.
    pub(super) fn run_began(&mut self, run: &RunId) {
        let job = self.state.runs.get(run).and_then(|run| run.spec.job.as_ref());
        if let Some(run) = job.map(|job| job.key.clone()) {
            self.of_jobs(interval::Event::RunBegan { run });
        }
    }

    fn notify(&mut self, asked: AskedNotice) {
        while self.state.notices.len() >= MOST_NOTICES
            && let Some((oldest, _)) = self.state.notices.first_key_value()
        {
            let id = *oldest;
            self.record(Record::NoticeDone { id });
        }
        let id = self.state.noticed + 1;
        self.record(Record::NoticeAsked { id, asked: asked.clone() });
        self.act(Action::Notify { id, asked });
    }

    pub(super) fn notice_ended(&mut self, id: u64) {
        if self.state.notices.contains_key(&id) {
            self.record(Record::NoticeDone { id });
        }
    }

    /// Schedules go by clocks on the wall, deadlines of executors by one that nobody sets.
    pub(super) fn clock_set(&mut self, ahead_ms: i64) {
        if self.state.clock_ahead_ms != ahead_ms {
            self.record(Record::ClockSet { ahead_ms });
        }
    }

    /// Lets the interval machine decide, and does what it asks for.
    fn ask_jobs(&mut self, event: interval::Event) -> Result<()> {
        // Runs of jobs themselves find a place beside those of backfills.
        let most = (self.settings.active_runs / 2).max(1);
        let limits = Limits { backfill_runs: Limits::default().backfill_runs.min(most), ..Limits::default() };
        let wall = Millis(self.now.0.saturating_add_signed(self.state.clock_ahead_ms));
        let step = interval::step(&mut self.state.jobs, &limits, event, wall)?;
        self.applied(step.records, step.urgent);
        for action in step.actions {
            match action {
                interval::Action::Submit { run, interval, cause, revision } => {
                    self.submit_interval(run, interval, cause, revision);
                }
                interval::Action::Cancel { run } => self.cancelled(&run.run()),
                interval::Action::Notify { job, to, notice } => self.notify(AskedNotice { job, to, notice }),
            }
        }
        Ok(())
    }

    /// Accepts the run of an interval. One of its name is the same run: it goes on, or it has ended and says so again.
    fn submit_interval(&mut self, key: RunKey, interval: Interval, cause: Cause, revision: u64) {
        let run = key.run();
        if let Some(known) = self.state.runs.get(&run) {
            let rows = known.published_rows();
            if let Some(ended) = known.outcome().map(|outcome| outcome.of_interval(rows)) {
                self.of_jobs(interval::Event::RunEnded { run: key, ended });
            }
            return;
        }
        let Some(known) = self.state.jobs.jobs.get(&key.job) else { return };
        let job = JobRun { key, interval, cause, revision, identity: known.spec.identity.clone() };
        let spec = RunSpec {
            statement: known.spec.statement.clone(),
            request: None,
            express: false,
            may_change: true,
            by: known.spec.by.clone(),
            job: Some(job),
        };
        self.record(Record::RunAccepted { run, spec, at: self.now });
    }

    /// Does what a statement asks for, and ends the run that carries it.
    pub(super) fn commanded(&mut self, run: &RunId, command: Command, kept: Option<Kept>) {
        if self.live_run(run).is_none() {
            return;
        }
        let rows = u64::from(command.answers());
        let done = match command {
            Command::Job { event, basis } => self
                .check_basis(basis.as_ref(), &event)
                .and_then(|()| self.check_commits(&event))
                .and_then(|()| self.check_alone(&event))
                .and_then(|()| self.check_reported(&event))
                .and_then(|()| self.ask_jobs(*event)),
            Command::CancelRun { run } => self.cancel_run(&run),
        };
        let outcome = match done {
            Ok(()) => Outcome::Succeeded { rows, kept, version: None },
            Err(error) => Outcome::Failed { error },
        };
        self.finish(run, outcome);
    }

    fn check_basis(&self, basis: Option<&Basis>, event: &interval::Event) -> Result<()> {
        let jobs = &self.state.jobs.jobs;
        let (name, is_same) = match (basis, event) {
            (Some(Basis { job, incarnation, revision }), _) => {
                let is_it = |known: &interval::Job| known.incarnation == *incarnation && known.revision == *revision;
                (job, jobs.get(job).is_some_and(is_it))
            }
            // There was none when it was planned.
            (None, interval::Event::JobReplaced { job, .. }) => (job, !jobs.contains_key(job)),
            (None, _) => return Ok(()),
        };
        match is_same {
            true => Ok(()),
            false => Err(Error::conflict(format!(
                "job {name} was changed by another client meanwhile: look, then try again"
            ))),
        }
    }

    /// What a run is publishing cannot be taken back, and must not land behind the rows of another job of the name.
    fn check_commits(&self, event: &interval::Event) -> Result<()> {
        let (interval::Event::JobDropped { job } | interval::Event::JobReplaced { job, .. }) = event else {
            return Ok(());
        };
        let is_its = |run: &Run| run.intent.is_some() && run.spec.job.as_ref().is_some_and(|of| of.key.job == *job);
        let publishing = self.state.live.iter().find(|run| self.state.runs.get(run).is_some_and(is_its));
        match publishing {
            None => Ok(()),
            Some(run) => Err(Error::conflict(format!(
                "run {run} of job {job} is being published, and cannot be stopped any more: try again when it has ended"
            ))),
        }
    }

    /// Nobody knows when the statement was planned which other jobs are accepted before it.
    fn check_alone(&self, event: &interval::Event) -> Result<()> {
        let (interval::Event::JobCreated { job, spec }
        | interval::Event::JobReplaced { job, spec }
        | interval::Event::JobAltered { job, spec }) = event
        else {
            return Ok(());
        };
        match rival(&self.state.jobs, job, spec) {
            None => Ok(()),
            Some(other) => Err(Error::invalid(format!(
                "the job {other} publishes into `{}` too, and one would delete the other's rows of an interval: set mode = 'append' \
                 for both, or give each a dataset of its own",
                spec.output
            ))),
        }
    }

    /// A job that publishes into a dataset may have been made since the statement was planned: it knows what it has published.
    fn check_reported(&self, event: &interval::Event) -> Result<()> {
        let interval::Event::DatasetCovered { dataset, to, .. } = event else { return Ok(()) };
        match self.state.jobs.producing(dataset).find(|(_, job)| job.calendar.boundary(0) < *to) {
            None => Ok(()),
            Some((job, _)) => Err(Error::conflict(format!(
                "the job {job} publishes into `{dataset}` by now, which is complete when all its intervals are published"
            ))),
        }
    }

    /// One that computes an interval is not tried again, and one that waits for its next try does not get it.
    fn cancel_run(&mut self, run: &RunId) -> Result<()> {
        let Some(known) = self.state.runs.get(run) else {
            let waiting = tried_again(&self.state.jobs, run).map(|(key, _)| key);
            if let Some(run) = waiting {
                return self.ask_jobs(interval::Event::RunCancelled { run });
            }
            return Err(Error::not_found(format!("there is no run {run}: system.runs lists those that are known")));
        };
        if let Some(job) = &known.spec.job {
            let run = job.key.clone();
            return self.ask_jobs(interval::Event::RunCancelled { run });
        }
        if known.state.is_terminal() {
            return Err(Error::conflict(format!("run {run} has ended already: it is {}", known.state.name())));
        }
        self.cancelled(run);
        Ok(())
    }

    /// A run that a client ends: the interval of a job's goes with it.
    pub(super) fn cancelled_by_client(&mut self, run: &RunId) {
        match self.live_run(run).and_then(|live| live.spec.job.as_ref()).map(|job| job.key.clone()) {
            // It may have been told to end already.
            Some(run) => _ = self.ask_jobs(interval::Event::RunCancelled { run }),
            None => self.cancelled(run),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets the unexpected should say so and end")]
mod tests {
    use super::super::{Event, step};
    use super::*;
    use crate::interval::{CatchUp, Cron, DatasetName, Length, Local, Options, Trigger, Unit, Zone};
    use crate::record::State;
    use crate::{Epoch, Settings};

    /// What becomes of a statement that asks something of jobs.
    fn asked(state: &mut State, event: interval::Event) -> Outcome {
        let (settings, run) = (Settings::default(), RunId(format!("statement-{}", state.runs.len())));
        let spec =
            RunSpec { statement: String::new(), request: None, express: true, may_change: true, by: None, job: None };
        let _submitted = step(state, &settings, Event::Submitted { run: run.clone(), spec }, Millis(0));
        let command = Command::Job { event: Box::new(event), basis: None };
        let step = step(state, &settings, Event::Commanded { run, command, kept: None }, Millis(0));
        let mut ends = step.records.into_iter().filter_map(|record| match record {
            Record::RunFinished { outcome, .. } => Some(outcome),
            _ => None,
        });
        ends.next().unwrap()
    }

    #[test]
    fn what_a_job_publishes_is_not_for_a_statement_to_say_that_was_planned_before_it() {
        let (mut state, sums) = (State::default(), DatasetName("public.sums".to_owned()));
        let _elected = step(
            &mut state,
            &Settings::default(),
            Event::Elected { epoch: Epoch(1), build: "1".to_owned() },
            Millis(0),
        );
        let spec = Spec {
            statement: "CREATE JOB hourly …".to_owned(),
            output: sums.clone(),
            trigger: Trigger::Schedule { cron: Cron::parse("@hourly").unwrap() },
            zone: Zone::UTC,
            interval: Length { count: 1, unit: Unit::Hour },
            start: Some(Local(7_200_000)),
            catch_up: CatchUp::Latest,
            depends_on: Vec::new(),
            options: Options::default(),
            identity: String::new(),
            by: None,
        };
        let created = interval::Event::JobCreated { job: JobName("hourly".to_owned()), spec };
        assert!(matches!(asked(&mut state, created), Outcome::Succeeded { .. }));
        let to =
            |to| interval::Event::DatasetCovered { dataset: sums.clone(), from: Millis(0), to: Millis(to), version: 1 };
        let Outcome::Failed { error } = asked(&mut state, to(7_200_001)) else { unreachable!("it is refused") };
        assert!(error.message.contains("the job hourly publishes into `public.sums` by now"), "{error}");
        assert!(
            matches!(asked(&mut state, to(7_200_000)), Outcome::Succeeded { .. }),
            "what was before is not its own"
        );
    }
}
