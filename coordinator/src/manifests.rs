//! Manifests of complete stages: made once, kept until one of their outputs is lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill_core::record::{ExecutorState, Pack, State};
use tidemill_core::{BlobHash, RunId, StageId};
use tidemill_engine::blob::Blob;
use tidemill_engine::exchange::{Holder, Manifest, ManifestOutput};

use crate::blobs::Blobs;

/// Manifests' hashes by run and stage.
#[derive(Debug, Default)]
pub(crate) struct Manifests(BTreeMap<RunId, BTreeMap<StageId, BlobHash>>);

impl Manifests {
    /// The hash of a complete stage's manifest, whose blob is kept for the run.
    pub(crate) fn get(&mut self, state: &State, run: &RunId, stage: StageId, blobs: &Blobs) -> Option<BlobHash> {
        if let Some(hash) = self.0.get(run).and_then(|stages| stages.get(&stage)) {
            return Some(hash.clone());
        }
        let blob = Blob::new(self.manifest(state, run, stage)?.encode());
        let hash = blob.hash.clone();
        blobs.keep_for_run(run, vec![blob]);
        self.0.entry(run.clone()).or_default().insert(stage, hash.clone());
        Some(hash)
    }

    /// The manifest of a complete stage.
    pub(crate) fn manifest(&self, state: &State, run: &RunId, stage: StageId) -> Option<Manifest> {
        let run = state.runs.get(run)?;
        let progress = run.stages.get(stage.index())?;
        let packs: Vec<Arc<Pack>> = run.packs.iter().cloned().map(Arc::new).collect();
        let outputs = progress.tasks.iter().map(|task| {
            let output = task.output.as_ref()?;
            let pack = output.durable.and_then(|d| packs.get(d)).cloned();
            let known = state.executors.get(&output.executor).filter(|e| e.state != ExecutorState::Lost);
            let endpoint = match known {
                Some(executor) => executor.endpoint.clone(),
                // Nobody listens there; the pack is read at once.
                None => pack.as_ref().map(|_| String::new())?,
            };
            let holder = Holder { executor: output.executor.clone(), endpoint };
            Some(ManifestOutput { attempt: output.attempt, holder, footer: output.footer, pack })
        });
        Some(Manifest { stage, outputs: outputs.collect::<Option<_>>()? })
    }

    /// An executor was lost: nobody should try to reach it.
    pub(crate) fn forget_all(&mut self) {
        self.0.clear();
    }

    /// An output was lost or is in the store, or the run ended.
    pub(crate) fn forget(&mut self, run: &RunId) {
        self.0.remove(run);
    }
}
