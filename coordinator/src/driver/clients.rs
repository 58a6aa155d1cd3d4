//! Clients that submit runs, and submit them again.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tidemill_core::interval::RUN_PREFIX;
use tidemill_core::record::{RunSpec, RunState};
use tidemill_core::schedule::{Event, tried_again};
use tidemill_core::{Error, Principal, Result, RunId};
use tidemill_engine::blob::Blob;
use tidemill_engine::codec::logical::{PlanLooks, ReceivedPlan};
use tidemill_engine::planner::BlobReader;
use tidemill_engine::sessions::session_of;
use tidemill_engine::wire;

use super::Driver;
use crate::delivery::{Asked, answer_again};
use crate::runs::{RunClient, RunMessage, StatementRequest, tell};

/// How long a result waits for a client of the last leader: longer than clients try.
const CLAIM_WITHIN: Duration = Duration::from_secs(90);

impl Driver {
    /// A new run, or one that is known: then its client lost the answer, and gets it from the beginning.
    pub(super) fn submitted(&mut self, run: RunId, request: StatementRequest, client: RunClient) {
        if run.0.starts_with(RUN_PREFIX) {
            let error = Error::invalid(format!("run {run} is named as those of jobs are: use another name"));
            return tell(&client.messages, RunMessage::Failed(error));
        }
        if let Some(known) = self.state.runs.get(&run) {
            let state = known.state;
            return match self.check_owner(&run, &request.by) {
                Ok(()) => self.attach_client(&run, state, &request.by, client),
                Err(error) => tell(&client.messages, RunMessage::Failed(error)),
            };
        }
        if let Some(session) = session_of(&request.settings) {
            // Before anything is kept: the next entry of the log is the one that names it.
            self.handle(Event::SessionHeard { session });
        }
        let planner = &self.config.planner;
        let statement = planner.redact(&request.sql);
        let looks = match &request.plan {
            Some(plan) => ReceivedPlan::looks_of(plan),
            None => PlanLooks {
                is_express: planner.is_express(&request.sql),
                may_change: planner.may_change(&request.sql),
                has_secret: statement != request.sql,
            },
        };
        let (express, may_change) = (looks.is_express, looks.may_change);
        // A secret is written nowhere: such a run needs its client to be planned.
        let has_secret = looks.has_secret || planner.holds_secret(&request.settings);
        let blob = (!has_secret).then(|| Blob::new(encode(&request)));
        let by = request.by.clone().recorded();
        let spec =
            RunSpec { statement, request: blob.as_ref().map(|b| b.hash.clone()), express, may_change, by, job: None };
        self.blobs.keep_for_run(&run, blob.iter().cloned().collect());
        self.journal.keep(blob);
        self.clients.insert(run.clone(), client);
        self.requests.insert(run.clone(), request);
        self.handle(Event::Submitted { run, spec });
    }

    /// Whether a run is somebody's to look at and to end.
    pub(super) fn check_owner(&self, run: &RunId, by: &Principal) -> Result<()> {
        let of_run = self.state.runs.get(run).map(|known| known.spec.by.as_ref());
        let owner = of_run.or_else(|| tried_again(&self.state.jobs, run).map(|(_, owner)| owner));
        match owner {
            Some(owner) if !by.owns(owner) => Err(Error::denied(format!(
                "run {run} is not a run of the user `{}`: ask who submitted it, or sign in as an administrator",
                by.name
            ))),
            _ => Ok(()),
        }
    }

