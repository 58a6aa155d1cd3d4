//! The result on its way to the client, and kept for those who ask again.

use super::decide::Decider;
use super::{Action, Lost, LostOutput};
use crate::record::{Kept, Pack, Record, Requests};
use crate::{Millis, RunId};

impl Decider<'_> {
    /// Outputs are in the store. A pack of a run that has ended is of no use; one that is named already came twice.
    pub(super) fn pack_durable(&mut self, run: RunId, pack: Pack, outputs: Vec<LostOutput>) {
        let Some(live) = self.live_run(&run) else { return self.act(Action::Discard { pack }) };
        // Said again, it may name outputs of which nobody knew before.
        let is_news = |LostOutput { task, attempt }: &LostOutput| {
            let output = self.state.task(&run, *task).and_then(|t| t.output.as_ref());
            output.is_some_and(|o| o.attempt == *attempt && o.durable.is_none())
        };
        if live.packs.iter().all(|p| p.name != pack.name) || outputs.iter().any(is_news) {
            self.record(Record::PackDurable { run, pack, outputs });
        }
    }

    /// The reader of the result could not read an output of the root.
    pub(super) fn result_lost(&mut self, run: &RunId, lost: &Lost) {
        if self.live_run(run).is_some_and(|r| r.intent.is_none()) {
            self.lose_outputs(run, lost);
            self.refresh(run);
        }
    }

    /// Counts what a result was read with; of a run that left the history nobody counts.
    pub(super) fn result_read(&mut self, run: RunId, requests: Requests) {
        if self.state.runs.contains_key(&run) {
            self.record(Record::ResultRead { run, requests });
        }
    }

    /// Lets go of results whose retention ended.
    pub(super) fn expire_results(&mut self) {
        let limit = self.settings.result_retention_ms;
        let is_old = |finished: Option<Millis>| finished.is_some_and(|at| self.now.since(at) >= limit);
        let kept = self.state.runs.iter().filter(|(_, run)| run.kept.is_some() && is_old(run.finished_at));
        for run in kept.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.expire(&run);
        }
    }

    pub(super) fn expire(&mut self, run: &RunId) {
        let Some(kept) = self.state.runs.get(run).and_then(|r| r.kept.clone()) else { return };
        self.record(Record::ResultExpired { run: run.clone() });
        self.act(match kept {
            Kept::Blob(blob) => Action::Forget { blob },
            Kept::Object(pack) => Action::Discard { pack },
        });
    }
}
