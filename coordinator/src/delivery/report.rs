//! Results that nobody wants: their rows are counted, and the client is told how the run went.

use tidemill_core::Result;
use tidemill_engine::planner::{Counted, Report, StateReader};

use super::{Delivery, Next};
use crate::driver::now;
use crate::runs::RunMessage;

impl Delivery {
    /// Reads all rows as a client would, then reports; how many rows that were, or `None` if the run ended first, or the
    /// client did.
    pub(super) async fn report(&mut self, report: &dyn Report) -> Result<Option<u64>> {
        loop {
            match self.next().await? {
                Next::Batch(_) if self.client.is_closed() => return Ok(None),
                Next::Batch(_) => {}
                Next::All => break,
                Next::Gone | Next::Abandoned => return Ok(None),
            }
        }
        let rows = self.reading.rows();
        let batch = {
            // Without a driver, the next leader counts anew.
            let Ok(state) = self.inbox.state().await else { return Ok(None) };
            let Some(run) = state.runs.get(&self.run) else { return Ok(None) };
            let has_store = self.pond.get().is_some();
            report.report(&Counted { run, rows, now: now(), has_store })?
        };
        self.keeper.push(&batch).await;
        let sent = self.client.send(RunMessage::Batch(batch)).await.is_ok();
        Ok((sent && self.has_taken_all().await).then_some(rows))
    }
}
