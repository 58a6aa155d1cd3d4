//! What is asked of a state.

use super::CatalogueKind;
use super::state::{Kept, LostOutput, Pack, State};
use super::task::Task;
use crate::{BlobHash, RunId, TaskId};

impl State {
    /// The blobs that a run needs until it ends.
    #[must_use]
    pub fn blobs_of(&self, run: &RunId) -> Vec<BlobHash> {
        let Some(run) = self.runs.get(run) else { return Vec::new() };
        let stages = run.graph.iter().flat_map(|g| &g.stages);
        let of_stages = stages.flat_map(|s| s.scans.iter().flatten().chain([&s.plan]));
        let of_sheet = run.sheet.iter().flat_map(|s| [&s.blob, &s.session]);
        of_stages.chain(of_sheet).chain(&run.spec.request).cloned().collect()
    }

    /// The blobs of the catalogue's tables.
    pub fn tables(&self) -> impl Iterator<Item = &BlobHash> {
        self.catalogue.entries.values().filter_map(|entry| match &entry.kind {
            CatalogueKind::Table { rows } => Some(rows),
            CatalogueKind::ExternalTable | CatalogueKind::View | CatalogueKind::Schema => None,
        })
    }

    /// The blobs of results that can be fetched again.
    pub fn results(&self) -> impl Iterator<Item = &BlobHash> {
        self.runs.values().filter_map(|run| match &run.kept {
            Some(Kept::Blob(hash)) => Some(hash),
            Some(Kept::Object(_)) | None => None,
        })
    }

    /// The pack that holds an output, if one does.
    #[must_use]
    pub fn pack_of(&self, run: &RunId, output: LostOutput) -> Option<&Pack> {
        let current = self.task(run, output.task)?.output.as_ref().filter(|o| o.attempt == output.attempt)?;
        self.runs.get(run)?.packs.get(current.durable?)
    }

    /// A task of a run that is still remembered.
    #[must_use]
    pub fn task(&self, run: &RunId, task: TaskId) -> Option<&Task> {
        self.runs.get(run)?.stages.get(task.stage.index())?.tasks.get(task.index as usize)
    }
}
