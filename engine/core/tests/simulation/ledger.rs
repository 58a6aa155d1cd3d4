//! Watches every record: replays it into a second state, and asks whether it was allowed and why it was written.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_core::record::{ExecutorState, Loss, Outcome, Record, RunState, State};
use tidemill_core::schedule::{Action, Event, Step};
use tidemill_core::{Attempt, Error, ErrorKind, ExecutorId, RunId, Settings, TaskId};

use crate::happening::Plan;
use crate::invariants::{self, ensure, is_needed};
use crate::weather::{Counts, Weather};
use crate::world::Check;

/// What happened so far.
pub(crate) struct Ledger {
    settings: Settings,
    /// The records applied once more.
    pub(crate) replayed: State,
    outcomes: BTreeMap<RunId, RunState>,
    /// How runs ended for their clients, whoever told them; and which ends this leader has decided on.
    announced: BTreeMap<RunId, RunState>,
    told: BTreeSet<RunId>,
    pub(crate) attempts: BTreeSet<Attempt>,
    tasks: BTreeMap<(RunId, TaskId), History>,
    /// When an executor was last there.
    served_at: u64,
    pub(crate) counts: Counts,
}

/// What happened to one task.
#[derive(Debug, Default)]
struct History {
    attempts: u32,
    failures: u32,
    executor_losses: u32,
    /// An attempt is under way or left an output.
    settled: bool,
}

