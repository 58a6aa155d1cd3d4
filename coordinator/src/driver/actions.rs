//! The one place where actions are carried out.

use tidemill_core::record::{Outcome, Pack};
use tidemill_core::schedule::{Action, Launch};
use tidemill_core::{Error, ExecutorId, RunId};
use tidemill_engine::crash;
use tidemill_engine::wire::{self, to_executor::Message};

use super::Driver;
use crate::delivery::count;
use crate::runs::{RunMessage, tell};

/// Something decided that waits for its turn. A launch is put into words at once: when it is sent an input may be lost, and
/// its task must say so itself.
#[derive(Debug)]
pub(super) enum Effect {
    Launch { executor: ExecutorId, message: Box<wire::Launch> },
    Act(Action),
}

impl Driver {
    /// What an action means now. Nothing, if it launches what cannot be named: then its executor does not name it either, and it
    /// is given out again.
    pub(super) fn prepare(&mut self, action: Action) -> Option<Effect> {
        let launch = match action {
            Action::Launch(launch) => launch,
            action => return Some(Effect::Act(action)),
        };
        let message = self.launch(&launch).map(Box::new);
        if message.is_none() {
            tracing::error!(run = %launch.run, task = %launch.task, "a task was to be launched whose inputs are not there");
        }
        Some(Effect::Launch { executor: launch.executor, message: message? })
    }

    pub(super) fn carry_out(&mut self, effect: Effect) {
        let action = match effect {
            Effect::Launch { executor, message } => {
                return self.executors.send(&executor, self.epoch(), Message::Launch(*message));
            }
            Effect::Act(action) => action,
        };
        match action {
            Action::Plan { run } => self.plan(run),
            // It was put into words.
            Action::Launch(_) => {}
            // It waited for the log, and its client has submitted the run again: it is released when it ends.
            Action::Release { run, .. } if self.state.live.contains(&run) => {}
            Action::Stop { executor, attempt } => {
                self.executors.send(&executor, self.epoch(), Message::Stop(attempt.into()));
            }
            Action::Release { executor, run } => {
                self.executors.send(&executor, self.epoch(), Message::ReleaseRun(run.0));
            }
            Action::Probe { executor } => {
                let endpoint = self.state.executors.get(&executor).map(|e| e.endpoint.clone());
                self.executors.probe(executor, endpoint);
            }
            Action::Deliver { run } => self.deliver(&run),
            Action::Discard { pack } => self.discard(pack),
            Action::Forget { blob } => self.blobs.release(&blob),
            Action::Commit { run } => self.commit(&run),
            Action::Notify { id, asked } => self.webhooks.notify(id, asked, self.inbox.clone()),
            Action::Finished { run, outcome, published } => self.finished(&run, outcome, published),
        }
    }

    fn launch(&mut self, launch: &Launch) -> Option<wire::Launch> {
        let run = self.state.runs.get(&launch.run)?;
        let stage = run.graph.as_ref()?.stages.get(launch.task.stage.index())?;
        let sheet = run.sheet.as_ref()?;
        let inputs = stage.inputs.iter().map(|input| {
            let manifest = self.manifests.get(&self.state, &launch.run, input.stage, &self.blobs)?;
            Some(wire::LaunchInput { stage: input.stage.0, manifest: manifest.0 })
        });
        Some(wire::Launch {
            attempt: Some(wire::AttemptRef {
                run: launch.run.0.clone(),
                task: Some(launch.task.into()),
                attempt: Some(launch.attempt.into()),
                slots: launch.slots,
            }),
            session: sheet.session.0.clone(),
            stage: stage.plan.0.clone(),
            scans: stage
                .scans
                .get(launch.task.index as usize)
                .and_then(|s| s.as_ref())
                .map_or_else(String::new, |s| s.0.clone()),
            inputs: inputs.collect::<Option<_>>()?,
        })
    }

    /// Deletes a pack that nobody will read. One that cannot be deleted now is swept by the next leader.
    fn discard(&self, pack: Pack) {
        let Some(pond) = self.config.pond.get() else { return };
        tokio::spawn(async move {
            crash::before("pack.delete");
            if let Err(error) = pond.delete(&pack.name).await {
                tracing::warn!(pack = pack.name, %error, "a pack could not be deleted");
            }
            crash::after("pack.delete");
        });
    }

    fn commit(&mut self, run: &RunId) {
        if let Some(intent) = self.state.runs.get(run).and_then(|r| r.intent.clone()) {
            self.deliveries.commit(run, intent);
        }
    }

    pub(super) fn deliver(&mut self, run: &RunId) {
        let Some(graph) = self.state.runs.get(run).and_then(|r| r.graph.as_ref()) else { return };
        if let Some(manifest) = self.manifests.manifest(&self.state, run, graph.root()) {
            self.deliveries.outputs(run, manifest);
        }
    }

    fn finished(&mut self, run: &RunId, outcome: Outcome, published: Option<u64>) {
        self.blobs.release_run(run);
        self.manifests.forget(run);
        self.deliveries.forget(run);
        self.requests.remove(run);
        self.unheard.remove(run);
        let answer = self.answers.remove(run);
        let is_table = self.tables.remove(run);
        let Some(client) = self.clients.remove(run) else { return };
        // What makes a table answers nothing else.
        let counted = published.filter(|_| !is_table).and_then(|rows| count(rows).ok());
        if let (Outcome::Succeeded { .. }, Some(rows)) = (&outcome, answer.or(counted)) {
            tell(&client.messages, RunMessage::Batch(rows));
        }
        let message = match outcome {
            Outcome::Succeeded { .. } => RunMessage::Done,
            Outcome::Cancelled => RunMessage::Failed(Error::cancelled(format!("run {run} was cancelled"))),
            Outcome::Failed { error } => RunMessage::Failed(error),
        };
        crash::before("answer.end");
        tell(&client.messages, message);
        crash::after("answer.end");
    }
}
