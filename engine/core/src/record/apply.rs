//! The one place where state changes.

use std::cmp::Reverse;

use super::state::{Executor, ExecutorState, Intent, Output, Run, RunState, RunTotals, RunningAttempt, State};
use super::task::{Rival, Task, TaskState};
use super::{Capacity, Outcome, Record, RunSpec};
use crate::graph::Determinism;
use crate::{Attempt, Epoch, ExecutorId, Millis, RunId, TaskId};

impl State {
    /// Applies one record. Records about runs or executors that are unknown, because they were forgotten, change nothing.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::EpochClaimed { epoch, build, at } => self.claim(*epoch, build, *at),
            Record::RegistrationClosed => self.awaited.clear(),
            Record::ExecutorJoined { executor, endpoint, capacity, at } => {
                self.join(executor, endpoint, *capacity, *at)
            }
            Record::ExecutorSuspected { executor, at } => {
                self.withdraw(executor, ExecutorState::Suspected { since: *at }, *at);
            }
            Record::ExecutorReturned { executor } => {
                self.awaited.remove(executor);
                self.with_executor(executor, |e| e.state = ExecutorState::Alive);
            }
            Record::ExecutorLost { executor, at } => {
                self.awaited.remove(executor);
                self.withdraw(executor, ExecutorState::Lost, *at);
            }
            Record::ExecutorForgotten { executor } => self.remove_executor(executor),
            Record::RunAccepted { run, spec, at } => self.accept(run, spec, *at),
            Record::RunPlanning { run, at } => {
                self.with_run(run, |r| {
                    r.state = RunState::Planning;
                    r.started_at = Some(*at);
                });
            }
            Record::RunPlanned { run, graph, sheet } => {
                let by = self.epoch.map(|epoch| (epoch, self.build.clone()));
                self.with_run(run, |r| {
                    r.planned(graph, sheet.as_ref());
                    r.planned_by = by;
                });
            }
            Record::RunUnread { run } => self.with_run(run, |r| r.unread = true),
            Record::RunRestarted { run } => self.restart(run),
            Record::TaskReady { .. }
            | Record::TaskWaiting { .. }
            | Record::AttemptStarted { .. }
            | Record::AttemptSucceeded { .. }
            | Record::AttemptFailed { .. }
            | Record::AttemptLost { .. }
            | Record::StageDiffers { .. }
            | Record::StageDiscarded { .. }
            | Record::OutputLost { .. } => self.apply_to_tasks(record),
            Record::PackDurable { run, pack, outputs } => self.with_run(run, |r| r.packed(pack, outputs)),
            Record::ResultRead { run, requests } => self.with_run(run, |r| r.totals.metrics.add_requests(*requests)),
            Record::RunChecked { run, checks } => self.with_run(run, |r| r.checks.clone_from(checks)),
            Record::RunCommitting { run, winners, rows } => {
                self.with_run(run, |r| r.intent = Some(Intent { winners: winners.clone(), rows: *rows }));
            }
            Record::RunFinished { run, outcome, at } => self.finish(run, outcome, *at),
            Record::ResultExpired { run } => self.with_run(run, |r| r.kept = None),
            Record::RunForgotten { run } => self.runs.remove(run),
            Record::CatalogueSet { name, entry } => self.catalogue.set(name, entry),
            Record::CatalogueDropped { name } => self.catalogue.drop(name),
            Record::SessionRowsKept { .. }
            | Record::SessionRowsDropped { .. }
            | Record::SessionHeard { .. }
            | Record::SessionEnded { .. } => self.apply_to_sessions(record),
            Record::ClockSet { ahead_ms } => self.clock_ahead_ms = *ahead_ms,
            Record::NoticeAsked { id, asked } => {
                self.noticed = self.noticed.max(*id);
                self.notices.insert(*id, asked.clone());
            }
            Record::NoticeDone { id } => _ = self.notices.remove(id),
            Record::Jobs(record) => self.jobs.apply(record),
        }
    }

    /// Records about a run's tasks.
    fn apply_to_tasks(&mut self, record: &Record) {
        match record {
            Record::TaskReady { run, task, not_before } => self.with_task(run, *task, |r, t| {
                r.ready.insert((*not_before, *task));
                t.not_before = *not_before;
                t.state = TaskState::Ready;
            }),
            Record::TaskWaiting { run, task } => self.with_task(run, *task, |r, t| {
                r.ready.remove(&(t.not_before, *task));
                t.state = TaskState::Waiting;
            }),
            Record::AttemptStarted { run, task, attempt, executor, slots, at } => {
                self.start(run, *task, *attempt, executor, *slots, *at);
            }
            Record::AttemptSucceeded { run, task, attempt, output, at } => {
                self.succeed(run, *task, *attempt, output, *at);
            }
            Record::AttemptFailed { run, task, attempt, error, at } => {
                self.end_attempt(run, *task, *attempt, *at, |_, t| {
                    t.failures += 1;
                    t.error = Some(error.clone());
                    t.state = TaskState::Failed;
                })
            }
            Record::AttemptLost { run, task, attempt, cause, at } => {
                // Where the leader died as well, the task is not to blame.
                let is_its_own = self.epoch == Some(attempt.epoch);
                self.end_attempt(run, *task, *attempt, *at, |_, t| {
                    t.executor_losses += u32::from(*cause == super::Loss::Executor && is_its_own);
                    t.input_losses += u32::from(*cause == super::Loss::Input);
                    t.state = TaskState::Lost;
                })
            }
            Record::StageDiffers { run, stage } => {
                let epoch = self.epoch;
                self.with_run(run, |r| r.differs(*stage, epoch));
            }
            Record::StageDiscarded { run, stage } => self.with_run(run, |r| {
                for task in r.stages.get_mut(stage.index()).into_iter().flat_map(|s| &mut s.tasks) {
                    task.checksum = None;
                }
            }),
            Record::OutputLost { run, task } => self.lose_output(run, *task),
            _ => {}
        }
    }

    fn with_run(&mut self, run: &RunId, change: impl FnOnce(&mut Run)) {
        if let Some(run) = self.runs.get_mut(run) {
            change(run);
        }
    }

    fn with_task(&mut self, run: &RunId, task: TaskId, change: impl FnOnce(&mut Run, &mut Task)) {
        let Some(run) = self.runs.get_mut(run) else { return };
        let slot = run.stages.get_mut(task.stage.index()).and_then(|s| s.tasks.get_mut(task.index as usize));
        let Some(slot) = slot else { return };
        let mut changed = slot.clone();
        change(run, &mut changed);
        if let Some(slot) = run.stages.get_mut(task.stage.index()).and_then(|s| s.tasks.get_mut(task.index as usize)) {
            *slot = changed;
        }
    }

    /// Changes an executor and its place among the idle ones.
    fn with_executor(&mut self, id: &ExecutorId, change: impl FnOnce(&mut Executor)) {
        let Some(executor) = self.executors.get_mut(id) else { return };
        let before = executor.free_slots();
        change(executor);
        let (alive, after) = (executor.state == ExecutorState::Alive, executor.free_slots());
        self.idle.remove(&(before, Reverse(id.clone())));
        if alive && after > 0 {
            self.idle.insert((after, Reverse(id.clone())));
        }
    }

    fn claim(&mut self, epoch: Epoch, build: &str, at: Millis) {
        self.epoch = Some(epoch);
        build.clone_into(&mut self.build);
        self.attempts = 0;
        self.claimed_at = at;
        // Its own clock begins with that on its wall.
        self.clock_ahead_ms = 0;
        // Nobody could be heard while nobody led.
        self.served_until = at;
        let known: Vec<ExecutorId> =
            self.executors.iter().filter(|(_, e)| e.state != ExecutorState::Lost).map(|(id, _)| id.clone()).collect();
        for executor in &known {
            self.withdraw(executor, ExecutorState::Suspected { since: at }, at);
        }
        self.awaited = known.into_iter().collect();
        for run in &self.live {
            if let Some(run) = self.runs.get_mut(run) {
                run.totals.recoveries += 1;
                run.wait_until_at_most(at);
                // Its rows are made again.
                run.unread = false;
            }
        }
        // Nobody could be heard while nobody led.
        for session in self.sessions.values_mut() {
            session.heard_at = at;
        }
    }

    fn remove_executor(&mut self, executor: &ExecutorId) {
        self.with_executor(executor, |e| e.state = ExecutorState::Lost);
        self.executors.remove(executor);
    }

    /// From now on the executor is given no work.
    fn withdraw(&mut self, executor: &ExecutorId, state: ExecutorState, at: Millis) {
        if self.executors.get(executor).is_some_and(|e| e.state == ExecutorState::Alive) {
            self.served_until = at;
        }
        self.with_executor(executor, |e| e.state = state);
    }

    fn join(&mut self, executor: &ExecutorId, endpoint: &str, capacity: Capacity, at: Millis) {
        let joined = Executor {
            endpoint: endpoint.to_owned(),
            slots: capacity.slots,
            memory: capacity.memory,
            state: ExecutorState::Alive,
            running: Default::default(),
            held_slots: 0,
            joined_at: at,
        };
        self.remove_executor(executor);
        self.executors.insert(executor.clone(), joined);
        self.with_executor(executor, |_| {});
    }

    fn accept(&mut self, run: &RunId, spec: &RunSpec, at: Millis) {
        let accepted = Run {
            spec: spec.clone(),
            state: RunState::Queued,
            error: None,
            submitted_at: at,
            started_at: None,
            finished_at: None,
            finished_as: 0,
            rows: None,
            kept: None,
            version: None,
            checks: Vec::new(),
            unread: false,
            graph: None,
            sheet: None,
            planned_by: None,
            restarts: 0,
            packs: Vec::new(),
            intent: None,
            stages: Vec::new(),
            changed: Default::default(),
            ready: Default::default(),
            held_slots: 0,
            totals: RunTotals::default(),
        };
        self.runs.insert(run.clone(), accepted);
        self.live.insert(run.clone());
    }

    /// Forgets a run's plan, and all that was done by it.
    fn restart(&mut self, run: &RunId) {
        for (executor, attempt) in self.runs.get(run).map(Run::running).unwrap_or_default() {
            self.free_slots(&executor, attempt);
        }
        self.with_run(run, |r| {
            r.state = RunState::Planning;
            (r.graph, r.sheet, r.planned_by) = (None, None, None);
            (r.packs, r.stages, r.checks) = (Vec::new(), Vec::new(), Vec::new());
            r.changed.clear();
            r.ready.clear();
            r.held_slots = 0;
            r.unread = false;
            r.restarts += 1;
        });
    }

    fn start(&mut self, run: &RunId, task: TaskId, attempt: Attempt, executor: &ExecutorId, slots: u32, at: Millis) {
        self.attempts = self.attempts.max(attempt.counter);
        let adopted = self.epoch.is_some_and(|epoch| attempt.epoch < epoch);
        self.with_executor(executor, |e| {
            e.running.insert(attempt, RunningAttempt { run: run.clone(), task, slots });
            e.held_slots += slots;
        });
        self.with_task(run, task, |r, t| {
            r.held_slots += slots;
            t.newest = t.newest.max(Some(attempt));
            if t.state == TaskState::Running {
                t.rival = Some(Rival { attempt, executor: executor.clone(), started_at: at });
                return;
            }
            r.ready.remove(&(t.not_before, task));
            t.state = TaskState::Running;
            t.attempt = Some(attempt);
            t.executor = Some(executor.clone());
            t.started_at = Some(at);
            t.finished_at = None;
            t.error = None;
            t.adopted = adopted;
        });
    }

    fn succeed(&mut self, run: &RunId, task: TaskId, attempt: Attempt, output: &Output, at: Millis) {
        self.end_attempt(run, task, attempt, at, |r, t| {
            r.totals.metrics.add(&output.metrics);
            t.state = TaskState::Succeeded;
            t.checksum = t.checksum.or(output.footer.checksum);
            t.output = Some(output.clone());
        });
        let loser = self.task(run, task).and_then(|t| t.rival.clone());
        let freed = loser.as_ref().map_or(0, |loser| self.free_slots(&loser.executor, loser.attempt));
        self.with_task(run, task, |r, t| {
            r.held_slots = r.held_slots.saturating_sub(freed);
            r.totals.task_millis += t.rival.take().map_or(0, |loser| at.since(loser.started_at));
        });
        self.with_run(run, |r| r.count_complete(task, 1));
    }

    fn lose_output(&mut self, run: &RunId, task: TaskId) {
        self.with_task(run, task, |r, t| {
            t.output = None;
            t.state = TaskState::Lost;
            t.repeats += 1;
            r.totals.repeated_millis += t.finished_at.unwrap_or_default().since(t.started_at.unwrap_or_default());
        });
        let epoch = self.epoch;
        self.with_run(run, |r| {
            r.count_complete(task, -1);
            let stage = r.graph.as_ref().and_then(|g| g.stages.get(task.stage.index()));
            if stage.is_some_and(|s| s.determinism == Determinism::RowIndeterminate) {
                r.changed.extend(epoch.map(|epoch| (task.stage, epoch)));
            }
        });
    }

    /// Ends the running attempt of a task: frees its slots, counts its time, then changes the task.
    fn end_attempt(
        &mut self,
        run: &RunId,
        task: TaskId,
        attempt: Attempt,
        at: Millis,
        change: impl FnOnce(&mut Run, &mut Task),
    ) {
        let known = self.task(run, task);
        let rival = known.and_then(|t| t.rival.clone()).filter(|rival| rival.attempt == attempt);
        let holder = rival.as_ref().map(|rival| rival.executor.clone()).or_else(|| known?.executor.clone());
        let freed = holder.map_or(0, |executor| self.free_slots(&executor, attempt));
        self.with_task(run, task, |r, t| {
            r.held_slots = r.held_slots.saturating_sub(freed);
            rival.into_iter().for_each(|rival| t.swap(rival));
            t.finished_at = Some(at);
            r.totals.task_millis += at.since(t.started_at.unwrap_or(at));
            change(r, t);
            // The other one goes on.
            if t.state != TaskState::Succeeded
                && let Some(other) = t.rival.take()
            {
                t.swap(other);
                (t.rival, t.finished_at, t.error) = (None, None, None);
                t.state = TaskState::Running;
            }
        });
    }

    /// Takes an attempt's slots from it and says how many they were.
    fn free_slots(&mut self, executor: &ExecutorId, attempt: Attempt) -> u32 {
        let mut freed = 0;
        self.with_executor(executor, |e| {
            freed = e.running.remove(&attempt).map_or(0, |a| a.slots);
            e.held_slots = e.held_slots.saturating_sub(freed);
        });
        freed
    }

    fn finish(&mut self, run: &RunId, outcome: &Outcome, at: Millis) {
        self.live.remove(run);
        self.finished += 1;
        let finished_as = self.finished;
        for (executor, attempt) in self.runs.get(run).map(Run::running).unwrap_or_default() {
            self.free_slots(&executor, attempt);
        }
        let stopped = self.why_stopped(run);
        self.with_run(run, |r| {
            r.held_slots = 0;
            (r.finished_at, r.finished_as) = (Some(at), finished_as);
            r.leave_history();
            match outcome {
                Outcome::Succeeded { rows, kept, version } => {
                    r.state = RunState::Succeeded;
                    r.version = *version;
                    r.rows = Some(*rows);
                    r.kept = kept.clone();
                }
                Outcome::Failed { error } => {
                    r.state = RunState::Failed;
                    r.error = Some(error.clone());
                }
                Outcome::Cancelled => (r.state, r.error) = (RunState::Cancelled, stopped),
            }
            for task in r.stages.iter_mut().flat_map(|s| &mut s.tasks) {
                if task.state == TaskState::Running {
                    let since = task.started_at.into_iter().chain(task.rival.take().map(|rival| rival.started_at));
                    r.totals.task_millis += since.map(|since| at.since(since)).sum::<u64>();
                    task.finished_at = Some(at);
                }
                if matches!(task.state, TaskState::Waiting | TaskState::Ready | TaskState::Running) {
                    task.state = TaskState::Cancelled;
                }
            }
        });
    }
}
