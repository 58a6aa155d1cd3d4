//! The result on its way to the client.

use super::LostOutput;
use super::decide::Decider;
use crate::RunId;
use crate::record::{Pack, Record};

impl Decider<'_> {
    /// Outputs are in the store. A pack of a run that has ended is of no use; one that is named already came twice.
    pub(super) fn pack_durable(&mut self, run: RunId, pack: Pack, outputs: Vec<LostOutput>) {
        let known = self.live_run(&run).map(|r| r.packs.iter().any(|p| p.name == pack.name));
        match known {
            Some(true) => {}
            Some(false) => self.record(Record::PackDurable { run, pack, outputs, at: self.now }),
            None => self.act(super::Action::Discard { pack }),
        }
    }

    /// The reader found an output of the root gone before it passed on a row of it.
    /// Where it is in the store too, and the reader did not know, it reads again.
    pub(super) fn result_lost(&mut self, run: &RunId, lost: LostOutput, looked_in_pack: bool) {
        let durable =
            self.state.task(run, lost.task).and_then(|t| t.output.as_ref()).is_some_and(|o| o.durable.is_some());
        if durable && !looked_in_pack {
            return self.refresh(run);
        }
        if self.live_run(run).is_some_and(|r| r.intent.is_none()) {
            self.lose_named_output(run, lost);
            self.refresh(run);
        }
    }
}
