//! The result on its way to the client.

use super::LostOutput;
use super::decide::Decider;
use crate::RunId;

impl Decider<'_> {
    /// The reader found an output of the root gone before it passed on a row of it.
    pub(super) fn result_lost(&mut self, run: &RunId, lost: LostOutput) {
        if self.live_run(run).is_some_and(|r| r.intent.is_none()) {
            self.lose_named_output(run, lost);
            self.refresh(run);
        }
    }
}
