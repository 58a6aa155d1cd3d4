//! Statements to plans, and what is kept of a plan while its run goes.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use prost::Message;
use tidemill_core::record::{CatalogueEntry, Change, ExecutorState, Outcome, Record, Sheet};
use tidemill_core::schedule::Event;
use tidemill_core::{Error, Result, RunId};
use tidemill_engine::blob::Blob;
use tidemill_engine::codec::encode_schema;
use tidemill_engine::error::from_datafusion;
use tidemill_engine::planner::{NewEntry, Plan, PlanRequest, StagedPlan};
use tidemill_engine::sessions::session_of;
use tidemill_engine::wire;
use tokio::sync::mpsc;

use super::{Driver, Input, NewTable, now};
use crate::delivery::Keeper;
use crate::runs::{RunMessage, StatementRequest, tell};

/// How long a client may leave a batch unread before its run counts as one that waits for nothing else.
const SLOW_CLIENT: Duration = Duration::from_millis(100);

impl Driver {
    /// Plans a run on the cpu runtime.
    pub(super) fn plan(&mut self, run: RunId) {
        let Some(request) = self.request(&run) else {
            let message =
                "its statement held a secret, which is written nowhere, and its coordinator is gone: submit it again";
            return self.handle(Event::Planned { run, graph: Err(Error::unavailable(message)), sheet: None });
        };
        let request = self.plan_request(run.clone(), request);
        let planner = Arc::clone(&self.config.planner);
        let inbox = self.inbox.clone();
        let planning = self.config.cpu.spawn(async move { planner.plan(request).await });
        tokio::spawn(async move {
            let plan = planning.await.unwrap_or_else(|e| Err(Error::internal(format!("planning panicked: {e}"))));
            inbox.send(Input::Planned { run, plan }).await;
        });
    }

    /// What the planner is asked: the statement, and all that it may refer to as it is now.
    pub(super) fn plan_request(&self, run: RunId, request: StatementRequest) -> PlanRequest {
        let alive: Vec<_> = self.state.executors.values().filter(|e| e.state == ExecutorState::Alive).collect();
        let session = session_of(&request.settings).and_then(|session| self.state.sessions.get(&session)).cloned();
        let job = self.state.runs.get(&run).and_then(|known| known.spec.job.clone());
        PlanRequest {
            run,
            job,
            statement: request.sql,
            parameters: request.parameters,
            plan: request.plan,
            settings: request.settings,
            by: request.by,
            catalogue: Arc::clone(&self.catalogue),
            session: session.unwrap_or_default(),
            state: Arc::new(self.inbox.clone()),
            now: now(),
            slots: alive.iter().map(|e| e.slots).sum(),
            task_memory: alive.iter().map(|e| e.memory / u64::from(e.slots.max(1))).min(),
            blobs: Arc::clone(&self.blobs) as _,
        }
    }

    pub(super) fn planned(&mut self, run: RunId, plan: Result<Plan>) {
        match plan {
            Err(error) => self.handle(Event::Planned { run, graph: Err(error), sheet: None }),
            Ok(Plan::Stages(staged)) => self.staged(run, staged),
            Ok(Plan::Rows(rows)) => self.rows(run, rows),
            Ok(Plan::Change { record, expected, blobs }) => {
                let answer = Arc::new(Schema::empty());
                self.change(run, record.map(|r| *r), expected.as_ref(), blobs, &answer);
            }
            Ok(Plan::Published { version }) => {
                let outcome = Outcome::Succeeded { rows: 0, kept: None, version: Some(version) };
                self.handle(Event::Answered { run, outcome });
            }
            Ok(Plan::Command(command)) => self.command(run, command),
            Ok(Plan::Session { answer, record, blobs }) => {
                self.change(run, record.map(|r| *r), None, blobs, &answer);
            }
        }
    }

    fn staged(&mut self, run: RunId, staged: StagedPlan) {
        if !self.state.live.contains(&run) {
            return; // Cancelled meanwhile.
        }
        let schema = match encode_schema(&staged.schema) {
            Ok(schema) => schema,
            Err(error) => {
                let graph = Err(from_datafusion(&error));
                return self.handle(Event::Planned { run, graph, sheet: None });
            }
        };
        let sheet = wire::RunSheet { schema, finish: staged.finish, keep: staged.keep };
        let sheet = Blob::new(sheet.encode_to_vec());
        let noted =
            Sheet { blob: sheet.hash.clone(), session: staged.session, effects: staged.effects, inputs: staged.inputs };
        let mut blobs = staged.blobs;
        blobs.push(sheet);
        self.journal.keep(blobs.iter().cloned());
        self.blobs.keep_for_run(&run, blobs);
        self.handle(Event::Planned { run: run.clone(), graph: Ok(staged.graph), sheet: Some(noted) });
        // Without a client a result waits for one; an effect does not.
        let client = match self.clients.get(&run) {
            Some(client) => client.messages.clone(),
            None if staged.effects => mpsc::channel(1).0,
            None => return,
        };
        if self.state.live.contains(&run)
            && let Err(error) = self.expect(&run, client)
        {
            self.handle(Event::ResultFailed { run, error });
        }
    }