impl Ledger {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            replayed: State::default(),
            outcomes: BTreeMap::new(),
            announced: BTreeMap::new(),
            told: BTreeSet::new(),
            attempts: BTreeSet::new(),
            tasks: BTreeMap::new(),
            served_at: 0,
            counts: Counts::default(),
        }
    }

    /// Whether the run ended so long ago that the state does not know it any more.
    pub(crate) fn has_forgotten(&self, run: &RunId, state: &State) -> bool {
        self.outcomes.contains_key(run) && !state.runs.contains_key(run)
    }

    /// Checks what the scheduler made of `event`.
    pub(crate) fn observe(&mut self, event: &Event, step: &Step, state: &State, now: u64) -> Check {
        self.counts.steps += 1;
        self.note_executors(now);
        for record in &step.records {
            self.check_record(event, record, now).map_err(|why| format!("{why} ({record:?} after {event:?})"))?;
            self.remember(record);
        }
        self.note_executors(now);
        ensure!(self.replayed == *state, "a replay of the records differs from the state after {event:?}");
        self.check_actions(step, state)?;
        invariants::check(state)
    }

    /// Knows what these records say, and nothing else: the rest was lost with a leader.
    pub(crate) fn rewind(&mut self, records: &[Record]) {
        self.replayed = State::default();
        self.outcomes.clear();
        self.told.clear();
        self.tasks.clear();
        for record in records {
            self.remember(record);
        }
    }

    fn remember(&mut self, record: &Record) {
        match record {
            Record::AttemptStarted { run, task, .. } => {
                let alone = self.runs_of(run, *task) == 0;
                let history = self.history(run, *task);
                history.settled = true;
                history.attempts += u32::from(alone);
            }
            Record::AttemptFailed { run, task, .. } => {
                let goes_on = self.runs_of(run, *task) > 1;
                let history = self.history(run, *task);
                history.failures += 1;
                history.settled = goes_on;
            }
            Record::AttemptLost { run, task, attempt, cause, .. } => {
                let under_this_leader = self.replayed.epoch == Some(attempt.epoch);
                let goes_on = self.runs_of(run, *task) > 1;
                let history = self.history(run, *task);
                history.settled = goes_on;
                history.executor_losses += u32::from(*cause == Loss::Executor && under_this_leader);
            }
            Record::OutputLost { run, task } => self.history(run, *task).settled = false,
            Record::RunRestarted { run } => {
                self.counts.restarts += 1;
                self.tasks.retain(|(of, _), _| of != run);
            }
            _ => {}
        }
        self.replayed.apply(record);
        if let Record::RunFinished { run, .. } = record {
            let ended = self.replayed.runs.get(run).map(|r| r.state);
            self.outcomes.extend(ended.map(|state| (run.clone(), state)));
        }
    }

    /// Whether the run has ended.
    pub(crate) fn has_ended(&self, run: &RunId) -> bool {
        self.outcomes.contains_key(run)
    }

    /// Its client hears how a run ended. That of a `binding` one, with effects, never changes again.
    pub(crate) fn announce(&mut self, run: &RunId, binding: bool) -> Check {
        let Some(outcome) = self.outcomes.get(run).copied() else { return Err(format!("run {run} has not ended")) };
        let before = self.announced.insert(run.clone(), outcome);
        let changed = binding && before.is_some_and(|before| before != outcome);
        ensure!(!changed, "run {run} had ended as {before:?} for its client, and now as {outcome:?}");
        Ok(())
    }

    /// Whether its client has not heard how a run ended.
    pub(crate) fn is_unheard(&self, run: &RunId) -> bool {
        self.outcomes.contains_key(run) && !self.announced.contains_key(run)
    }

    /// Whether the run has ended well.
    pub(crate) fn has_succeeded(&self, run: &RunId) -> bool {
        self.outcomes.get(run) == Some(&RunState::Succeeded)
    }

    fn note_executors(&mut self, now: u64) {
        if self.replayed.executors.values().any(|e| e.state == ExecutorState::Alive) {
            self.served_at = now;
        }
    }

    fn check_record(&mut self, event: &Event, record: &Record, now: u64) -> Check {
        match record {
            Record::AttemptStarted { run, task, attempt, executor, slots, .. } => {
                self.check_start(event, run, *task, *attempt, executor, *slots)
            }
            Record::AttemptFailed { .. } => {
                self.counts.failed_attempts += 1;
                Ok(())
            }
            Record::AttemptSucceeded { run, task, attempt, .. } => {
                let known = self.replayed.task(run, *task);
                let overtakes = known.is_some_and(|t| t.attempt != Some(*attempt));
                self.counts.overtaken += u64::from(overtakes);
                ensure!(known.is_some_and(|t| t.runner(*attempt).is_some()), "no such attempt was running");
                Ok(())
            }
            Record::AttemptLost { run, task, attempt, cause, .. } => {
                self.check_lost_attempt(event, run, *task, *attempt, *cause)
            }
            Record::OutputLost { run, task } => self.check_lost_output(event, run, *task),
            Record::RunFinished { run, outcome, .. } => self.check_outcome(event, run, outcome, now),
            _ => Ok(()),
        }
    }

    fn history(&mut self, run: &RunId, task: TaskId) -> &mut History {
        self.tasks.entry((run.clone(), task)).or_default()
    }

    /// An attempt starts once, on an executor with room, when its inputs are there and somebody needs its output.
    fn check_start(
        &mut self,
        event: &Event,
        run: &RunId,
        task: TaskId,
        attempt: Attempt,
        executor: &ExecutorId,
        slots: u32,
    ) -> Check {
        if *event == Event::Tick && self.runs_of(run, task) > 0 {
            return self.check_race(run, task, attempt, executor, slots);
        }
        ensure!(!self.history(run, task).settled, "work is repeated that was neither lost nor failed");
        if Some(attempt.epoch) < self.replayed.epoch {
            return self.check_adopted(event, run, task, attempt, executor);
        }
        self.counts.attempts += 1;
        ensure!(self.attempts.insert(attempt), "the attempt is not unique");
        ensure!(Some(attempt.epoch) == self.replayed.epoch, "the epoch is not current");
        ensure!(self.replayed.awaited.is_empty(), "executors of earlier epochs have not answered");
        let known = &self.replayed.runs[run];
        ensure!(known.state == RunState::Running, "the run is {}", known.state.name());
        ensure!(self.replayed.task(run, task).is_some_and(|t| t.output.is_none()), "its output is there");
        ensure!(is_needed(known, task.stage), "nobody needs it");
        self.check_inputs(run, task)?;
        let room = self.replayed.executors.get(executor).filter(|e| e.state == ExecutorState::Alive);
        let (all, held) = room.map_or((0, 0), |e| (e.slots, e.running.values().map(|a| a.slots).sum::<u32>()));
        // A run that holds nothing shares slots, but only when none is free, and not without limit.
        let run_holds = known.held_slots;
        let shares = self.replayed.idle.is_empty() && (run_holds == 0 || held < all * 2);
        ensure!(slots > 0 && (held + slots <= all || shares), "{executor}: {held} of {all} held, the run {run_holds}");
        Ok(())
    }

    /// An attempt of an earlier leader is taken over from the executor that says it has it.
    fn check_adopted(
        &mut self,
        event: &Event,
        run: &RunId,
        task: TaskId,
        attempt: Attempt,
        executor: &ExecutorId,
    ) -> Check {
        self.counts.adopted += 1;
        ensure!(self.attempts.contains(&attempt), "nobody launched the attempt");
        let known = &self.replayed.runs[run];
        ensure!(known.state == RunState::Running, "the run is {}", known.state.name());
        ensure!(is_needed(known, task.stage), "nobody needs it");
        let Event::ExecutorConnected { executor: from, running, holding, .. } = event else {
            return Err("no executor reported it".to_owned());
        };
        let reported = running.iter().chain(holding).any(|r| r.attempt == attempt && r.task == task && r.run == *run);
        ensure!(reported && from == executor, "its executor did not report it");
        Ok(())
    }

    fn check_outcome(&mut self, event: &Event, run: &RunId, outcome: &Outcome, now: u64) -> Check {
        let (explained, count) = match outcome {
            Outcome::Succeeded { .. } => {
                let delivered = matches!(
                    event,
                    Event::ResultDelivered { .. }
                        | Event::Answered { .. }
                        | Event::CatalogueChanged { .. }
                        | Event::Commanded { .. }
                );
                (delivered, &mut self.counts.succeeded)
            }
            Outcome::Cancelled => (matches!(event, Event::Cancelled { .. }), &mut self.counts.cancelled),
            Outcome::Failed { error } => {
                let count = match (event, error.kind) {
                    (_, ErrorKind::ResourcesExhausted) => &mut self.counts.poisoned,
                    (Event::Tick, ErrorKind::Unavailable) => &mut self.counts.unserved,
                    _ => &mut self.counts.failed,
                };
                *count += 1;
                ensure!(self.explains_failure(event, run, error, now), "nothing explains the failure");
                ensure!(!self.has_ended(run), "it had ended");
                return Ok(());
            }
        };
        *count += 1;
        ensure!(explained, "nothing explains the outcome");
        ensure!(!self.has_ended(run), "the run had ended");
        Ok(())
    }

    fn explains_failure(&self, event: &Event, run: &RunId, error: &Error, now: u64) -> bool {
        let most = |count: fn(&History) -> u32| {
            self.tasks.iter().filter(|((of, _), _)| of == run).map(|(_, history)| count(history)).max().unwrap_or(0)
        };
        match event {
            Event::Planned { graph: Err(planned), .. } => planned == error,
            Event::ResultFailed { error: reported, .. } => reported == error,
            Event::TaskFailed { error: reported, .. } => {
                let retried = matches!(error.kind, ErrorKind::Unavailable | ErrorKind::LostInput);
                reported == error && (!retried || most(|h| h.failures) >= self.settings.task_attempts)
            }
            Event::ExecutorDead { .. } => most(|h| h.executor_losses) >= self.settings.task_executor_losses,
            Event::Tick if error.kind == ErrorKind::ResourcesExhausted => {
                most(|h| h.executor_losses) >= self.settings.task_executor_losses
            }
            Event::Tick => now - self.served_at >= self.settings.no_executor_timeout_ms,
            _ => false,
        }
    }

    /// Launches are those recorded, runs are announced once and when they ended, only complete results are delivered.
    fn check_actions(&mut self, step: &Step, state: &State) -> Check {
        let started = step.records.iter().filter_map(|record| match record {
            // Those of earlier epochs run already.
            Record::AttemptStarted { attempt, .. } => Some(*attempt).filter(|a| Some(a.epoch) == state.epoch),
            _ => None,
        });
        let launched = step.actions.iter().filter_map(|action| match action {
            Action::Launch(launch) => Some(launch.attempt),
            _ => None,
        });
        ensure!(started.eq(launched), "launches differ from the recorded attempts");
        for action in &step.actions {
            match action {
                Action::Finished { run, .. } => {
                    ensure!(self.outcomes.contains_key(run), "run {run} is announced but did not end");
                    ensure!(self.told.insert(run.clone()), "run {run} is announced twice");
                }
                Action::Deliver { run } => {
                    let root = state.runs.get(run).and_then(|r| r.stages.last());
                    ensure!(root.is_some_and(|s| s.is_complete()), "the result of run {run} is not complete");
                }
                Action::Plan { .. }
                | Action::Commit { .. }
                | Action::Discard { .. }
                | Action::Forget { .. }
                | Action::Launch(_)
                | Action::Stop { .. }
                | Action::Release { .. }
                | Action::Probe { .. }
                | Action::Notify { .. } => {}
            }
        }
        let returned = |record: &&Record| matches!(record, Record::ExecutorReturned { .. });
        self.counts.returns += step.records.iter().filter(returned).count() as u64;
        for (id, run) in &state.runs {
            let expected = self.outcomes.get(id).copied();
            ensure!(
                expected == run.state.is_terminal().then_some(run.state),
                "run {id} is {} after it ended as {expected:?}",
                run.state.name()
            );
        }
        Ok(())
    }

    /// Every run ended and was announced; where nothing went wrong, every task ran once.
    pub(crate) fn check_end(&mut self, state: &State, plans: &BTreeMap<RunId, Plan>, weather: &Weather) -> Check {
        for (run, plan) in plans {
            let Some(outcome) = self.outcomes.get(run) else { return Err(format!("run {run} never ended")) };
            // A client that lost the answer asks again within the history.
            let heard = self.announced.contains_key(run) || self.has_forgotten(run, state);
            ensure!(heard, "the end of run {run} was not announced");
            let Some(graph) = plan.graph() else { continue };
            if !weather.is_calm() {
                continue;
            }
            ensure!(*outcome != RunState::Failed, "run {run} failed in calm weather");
            for stage in graph.stages.iter().filter(|_| *outcome == RunState::Succeeded) {
                let read = stage.id == graph.root() || graph.consumers(stage.id).next().is_some();
                for task in crate::content::tasks_of(graph, stage.id) {
                    let attempts = self.tasks.get(&(run.clone(), task)).map_or(0, |h| h.attempts);
                    let expected = u32::from(invariants::leads_to_root(graph, stage.id) && read);
                    ensure!(attempts == expected, "task {task} of run {run} had {attempts} attempts in calm weather");
                }
            }
        }
        self.counts.calm_seeds += u64::from(weather.is_calm());
        let written = serde_json::to_string(state).map_err(|e| e.to_string())?;
        let read: State = serde_json::from_str(&written).map_err(|e| e.to_string())?;
        ensure!(read == *state, "a snapshot reads back as another state");
        let busy = state.executors.iter().find(|(_, e)| !e.running.is_empty());
        busy.map_or(Ok(()), |(id, _)| Err(format!("{id} holds slots after all runs ended")))
    }
}
