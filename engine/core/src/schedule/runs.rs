//! Runs: accepted, planned, finished.

use super::Action;
use super::accounts::disagreement;
use super::decide::Decider;
use crate::graph::StageGraph;
use crate::interval;
use crate::record::{Checked, ExecutorState, Outcome, Record, Run, RunSpec, RunState, Sheet, bounded};
use crate::{Attempt, Error, ExecutorId, RunId};

/// Runs that stay in the history however many tasks they have: clients that lost an answer ask for it again.
const LATEST_RUNS: usize = 100;

/// Queues of runs, each of which lets so many begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    /// What the coordinator answers alone.
    Express,
    /// What clients wait for.
    Clients,
    /// What jobs submit.
    Jobs,
}

impl Lane {
    const fn of(run: &Run) -> Self {
        match (run.spec.express, &run.spec.job) {
            (true, _) => Self::Express,
            (false, None) => Self::Clients,
            (false, Some(_)) => Self::Jobs,
        }
    }
}

impl Decider<'_> {
    pub(super) fn submitted(&mut self, run: RunId, spec: RunSpec) {
        if self.state.runs.contains_key(&run) {
            return; // The same client resubmitted with the same key.
        }
        self.record(Record::RunAccepted { run, spec, at: self.now });
    }

    /// Gives queued runs their turn, oldest first. Those that need no executor have a lane of their own, and so have those of
    /// jobs: at the full hour nobody waits behind all of them. Runs that only wait
    /// for their clients do not keep others from theirs, up to a number of them: what they hold with executors is bounded by
    /// the budgets of exchange data, and what is on its way to clients by this number.
    pub(super) fn plan_queued(&mut self) {
        if self.state.live.is_empty() {
            return;
        }
        for wanted in [Lane::Express, Lane::Clients, Lane::Jobs] {
            let lane = self.state.live.iter().filter_map(|id| Some((id, self.state.runs.get(id)?)));
            let lane: Vec<_> = lane.filter(|(_, run)| Lane::of(run) == wanted).collect();
            let is_queued = |run: &Run| run.state == RunState::Queued;
            let begun = lane.iter().filter(|(_, run)| !is_queued(run)).count();
            let unread = lane.iter().filter(|(_, run)| run.waits_for_client()).count();
            let active = begun - unread.min(self.settings.unread_runs);
            let free = self.settings.active_runs.saturating_sub(active);
            let turn: Vec<RunId> =
                lane.into_iter().filter(|(_, run)| is_queued(run)).take(free).map(|(id, _)| id.clone()).collect();
            for run in turn {
                self.record(Record::RunPlanning { run: run.clone(), at: self.now });
                self.run_began(&run);
                self.act(Action::Plan { run });
            }
        }
    }

    pub(super) fn planned(&mut self, run: RunId, graph: Result<StageGraph, Error>, sheet: Option<Sheet>) {
        if self.live_run(&run).is_none_or(|r| r.state != RunState::Planning) {
            return;
        }
        match graph.and_then(|g| g.validate().map(|()| g)) {
            Err(error) => self.finish(&run, Outcome::Failed { error }),
            Ok(graph) => {
                self.record(Record::RunPlanned { run: run.clone(), graph, sheet });
                self.refresh(&run);
            }
        }
    }

    pub(super) fn unread(&mut self, run: RunId) {
        if self.live_run(&run).is_some_and(|r| r.state == RunState::Planning && !r.unread) {
            self.record(Record::RunUnread { run });
        }
    }

    /// What a run wrote was checked, and it is not decided yet that it is published.
    pub(super) fn checked(&mut self, run: RunId, checks: Vec<Checked>) {
        if self.live_run(&run).is_some_and(|r| r.intent.is_none()) {
            self.record(Record::RunChecked { run, checks: bounded(checks) });
        }
    }

    pub(super) fn commit_ready(&mut self, run: RunId, winners: Vec<Attempt>, rows: u64) {
        let Some(live) = self.live_run(&run).filter(|r| r.intent.is_none()) else { return };
        if let Some(error) = disagreement(live) {
            self.finish(&run, Outcome::Failed { error });
        } else {
            self.record(Record::RunCommitting { run: run.clone(), winners, rows });
            self.act(Action::Commit { run });
        }
    }

    pub(super) fn catalogue_changed(&mut self, run: &RunId, record: Option<Record>, outcome: Outcome) {
        if self.live_run(run).is_some() {
            if let Some(record) = record {
                self.change(record);
            }
            self.finish(run, outcome);
        }
    }

    /// What is being published is past the point where it could be taken back.
    pub(super) fn cancelled(&mut self, run: &RunId) {
        if self.live_run(run).is_some_and(|r| r.intent.is_none()) {
            self.finish(run, Outcome::Cancelled);
        }
    }

    /// The single path to a terminal state. A finished run never changes again.
    pub(super) fn finish(&mut self, run: &RunId, outcome: Outcome) {
        let Some(live) = self.live_run(run) else { return };
        let running = live.running();
        let published = live.published_rows();
        let job = live.spec.job.as_ref().map(|job| job.key.clone());
        let job = job.map(|run| interval::Event::RunEnded { run, ended: outcome.of_interval(published) });
        self.record(Record::RunFinished { run: run.clone(), outcome: outcome.clone(), at: self.now });
        for (executor, attempt) in running {
            self.act(Action::Stop { executor, attempt });
        }
        // Every executor, not only current holders: outputs of attempts that lost a race are released too.
        let executors: Vec<ExecutorId> = self
            .state
            .executors
            .iter()
            .filter(|(_, e)| e.state != ExecutorState::Lost)
            .map(|(id, _)| id.clone())
            .collect();
        for executor in executors {
            self.act(Action::Release { executor, run: run.clone() });
        }
        for pack in self.state.runs.get(run).map(|r| r.packs.clone()).unwrap_or_default() {
            self.act(Action::Discard { pack });
        }
        self.act(Action::Finished { run: run.clone(), outcome, published });
        self.forget_old_runs();
        if let Some(ended) = job {
            self.of_jobs(ended);
        }
    }

    fn forget_old_runs(&mut self) {
        let tasks_of = |run: &Run| run.stages.iter().map(|stage| stage.tasks.len()).sum::<usize>();
        let ended = self.state.runs.values().filter(|run| run.state.is_terminal());
        let (mut runs, mut tasks) = (0, 0);
        for run in ended {
            (runs, tasks) = (runs + 1, tasks + tasks_of(run));
        }
        // Mostly one, if any: that which ended first, whatever the clocks of the leaders that ended them said.
        while runs > self.settings.run_history || (runs > LATEST_RUNS && tasks > self.settings.task_history) {
            let ended = self.state.runs.iter().filter(|(_, r)| r.state.is_terminal());
            let oldest = ended.min_by_key(|(_, r)| r.finished_as).map(|(id, r)| (id.clone(), tasks_of(r)));
            let Some((run, of_it)) = oldest else { return };
            (runs, tasks) = (runs - 1, tasks - of_it);
            self.expire(&run);
            self.record(Record::RunForgotten { run });
        }
    }

    /// Ends waits whose deadline passed.
    pub(super) fn deadlines(&mut self) {
        let limit = self.settings.executor_timeout_ms;
        let silent: Vec<ExecutorId> = self
            .state
            .executors
            .iter()
            .filter(|(_, e)| matches!(e.state, ExecutorState::Suspected { since } if self.now.since(since) >= limit))
            .map(|(id, _)| id.clone())
            .collect();
        self.executors_dead(&silent);
        self.close_registration();
        self.fail_without_executors();
        self.expire_results();
        self.end_silent_sessions();
    }

    /// Fails runs that have had tasks to run, and nobody to run them, for too long.
    fn fail_without_executors(&mut self) {
        if self.state.executors.values().any(|e| e.state == ExecutorState::Alive) {
            return;
        }
        let limit = self.settings.no_executor_timeout_ms;
        if self.now.since(self.state.served_until) < limit {
            return; // Tasks that waited for a slot did not wait for an executor.
        }
        let stuck: Vec<RunId> = self
            .state
            .live
            .iter()
            .filter(|id| {
                self.state.runs.get(id).is_some_and(|run| {
                    let oldest = run.ready.iter().map(|(since, _)| *since).min();
                    oldest.is_some_and(|since| self.now.since(since) >= limit)
                })
            })
            .cloned()
            .collect();
        for run in stuck {
            let error = Error::unavailable(format!(
                "run {run} waited {} s for an executor and none was connected: start one with `tidemill executor --connect URL`, \
                 or raise the coordinator's --no-executor-timeout",
                limit / 1000
            ));
            self.finish(&run, Outcome::Failed { error });
        }
    }
}