    /// Rows of the coordinator's own: sent from a task, so that a slow client holds up nobody.
    fn rows(&mut self, run: RunId, mut rows: SendableRecordBatchStream) {
        let Some(client) = self.clients.get(&run).cloned() else {
            // Whoever asked the last leader may ask again.
            self.unheard.insert(run);
            return;
        };
        let (inbox, client) = (self.inbox.clone(), client.messages);
        let mut keeper = Keeper::begin(&run, &rows.schema(), &self.config.pond);
        self.config.cpu.spawn(async move {
            let (mut count, mut is_slow) = (0, false);
            let mut sent = client.send(RunMessage::Schema(rows.schema())).await.map_err(|_| ());
            let mut failed = None;
            while sent.is_ok() && failed.is_none() {
                match rows.next().await {
                    Some(Ok(batch)) => {
                        count += batch.num_rows() as u64;
                        keeper.push(&batch).await;
                        // Once is enough: it stays one that waits for its client.
                        if !is_slow && tokio::time::timeout(SLOW_CLIENT, client.reserve()).await.is_err() {
                            is_slow = true;
                            inbox.send(Input::Event(Event::Unread { run: run.clone() })).await;
                        }
                        sent = client.send(RunMessage::Batch(batch)).await.map_err(|_| ());
                    }
                    Some(Err(error)) => failed = Some(from_datafusion(&error)),
                    None => break,
                }
            }
            let (outcome, blob) = match failed {
                Some(error) => {
                    keeper.abort();
                    (Outcome::Failed { error }, None)
                }
                None => {
                    let (kept, blob) = keeper.finish().await;
                    (Outcome::Succeeded { rows: count, kept, version: None }, blob)
                }
            };
            inbox.send(Input::Answered { run, outcome, blob }).await;
        });
    }

    /// Changes the catalogue or a session; `answer` are the columns of no rows.
    fn change(
        &mut self,
        run: RunId,
        record: Option<Record>,
        expected: Option<&CatalogueEntry>,
        blobs: Vec<Blob>,
        answer: &SchemaRef,
    ) {
        if !self.state.live.contains(&run) {
            return; // Cancelled meanwhile.
        }
        if let Some(error) = record.as_ref().and_then(|record| self.conflict(record, expected)) {
            return self.handle(Event::Answered { run, outcome: Outcome::Failed { error } });
        }
        self.keep(blobs);
        if let Some(client) = self.clients.get(&run) {
            tell(&client.messages, RunMessage::Schema(Arc::clone(answer)));
        }
        // What changed of a session may hold the secret for which its statement is written nowhere.
        let is_written = self.state.runs.get(&run).is_some_and(|known| known.spec.request.is_some());
        let tells_nothing = answer.metadata().is_empty();
        let nothing = || Keeper::nothing(answer, &self.config.pond);
        let (kept, answer) = if is_written || tells_nothing { nothing() } else { (None, None) };
        self.keep(answer);
        self.handle(Event::CatalogueChanged { run, record: record.map(Box::new), rows: 0, kept, version: None });
    }

    /// A result became a table.
    pub(super) fn became_table(&mut self, run: RunId, table: NewTable) {
        if !self.state.live.contains(&run) {
            return; // Cancelled meanwhile.
        }
        let NewTable { entry: NewEntry { record, expected }, blob, rows, answer: (kept, answer), version } = table;
        if let Some(error) = self.conflict(&record, expected.as_ref()) {
            return self.handle(Event::ResultFailed { run, error });
        }
        self.keep(blob.into_iter().chain(answer));
        self.tables.insert(run.clone());
        self.handle(Event::CatalogueChanged { run, record: Some(Box::new(record)), rows, kept, version });
    }

    /// Keeps blobs that the next record names, here and in the log.
    pub(super) fn keep(&mut self, blobs: impl IntoIterator<Item = Blob>) {
        for blob in blobs {
            self.journal.keep([blob.clone()]);
            self.blobs.keep(blob);
        }
    }

    /// Whether another client changed the entry since the change was planned, or there is no room for what a session would keep.
    fn conflict(&self, record: &Record, expected: Option<&CatalogueEntry>) -> Option<Error> {
        let (name, change) = match record {
            Record::CatalogueSet { name, .. } => (name, Change::Set),
            Record::CatalogueDropped { name } => (name, Change::Drop),
            _ => return self.state.lacks_room(record, &self.config.settings),
        };
        let catalogue = &self.state.catalogue;
        let known = catalogue.entries.get(name);
        let stays = matches!(record, Record::CatalogueSet { entry, .. } if known.is_none_or(|known| known == entry));
        if !stays && let Some(job) = self.job_of(name, change) {
            return Some(Error::conflict(match change {
                Change::Drop => format!("the job {job} publishes into `{name}` or waits for it: drop the job first"),
                Change::Set => format!(
                    "the job {job} publishes into `{name}`, and what it has published would not be in another table: drop the job first"
                ),
            }));
        }
        let changed = known != expected || !catalogue.can_change(name, change);
        changed
            .then(|| Error::conflict(format!("`{name}` was changed by another client meanwhile: look, then try again")))
    }
}
