//! The shell's reader of results: gathers the root's outputs, and begins again when one of them changed meanwhile.

use std::collections::BTreeMap;

use tidemill_core::record::{Kept, Pack};
use tidemill_core::schedule::{Event, Lost};
use tidemill_core::{Attempt, Error, RunId, TaskId};

use crate::content::tasks_of;
use crate::executor::{Reading, lost_output};
use crate::happening::{Happening, Place};
use crate::points::Side;
use crate::world::{Check, World};

/// A result on its way to the client.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    /// What was read so far.
    read: BTreeMap<TaskId, Attempt>,
    progress: Progress,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Progress {
    /// It waits to be told that the root is complete.
    #[default]
    Waiting,
    Reading,
    Delivered,
}

impl World {
    /// The scheduler says this whenever the root is complete, so it may be known already.
    pub(crate) fn deliver(&mut self, run: RunId) {
        let delivery = self.deliveries.entry(run.clone()).or_default();
        if delivery.progress == Progress::Waiting {
            delivery.progress = Progress::Reading;
            let delay = self.delay();
            self.after(delay, Happening::ReadResult(run));
        }
    }

    /// Reads one more output of the root, or hands all of them to the client.
    pub(crate) fn read_result(&mut self, run: &RunId) -> Check {
        let Some(known) = self.state.runs.get(run).filter(|r| !r.state.is_terminal()) else { return Ok(()) };
        let graph = known.graph.clone().unwrap();
        if self.client_waits(run) {
            self.ledger.counts.unread += 1;
            self.after(1_000, Happening::ReadResult(run.clone()));
            return Ok(());
        }
        let delivery = self.deliveries.get_mut(run).unwrap();
        let mut current = BTreeMap::new();
        for task in tasks_of(&graph, graph.root()) {
            let Some(output) = self.state.task(run, task).and_then(|t| t.output.clone()) else {
                delivery.progress = Progress::Waiting;
                return Ok(());
            };
            current.insert(task, output);
        }
        delivery.read.retain(|task, attempt| current[task].attempt == *attempt);
        let Some((task, output)) = current.iter().find(|(task, _)| !delivery.read.contains_key(task)) else {
            delivery.progress = Progress::Delivered;
            self.contents.check_result(run, &graph, &delivery.read)?;
            self.hand_over(run);
            return Ok(());
        };
        let durable = output.durable.is_some();
        let place = Place { named: (*task, output.attempt), holder: output.executor.clone(), durable };
        match self.read(&place) {
            Reading::Done => {
                let delivery = self.deliveries.get_mut(run).unwrap();
                delivery.read.insert(*task, output.attempt);
            }
            Reading::Silence if self.rng.chance(700) => {}
            Reading::Silence | Reading::Gone => {
                self.deliveries.get_mut(run).unwrap().progress = Progress::Waiting;
                self.ledger.counts.lost_results += 1;
                let lost = Lost { outputs: vec![lost_output((*task, output.attempt))], looked_in_packs: durable };
                self.tell_coordinator(None, &Event::ResultLost { run: run.clone(), lost });
                return Ok(());
            }
        }
        let delay = self.delay();
        self.after(delay, Happening::ReadResult(run.clone()));
        Ok(())
    }

    /// Whether a run's client reads nothing yet, for as long as others need their turn.
    fn client_waits(&self, run: &RunId) -> bool {
        let is_anothers = |other: &RunId| !self.reluctant.contains(other) && !self.runs_of_jobs.contains(other);
        let is_open = |other: &RunId| is_anothers(other) && !self.ledger.has_ended(other);
        self.reluctant.contains(run) && self.plans.keys().any(is_open)
    }

    /// Puts the result where it can be fetched again, unless the leader dies at that.
    fn keep_result(&mut self, run: &RunId) -> Option<Kept> {
        if self.leader_dies_at("result.keep", Side::Before) || self.leader_dies_at("result.keep", Side::After) {
            return None;
        }
        Some(Kept::Object(Pack { name: format!("result of {run}"), crc: 1, bytes: 8, puts: 1 }))
    }

    fn hand_over(&mut self, run: &RunId) {
        if self.plans[run].has_effects() {
            let winners = self.deliveries[run].read.values().copied().collect();
            return self.tell_coordinator(None, &Event::CommitReady { run: run.clone(), winners, rows: 1 });
        }
        let event = if self.rng.chance(self.weather.failing_runs) {
            Event::ResultFailed {
                run: run.clone(),
                error: Error::denied(format!("no client takes the result of {run}")),
            }
        } else {
            self.ledger.counts.delivered += 1;
            let Some(kept) = self.keep_result(run) else { return };
            Event::ResultDelivered { run: run.clone(), rows: 1, kept: Some(kept), version: None }
        };
        self.tell_coordinator(None, &event);
    }
}
