//! Clients that submit runs, and submit them again.

use std::time::Duration;

use prost::Message;
use tidemill_core::record::{RunSpec, RunState};
use tidemill_core::schedule::Event;
use tidemill_core::{Error, RunId};
use tidemill_engine::blob::Blob;
use tidemill_engine::planner::BlobReader;
use tidemill_engine::wire;
use tokio::sync::mpsc;

use super::Driver;
use crate::delivery::{count, count_schema};
use crate::runs::{RunMessage, StatementRequest, tell};

/// How long a result waits for a client of the last leader: longer than clients try.
const CLAIM_WITHIN: Duration = Duration::from_secs(90);

impl Driver {
    /// A new run, or one that is known: then its client lost the answer, and gets it from the beginning.
    pub(super) fn submitted(&mut self, run: RunId, request: StatementRequest, client: mpsc::Sender<RunMessage>) {
        if let Some(known) = self.state.runs.get(&run) {
            let state = known.state;
            return self.attach_client(&run, state, client);
        }
        let planner = &self.config.planner;
        let (statement, express) = (planner.redact(&request.sql), planner.is_express(&request.sql));
        // A secret is written nowhere: such a run needs its client to be planned.
        let blob = (statement == request.sql).then(|| Blob::new(encode(&request)));
        let spec = RunSpec { statement, request: blob.as_ref().map(|b| b.hash.clone()), express };
        self.blobs.keep_for_run(&run, blob.iter().cloned().collect());
        self.journal.keep(blob);
        self.clients.insert(run.clone(), client);
        self.requests.insert(run.clone(), request);
        self.handle(Event::Submitted { run, spec });
    }

    fn attach_client(&mut self, run: &RunId, state: RunState, client: mpsc::Sender<RunMessage>) {
        self.unclaimed.remove(run);
        match state {
            RunState::Queued => {
                self.clients.insert(run.clone(), client);
            }
            RunState::Planning => {
                self.clients.insert(run.clone(), client);
                // Rows of the coordinator's own were planned for nobody.
                if self.unheard.remove(run) {
                    self.plan(run.clone());
                }
            }
            RunState::Running => {
                if let Err(error) = self.expect(run, client.clone()) {
                    return tell(&client, RunMessage::Failed(error));
                }
                self.clients.insert(run.clone(), client);
                let root = self.state.runs.get(run).and_then(|r| r.stages.last());
                if root.is_some_and(|s| s.is_complete()) {
                    self.deliver(run);
                }
            }
            RunState::Succeeded if self.state.runs.get(run).is_some_and(|r| r.intent.is_some()) => {
                let rows = self.state.runs.get(run).and_then(|r| r.intent.as_ref()).map_or(0, |i| i.rows);
                tell(&client, RunMessage::Schema(count_schema()));
                match count(rows) {
                    Ok(count) => tell(&client, RunMessage::Batch(count)),
                    Err(error) => return tell(&client, RunMessage::Failed(error)),
                }
                tell(&client, RunMessage::Done);
            }
            RunState::Succeeded | RunState::Failed | RunState::Cancelled => {
                let error = self.state.runs.get(run).and_then(|r| r.error.clone());
                let error = error.unwrap_or_else(|| {
                    let what = format!("run {run} has {} already, and its result is kept no longer", state.name());
                    Error::conflict(format!("{what}: see system.runs"))
                });
                tell(&client, RunMessage::Failed(error));
            }
        }
    }

    /// Ends runs whose rows are there and whose client has not come for them.
    pub(super) fn give_up_unclaimed(&mut self) {
        let live = &self.state.live;
        self.unclaimed.retain(|run, _| live.contains(run));
        let late = self.unclaimed.iter().filter(|(_, since)| since.elapsed() > CLAIM_WITHIN).map(|(run, _)| run);
        let is_done = |run: &&RunId| {
            let root = self.state.runs.get(*run).and_then(|r| r.stages.last());
            root.is_some_and(|s| s.is_complete()) || self.unheard.contains(*run)
        };
        let given_up: Vec<RunId> = late.filter(is_done).cloned().collect();
        for run in given_up {
            tracing::warn!(%run, "nobody came for the result");
            self.unclaimed.remove(&run);
            self.unheard.remove(&run);
            self.handle(Event::Cancelled { run });
        }
    }

    /// What a client asked for, even if that was another leader.
    pub(super) fn request(&mut self, run: &RunId) -> Option<StatementRequest> {
        self.requests.remove(run).or_else(|| {
            let blob = self.state.runs.get(run)?.spec.request.as_ref()?;
            let ticket = wire::StatementTicket::decode(self.blobs.read(blob)?).ok()?;
            Some(StatementRequest { run: None, sql: ticket.sql, settings: ticket.settings.into_iter().collect() })
        })
    }
}

fn encode(request: &StatementRequest) -> Vec<u8> {
    let settings = request.settings.clone().into_iter().collect();
    wire::StatementTicket { sql: request.sql.clone(), settings, ..Default::default() }.encode_to_vec()
}
