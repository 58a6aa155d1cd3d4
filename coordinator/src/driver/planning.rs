//! Statements to plans, and what is kept of a plan while its run goes.

use std::sync::Arc;

use futures::StreamExt;
use tidemill_core::record::{CatalogueEntry, ExecutorState, Outcome, Record};
use tidemill_core::schedule::Event;
use tidemill_core::{BlobHash, Error, Result, RunId};
use tidemill_engine::blob::Blob;
use tidemill_engine::error::from_datafusion;
use tidemill_engine::planner::{Plan, PlanRequest, StagedPlan};

use super::{Driver, Input, now};
use crate::runs::{RunMessage, tell};

/// What the driver needs of a run's plan.
pub(super) struct PlannedRun {
    pub(super) session: BlobHash,
}

impl Driver {
    /// Plans a run on the cpu runtime.
    pub(super) fn plan(&mut self, run: RunId) {
        let Some(request) = self.requests.remove(&run) else { return };
        let alive: Vec<_> = self.state.executors.values().filter(|e| e.state == ExecutorState::Alive).collect();
        let request = PlanRequest {
            run: run.clone(),
            statement: request.sql,
            settings: request.settings,
            catalogue: Arc::clone(&self.catalogue),
            state: Arc::new(self.inbox.clone()),
            now: now(),
            slots: alive.iter().map(|e| e.slots).sum(),
            task_memory: alive.iter().map(|e| e.memory / u64::from(e.slots.max(1))).min(),
            blobs: Arc::clone(&self.blobs) as _,
        };
        let planner = Arc::clone(&self.config.planner);
        let inbox = self.inbox.clone();
        let planning = self.config.cpu.spawn(async move { planner.plan(request).await });
        tokio::spawn(async move {
            let plan = planning.await.unwrap_or_else(|e| Err(Error::internal(format!("planning panicked: {e}"))));
            inbox.send(Input::Planned { run, plan }).await;
        });
    }

    pub(super) fn planned(&mut self, run: RunId, plan: Result<Plan>) {
        match plan {
            Err(error) => self.handle(Event::Planned { run, graph: Err(error) }),
            Ok(Plan::Stages(staged)) => self.staged(run, staged),
            Ok(Plan::Rows(rows)) => self.rows(run, rows),
            Ok(Plan::Change { record, expected, blobs }) => self.change(run, record, expected.as_ref(), blobs),
        }
    }

    fn staged(&mut self, run: RunId, staged: StagedPlan) {
        let Some(client) = self.clients.get(&run).cloned() else { return };
        self.blobs.keep_for_run(&run, staged.blobs);
        self.planned.insert(run.clone(), PlannedRun { session: staged.session });
        tell(&client, RunMessage::Schema(Arc::clone(&staged.schema)));
        self.deliveries.expect(run.clone(), staged.schema, staged.finish, client, self.inbox.clone());
        self.handle(Event::Planned { run, graph: Ok(staged.graph) });
    }

    /// Rows of the coordinator's own: sent from a task, so that a slow client holds up nobody.
    fn rows(&self, run: RunId, mut rows: datafusion::execution::SendableRecordBatchStream) {
        let Some(client) = self.clients.get(&run).cloned() else { return };
        let inbox = self.inbox.clone();
        self.config.cpu.spawn(async move {
            let mut count = 0;
            let mut sent = client.send(RunMessage::Schema(rows.schema())).await;
            while sent.is_ok() {
                match rows.next().await {
                    Some(Ok(batch)) => {
                        count += batch.num_rows() as u64;
                        sent = client.send(RunMessage::Batch(batch)).await;
                    }
                    Some(Err(error)) => {
                        let outcome = Outcome::Failed { error: from_datafusion(&error) };
                        return inbox.send(Input::Event(Event::Answered { run, outcome })).await;
                    }
                    None => break,
                }
            }
            let outcome = Outcome::Succeeded { rows: count };
            inbox.send(Input::Event(Event::Answered { run, outcome })).await;
        });
    }

    fn change(&mut self, run: RunId, record: Option<Record>, expected: Option<&CatalogueEntry>, blobs: Vec<Blob>) {
        if !self.state.live.contains(&run) {
            return; // Cancelled meanwhile.
        }
        if let Some(record) = record {
            if let Some(error) = self.conflict(&record, expected) {
                return self.handle(Event::Answered { run, outcome: Outcome::Failed { error } });
            }
            for blob in blobs {
                self.blobs.keep(blob);
            }
            self.handle(Event::CatalogueChanged { record });
        }
        if let Some(client) = self.clients.get(&run) {
            tell(client, RunMessage::Schema(Arc::new(arrow::datatypes::Schema::empty())));
        }
        self.handle(Event::Answered { run, outcome: Outcome::Succeeded { rows: 0 } });
    }

    /// A result became a table.
    pub(super) fn kept(&mut self, run: RunId, record: Record, expected: Option<&CatalogueEntry>, blob: Blob) {
        if !self.state.live.contains(&run) {
            return; // Cancelled meanwhile.
        }
        if let Some(error) = self.conflict(&record, expected) {
            return self.handle(Event::ResultFailed { run, error });
        }
        self.blobs.keep(blob);
        self.handle(Event::CatalogueChanged { record });
    }

    /// Whether another client changed the entry since the change was planned.
    fn conflict(&self, record: &Record, expected: Option<&CatalogueEntry>) -> Option<Error> {
        let (Record::CatalogueSet { name, .. } | Record::CatalogueDropped { name }) = record else { return None };
        let changed = self.state.catalogue.entries.get(name) != expected;
        changed
            .then(|| Error::conflict(format!("`{name}` was changed by another client meanwhile: look, then try again")))
    }
}
