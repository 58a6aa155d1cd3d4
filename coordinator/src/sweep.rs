//! Looks for packs and results that nobody names: what executors and leaders left that died while they wrote.
//!
//! Invariant: listed first, compared with the state then, as the log has it, deleted only by one that leads after both. So a
//! run whose objects are listed is known to the state, or was forgotten: a later leader's runs are not in the list, and none
//! that it resumes has ended here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tidemill_core::record::{Kept, State};
use tidemill_core::{Epoch, Result};
use tidemill_engine::exchange::{Found, PondSlot};

use crate::driver::{Coordinator, WeakInbox};
use crate::log::{Objects, newest_leader};

/// How often it is looked for what nobody lost: results whose run ended while they were kept.
const SELDOM: Duration = Duration::from_secs(3600);

/// Deletes what nobody names.
pub struct Sweeper {
    pond: PondSlot,
    objects: Arc<dyn Objects>,
    epoch: Epoch,
}

impl Sweeper {
    /// For the leader of `epoch`.
    #[must_use]
    pub const fn new(pond: PondSlot, objects: Arc<dyn Objects>, epoch: Epoch) -> Self {
        Self { pond, objects, epoch }
    }

    /// Before this leader accepts a run: nobody writes results. What live runs had begun to keep begins anew.
    pub async fn sweep_before_first_run(&self, state: &State) {
        let Some(pond) = self.pond.get() else { return };
        let found = match pond.found().await {
            Ok(found) => found,
            Err(error) => return tracing::warn!(%error, "packs that nobody needs could not be listed"),
        };
        let unnamed = unnamed(found, state);
        let left = unnamed.into_iter().filter(|found| !(found.is_pack && state.live.contains(&found.run)));
        self.delete(left.collect()).await;
    }

    /// From now on, after each loss of an executor until nothing is left of it, and seldom without one, as long as the
    /// coordinator is there.
    pub fn keep_sweeping(self, coordinator: &Coordinator, every: Duration) {
        let (inbox, losses) = (coordinator.inbox().downgrade(), Arc::clone(coordinator.losses()));
        tokio::spawn(async move {
            let (mut known, mut is_clean, mut last) = (0, true, Instant::now());
            loop {
                tokio::time::sleep(every).await;
                if inbox.upgrade().is_none_or(|inbox| inbox.is_closed()) {
                    return;
                }
                let lost = losses.load(Ordering::Relaxed);
                if lost == known && is_clean && last.elapsed() < SELDOM {
                    continue;
                }
                last = Instant::now();
                // Once more after a loss: what the dead had asked of the store may land later.
                is_clean = self.sweep(&inbox).await && lost == known;
                known = lost;
            }
        });
    }

    /// Whether there was nothing.
    async fn sweep(&self, inbox: &WeakInbox) -> bool {
        let Some(pond) = self.pond.get() else { return true };
        let found = match pond.found().await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "packs that nobody needs could not be listed");
                return false;
            }
        };
        // After the list.
        let Ok(state) = inbox.durable_state().await else { return true };
        let unnamed = unnamed(found, &state);
        let is_clean = unnamed.is_empty();
        self.delete(unnamed.into_iter().filter(|found| !state.live.contains(&found.run)).collect()).await;
        is_clean
    }

    async fn delete(&self, left: Vec<Found>) {
        let Some(pond) = self.pond.get().filter(|_| !left.is_empty()) else { return };
        if !self.leads().await.unwrap_or(false) {
            return;
        }
        tokio::spawn(async move {
            for Found { name, .. } in left {
                if let Err(error) = pond.delete(&name).await {
                    tracing::warn!(name, %error, "a pack that nobody needs could not be deleted");
                }
            }
        });
    }

    async fn leads(&self) -> Result<bool> {
        Ok(newest_leader(self.objects.as_ref()).await?.is_some_and(|(epoch, _)| epoch == self.epoch))
    }
}

/// Those that neither a live run nor a result that can be fetched again names.
fn unnamed(mut found: Vec<Found>, state: &State) -> Vec<Found> {
    let results = state.runs.values().filter_map(|run| match &run.kept {
        Some(Kept::Object(pack)) => Some(&pack.name),
        Some(Kept::Blob(_)) | None => None,
    });
    let live = state.live.iter().filter_map(|run| state.runs.get(run));
    let named: BTreeSet<&String> =
        live.flat_map(|run| run.packs.iter().map(|pack| &pack.name)).chain(results).collect();
    found.retain(|found| !named.contains(&found.name));
    found
}
