//! What is asked beside a session's statements: how a run goes, and what names there are.

use std::collections::BTreeMap;
use std::time::Duration;

use tidemill_coordinator::StatementRequest;
use tidemill_core::schedule::Progress;
use tidemill_core::{Error, Result, RunId};

use super::Backend;

/// Who watches has no patience: there is another look soon.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks a coordinator on its own, however busy the session is that it came from.
#[derive(Clone)]
pub struct Observer {
    pub(super) backend: Backend,
    /// What the session had set, and what it had that is temporary, when it was last looked at.
    pub(super) settings: BTreeMap<String, String>,
}

impl Observer {
    /// How far a run has come; `None` if it is not known there.
    ///
    /// # Errors
    /// The coordinator does not answer within two seconds.
    pub async fn progress(&self, run: &RunId) -> Result<Option<Progress>> {
        let asked = async {
            match &self.backend {
                Backend::Remote(remote) => remote.progress(run).await,
                Backend::Local(coordinator) => coordinator.progress(run.clone()).await,
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(silent()))
    }

    /// Runs a query with the settings that the session had when it gave this out, and collects its rows.
    ///
    /// # Errors
    /// The query fails, or takes longer than two seconds.
    pub async fn query(&self, sql: &str) -> Result<Vec<arrow::record_batch::RecordBatch>> {
        let asked = async {
            let settings = self.settings.clone();
            let request = StatementRequest { sql: sql.to_owned(), settings, ..Default::default() };
            self.backend.submit(request).await?.collect().await
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(silent()))
    }
}

fn silent() -> Error {
    Error::unavailable(format!("the coordinator does not answer within {} s", PATIENCE.as_secs()))
}
