//! What a new leader makes of a replayed log: the parts of its memory that are derived from it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use prost::Message;
use tidemill_core::{BlobHash, Error, Result, RunId};
use tidemill_engine::blob::Blob;
use tidemill_engine::codec::decode_schema;
use tidemill_engine::error::from_datafusion;
use tidemill_engine::planner::BlobReader;
use tidemill_engine::wire;
use tokio::sync::mpsc;

use super::Driver;
use crate::delivery::Expected;
use crate::runs::{RunMessage, tell};

impl Driver {
    /// Keeps the blobs of tables and of live runs, and goes on with effects.
    pub(super) fn restore(&mut self, blobs: &BTreeMap<BlobHash, Blob>) {
        self.catalogue = Arc::new(self.state.catalogue.clone());
        let kept = self.state.tables().chain(self.state.results()).chain(self.state.temporary_rows());
        for named in kept.filter_map(|hash| blobs.get(hash)) {
            self.blobs.keep(named.clone());
        }
        let live: Vec<RunId> = self.state.live.iter().cloned().collect();
        for run in live {
            let named = self.state.blobs_of(&run);
            self.blobs.keep_for_run(&run, named.iter().filter_map(|hash| blobs.get(hash)).cloned().collect());
            let Some(known) = self.state.runs.get(&run) else { continue };
            // One of another build is planned anew, unless it is being published: that is said in words that all builds know.
            let is_ours = known.planned_by.as_ref().is_none_or(|(_, build)| build == wire::BUILD);
            let goes_on = is_ours || known.intent.is_some();
            if known.spec.job.is_some() && known.sheet.is_none() {
                // Nobody waits for it: it is planned when its turn comes.
            } else if known.sheet.as_ref().is_none_or(|s| !s.effects) {
                self.unclaimed.insert(run.clone(), Instant::now());
            } else if goes_on {
                // Nobody listens, and it goes on all the same.
                let (nobody, _) = mpsc::channel(1);
                if let Err(error) = self.expect(&run, nobody) {
                    tracing::error!(%run, %error, "a run cannot be carried on");
                }
            }
        }
    }

    /// Prepares to deliver, publish or keep a planned run's result, for a client that has not been told its columns. What
    /// is under way already goes on, for this client.
    pub(super) fn expect(&mut self, run: &RunId, client: mpsc::Sender<RunMessage>) -> Result<()> {
        let missing = || Error::internal(format!("the plan of run {run} is not kept"));
        let sheet = self.state.runs.get(run).and_then(|r| r.sheet.as_ref()).ok_or_else(missing)?;
        let sheet = self.blobs.read(&sheet.blob).ok_or_else(missing)?;
        let sheet = wire::RunSheet::decode(sheet).map_err(|_| missing())?;
        let schema = Arc::new(decode_schema(&sheet.schema).map_err(|e| from_datafusion(&e))?);
        let finish = self.config.planner.finish(run, &sheet.finish)?;
        tell(&client, RunMessage::Schema(finish.columns(&schema)));
        // A result is delivered from its beginning to each; an effect happens once.
        if !finish.is_for_each_client() && self.deliveries.is_under_way(run) {
            return Ok(());
        }
        let expected = Expected { run: run.clone(), schema, finish, keep: sheet.keep };
        self.deliveries.expect(expected, client, self.inbox.clone());
        Ok(())
    }
}