    fn attach_client(&mut self, run: &RunId, state: RunState, by: &Principal, client: RunClient) {
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
                if let Err(error) = self.expect(run, client.messages.clone()) {
                    return tell(&client.messages, RunMessage::Failed(error));
                }
                self.clients.insert(run.clone(), client);
                let root = self.state.runs.get(run).and_then(|r| r.stages.last());
                if root.is_some_and(|s| s.is_complete()) {
                    self.deliver(run);
                }
            }
            RunState::Succeeded | RunState::Failed | RunState::Cancelled => self.fetched(run, by, client),
        }
    }

    /// The kept result of a run that has finished, or why there is none.
    pub(super) fn fetched(&self, run: &RunId, by: &Principal, client: RunClient) {
        if let Err(error) = self.check_owner(run, by) {
            return tell(&client.messages, RunMessage::Failed(error));
        }
        let Some(known) = self.state.runs.get(run) else {
            let error = Error::not_found(format!("run {run} is not known here: system.runs lists those that are"));
            return tell(&client.messages, RunMessage::Failed(error));
        };
        let error = match (known.state, &known.kept, &known.error) {
            (RunState::Succeeded, Some(kept), _) => {
                let asked = Asked { run: run.clone(), client: client.messages, inbox: self.inbox.clone() };
                return answer_again(kept.clone(), self.blobs.as_ref(), &self.config.pond, asked);
            }
            (RunState::Succeeded, None, _) => Error::not_found(format!(
                "run {run} has succeeded, and its result is not kept (any longer): submit the statement again"
            )),
            (_, _, Some(error)) => error.clone(),
            (state, _, None) if state.is_terminal() => Error::cancelled(format!("run {run} was {}", state.name())),
            (state, _, None) => Error::conflict(format!(
                "run {run} is {}: its result can be fetched when it has succeeded, see system.runs",
                state.name()
            )),
        };
        tell(&client.messages, RunMessage::Failed(error));
    }

    /// Ends runs whose rows are there and whose client has not come for them.
    pub(super) fn give_up_unclaimed(&mut self) {
        let live = &self.state.live;
        // Nobody needs to come for a run with effects.
        let runs = &self.state.runs;
        let waits = |run: &RunId| runs.get(run).and_then(|r| r.sheet.as_ref()).is_none_or(|sheet| !sheet.effects);
        self.unclaimed.retain(|run, _| live.contains(run) && waits(run));
        let late = self.unclaimed.iter().filter(|(_, since)| since.elapsed() > CLAIM_WITHIN).map(|(run, _)| run);
        let is_done = |run: &&RunId| {
            let root = self.state.runs.get(run).and_then(|r| r.stages.last());
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
            let spec = &self.state.runs.get(run)?.spec;
            if spec.job.is_some() {
                return Some(of_job(spec));
            }
            let ticket = wire::StatementTicket::decode(self.blobs.read(spec.request.as_ref()?)?).ok()?;
            let plan = Some(Bytes::from(ticket.plan)).filter(|plan| !plan.is_empty());
            let (parameters, settings) = (ticket.parameters.into(), ticket.settings.into_iter().collect());
            // Who asked may ask, or was not asked who they are.
            let by = spec.by.clone().unwrap_or_else(Principal::anybody);
            Some(StatementRequest { run: None, sql: ticket.sql, parameters, plan, settings, by })
        })
    }

    /// Ends a run that somebody other than its own connection wants ended; answers the state it is in then.
    pub(super) fn cancel(&mut self, run: &RunId, by: &Principal) -> Result<Option<RunState>> {
        self.check_owner(run, by)?;
        self.handle(Event::Cancelled { run: run.clone() });
        Ok(self.state.runs.get(run).map(|known| known.state))
    }
}

/// What a job asks for: its own statement, for one of its intervals, on behalf of who created it.
fn of_job(spec: &RunSpec) -> StatementRequest {
    let by = spec.by.clone().unwrap_or_else(Principal::anybody);
    StatementRequest { sql: spec.statement.clone(), by, ..StatementRequest::default() }
}

fn encode(request: &StatementRequest) -> Vec<u8> {
    let settings = request.settings.clone().into_iter().collect();
    let plan = request.plan.as_ref().map(|plan| plan.to_vec()).unwrap_or_default();
    let (sql, parameters) = (request.sql.clone(), request.parameters.to_vec());
    wire::StatementTicket { sql, settings, parameters, plan, ..Default::default() }.encode_to_vec()
}
