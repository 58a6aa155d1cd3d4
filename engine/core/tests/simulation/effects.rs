//! The coordinator's shell: carries out what was decided, and never ahead of the records it must follow.

use tidemill_core::graph::Determinism;
use tidemill_core::record::{CatalogueEntry, CatalogueKind, Outcome, Record, Sheet};
use tidemill_core::schedule::{Action, Event, Launch};
use tidemill_core::{BlobHash, RunId, TaskId};

use crate::content::inputs_of;
use crate::happening::{Happening, Message, Place, Plan};
use crate::invariants::ensure;
use crate::log::Effect;
use crate::points::Side;
use crate::world::{Check, World};

impl World {
    /// Puts a launch into words as it is decided: later an input may be lost, and the task must say so itself.
    pub(crate) fn prepare(&self, action: Action) -> Effect {
        match action {
            Action::Launch(launch) => {
                let inputs = self.named_inputs(&launch.run, launch.task);
                Effect::Launch(launch, inputs)
            }
            other => Effect::Other(other),
        }
    }

    pub(crate) fn carry_out(&mut self, effect: Effect) -> Check {
        self.trace(|| format!("      {effect:?}"));
        if self.log.is_down {
            return Ok(()); // It died at something that it did before.
        }
        let action = match effect {
            Effect::Launch(launch, inputs) => {
                self.check_launch(&launch, &inputs)?;
                self.tell_executor(&launch.executor.clone(), &Message::Launch { launch, inputs });
                return Ok(());
            }
            Effect::Other(action) => action,
        };
        match action {
            Action::Plan { run } => {
                let event = match self.plans[&run].clone() {
                    Plan::Stages(graph) => Event::Planned { run, graph, sheet: None },
                    Plan::Sink(graph) => {
                        let blob = || BlobHash(String::new());
                        let sheet = Sheet { blob: blob(), session: blob(), effects: true, inputs: Vec::new() };
                        Event::Planned { run, graph: Ok(graph), sheet: Some(sheet) }
                    }
                    Plan::Change => self.change(run),
                    Plan::Command => Self::command(run),
                    Plan::Answer => {
                        Event::Answered { run, outcome: Outcome::Succeeded { rows: 1, kept: None, version: None } }
                    }
                };
                self.tell_coordinator(None, &event);
            }
            Action::Launch(_) => unreachable!("launches are prepared"),
            Action::Stop { executor, attempt } => self.tell_executor(&executor, &Message::Stop(attempt)),
            Action::Release { executor, run } => self.tell_executor(&executor, &Message::Release(run)),
            Action::Probe { executor } => {
                // A refused connection is certain; sometimes the host is gone too and nobody refuses.
                if !self.executors[&executor].is_up() && self.rng.chance(800) {
                    self.tell_coordinator(None, &Event::ExecutorDead { executor });
                }
            }
            Action::Discard { pack } => {
                if !self.leader_dies_at("pack.delete", Side::Before) {
                    self.packs.retain(|_, name| *name != pack.name);
                    self.leader_dies_at("pack.delete", Side::After);
                }
            }
            Action::Deliver { run } => self.deliver(run),
            Action::Commit { run } => {
                let delay = self.delay();
                self.after(delay, Happening::Publish(run));
            }
            Action::Finished { run, .. } => {
                if !self.leader_dies_at("answer.end", Side::Before) {
                    self.announce(&run)?;
                    self.leader_dies_at("answer.end", Side::After);
                }
            }
            Action::Forget { .. } | Action::Notify { .. } => {}
        }
        Ok(())
    }

    /// A launch goes ahead of nothing that must be durable first.
    fn check_launch(&self, launch: &Launch, inputs: &[Place]) -> Check {
        let Launch { run, attempt, .. } = launch;
        let durable = &self.log.store;
        ensure!(
            !self.plans[run].has_effects() || durable.planned.contains(run),
            "{attempt} of {run} goes ahead of its plan"
        );
        let Some(graph) = self.plans[run].graph() else { return Err(format!("run {run} has no stages")) };
        for place in inputs {
            let (task, of) = place.named;
            let by_chance = graph.stages[task.stage.index()].determinism == Determinism::RowIndeterminate;
            let is_first = !by_chance || durable.succeeded.contains(&of);
            ensure!(is_first, "{attempt} of {run} reads rows of {of} that may be forgotten");
        }
        Ok(())
    }

    /// A client hears how its run ended.
    pub(crate) fn announce(&mut self, run: &RunId) -> Check {
        let binding = self.plans[run].may_change();
        ensure!(!binding || self.log.store.ended.contains(run), "the end of run {run} goes ahead of the log");
        self.follow_up(run);
        self.ledger.announce(run, binding)
    }

    fn change(&mut self, run: RunId) -> Event {
        self.ledger.counts.changes += 1;
        let entry = CatalogueEntry { kind: CatalogueKind::View, definition: format!("select {run}") };
        let record = Record::CatalogueSet { name: run.0.clone(), entry };
        Event::CatalogueChanged { run, record: Some(Box::new(record)), rows: 0, kept: None, version: None }
    }

    /// The outputs that the state names now.
    fn named_inputs(&self, run: &RunId, task: TaskId) -> Vec<Place> {
        let graph = self.state.runs[run].graph.as_ref().unwrap();
        let output = |input| self.state.task(run, input).and_then(|t| t.output.as_ref()).unwrap();
        let named = |input| {
            let output = output(input);
            Place { named: (input, output.attempt), holder: output.executor.clone(), durable: output.durable.is_some() }
        };
        inputs_of(graph, task.stage).into_iter().map(named).collect()
    }
}
