//! What becomes of a result, in a form that outlives the coordinator that planned it.

use datafusion::execution::runtime_env::RuntimeEnv;
use serde::{Deserialize, Serialize};
use tidemill_core::record::CatalogueEntry;
use tidemill_core::{Error, Result, RunId, SessionId};
use tidemill_engine::functions::Functions;
use tidemill_engine::planner::Finish;

use super::analyze::StageReport;
use super::copy;
use super::keep::KeepTable;
use super::temporary::KeepTemporary;
use crate::datasets::{Datasets, Target};

/// What becomes of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum FinishSpec {
    /// It goes to the client.
    Deliver,
    /// It counts the rows of files that are published together.
    Copy(copy::Target),
    /// It counts the rows of files that become a version of a dataset.
    Dataset(Box<Target>),
    /// It becomes a table.
    Keep {
        /// The table.
        name: String,
        /// Its statement, without secrets.
        definition: String,
        /// The entry that it was planned to replace.
        expected: Option<CatalogueEntry>,
    },
    /// It becomes a temporary table.
    KeepTemporary {
        /// Whose it is.
        session: SessionId,
        /// The run whose rows it replaces.
        replaces: Option<RunId>,
        /// What the client is told.
        change: String,
    },
    /// It is counted, and the client is told what it cost.
    Report(StageReport),
}

impl FinishSpec {
    /// Whether it changes anything outside.
    pub(super) const fn has_effects(&self) -> bool {
        !matches!(self, Self::Deliver | Self::Report(_))
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::internal(format!("what becomes of a result: {e}")))
    }

    /// What to do, from what [`Self::encode`] gave.
    pub(super) fn decode(
        spec: &[u8],
        run: &RunId,
        runtime: &RuntimeEnv,
        functions: &Functions,
        datasets: &Datasets,
    ) -> Result<Finish> {
        let spec = serde_json::from_slice(spec)
            .map_err(|e| Error::internal(format!("what becomes of the result of run {run} cannot be read: {e}")))?;
        Ok(match spec {
            Self::Deliver => Finish::Deliver,
            Self::Copy(target) => Finish::Commit(target.commit(run, runtime)?),
            Self::Dataset(target) => Finish::Commit(target.commit(run, runtime, functions, datasets)?),
            Self::Keep { name, definition, expected } => {
                Finish::Keep(Box::new(KeepTable { name, definition, expected }))
            }
            Self::KeepTemporary { session, replaces, change } => {
                Finish::Keep(Box::new(KeepTemporary { session, run: run.clone(), replaces, change }))
            }
            Self::Report(report) => Finish::Report(Box::new(report)),
        })
    }
}

/// What becomes of rows that were written into a dataset.
pub(crate) fn dataset_finish(target: Target) -> Result<Vec<u8>> {
    FinishSpec::Dataset(Box::new(target)).encode()
}
