//! Manifests of complete stages: made once, kept until one of their outputs is lost.

use std::collections::BTreeMap;

use tidemill_core::record::State;
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
        let progress = state.runs.get(run)?.stages.get(stage.index())?;
        let outputs = progress.tasks.iter().map(|task| {
            let output = task.output.as_ref()?;
            let endpoint = state.executors.get(&output.executor)?.endpoint.clone();
            let holder = Holder { executor: output.executor.clone(), endpoint };
            Some(ManifestOutput { attempt: output.attempt, holder, footer: output.footer })
        });
        Some(Manifest { stage, outputs: outputs.collect::<Option<_>>()? })
    }

    /// An output was lost, or the run ended.
    pub(crate) fn forget(&mut self, run: &RunId) {
        self.0.remove(run);
    }
}
