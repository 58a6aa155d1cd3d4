//! Tells a coordinator that a session goes on, as long as it does: the rows of its temporary tables are kept for it.
//!
//! Invariant: a client that ends takes its session along; one that dies leaves it to the coordinator's time-out.

use std::time::Duration;

use tidemill_core::Result;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::Backend;

/// How often a session is renewed: a few times within the coordinator's time-out of 15 minutes.
const RENEW: Duration = Duration::from_secs(180);
/// How soon again, where the coordinator did not hear it.
const RETRY: Duration = Duration::from_secs(10);
/// How long a coordinator may take to hear of a session's end: its client waits.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Lease {
    backend: Backend,
    /// The session's secret name; none when its end was told.
    session: Option<String>,
    renewing: JoinHandle<()>,
}

impl Lease {
    /// Begins to renew a session on the current runtime.
    pub(super) fn begin(backend: Backend, session: String) -> Self {
        let renewing = tokio::spawn(renew(backend.clone(), session.clone()));
        Self { backend, session: Some(session), renewing }
    }

    /// Tells that the session has ended.
    pub(super) async fn end(mut self) {
        if let Some(session) = self.session.take() {
            end(&self.backend, &session).await;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
        // A runtime that ends, too, may not come to it.
        if let (Some(session), Ok(runtime)) = (self.session.take(), Handle::try_current()) {
            let backend = self.backend.clone();
            runtime.spawn(async move { end(&backend, &session).await });
        }
    }
}

async fn end(backend: &Backend, session: &str) {
    let told: Option<Result<()>> = tokio::time::timeout(PATIENCE, backend.session_ended(session)).await.ok();
    if !matches!(told, Some(Ok(()))) {
        tracing::debug!("the coordinator was not told that the session has ended");
    }
}

async fn renew(backend: Backend, session: String) {
    let mut pause = RENEW;
    loop {
        tokio::time::sleep(pause).await;
        let heard = tokio::time::timeout(PATIENCE, backend.session_heard(&session)).await;
        pause = if matches!(heard, Ok(Ok(()))) { RENEW } else { RETRY };
    }
}
