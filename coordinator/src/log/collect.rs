//! Deletes what no replay will read again: `docs/protocol.md`, section 8.
//!
//! Invariant: the last object of every epoch's log stays, its seal: a leader that was stopped and comes back finds it in
//! its place. The newest two snapshots and all behind the older of them stay.

use std::sync::Arc;

use tidemill_core::{Epoch, Result};
use tidemill_engine::crash;

use super::lease::lease_name;
use super::{Objects, batch_name, epoch_name, list, numbers, snapshot_name};

/// Where a snapshot stands in the log.
pub(super) type Position = (Epoch, u64);

/// Deletes what is older than the snapshot at `kept`, unless an epoch later than `own` began: then that leader does.
pub(super) async fn collect(objects: Arc<dyn Objects>, own: Epoch, kept: Position) {
    if let Err(error) = try_collect(objects.as_ref(), own, kept).await {
        // The next snapshot tries again.
        tracing::warn!(%error, "old parts of the log could not be deleted");
    }
}

async fn try_collect(objects: &dyn Objects, own: Epoch, kept: Position) -> Result<()> {
    let old = old_objects(objects, own, kept).await?;
    // Whoever claims an epoch after this look reads snapshots that are newer than what was listed.
    if objects.read(&epoch_name(Epoch(own.0 + 1))).await?.is_some() {
        return Ok(());
    }
    for name in old {
        crash::before("log.collect");
        objects.delete(&name).await?;
        crash::after("log.collect");
    }
    Ok(())
}

async fn old_objects(objects: &dyn Objects, own: Epoch, kept: Position) -> Result<Vec<String>> {
    let mut snapshots = Vec::new();
    let mut oldest = kept.0;
    for epoch in epochs(objects, "ctl/snap").await?.filter(|e| *e <= kept.0) {
        let seqs = list(objects, &format!("ctl/snap/{:016x}", epoch.0)).await?;
        let before = snapshots.len();
        snapshots.extend(numbers(&seqs).filter(|seq| (epoch, *seq) < kept).map(|seq| snapshot_name(epoch, seq)));
        if snapshots.len() > before {
            oldest = oldest.min(epoch);
        }
    }
    let mut old = Vec::new();
    // Of epochs before the oldest snapshot only seals are left: there may be many.
    for epoch in epochs(objects, "ctl/log").await?.filter(|e| *e >= oldest && *e <= kept.0) {
        let seqs: Vec<u64> = numbers(&list(objects, &format!("ctl/log/{:016x}", epoch.0)).await?).collect();
        let seal = seqs.last().copied();
        let is_old = |seq: &u64| (epoch, *seq) < kept && (epoch == own || Some(*seq) != seal);
        old.extend(seqs.iter().copied().filter(is_old).map(|seq| batch_name(epoch, seq)));
    }
    old.extend(epochs(objects, "ctl/lease").await?.filter(|e| *e < own).map(lease_name));
    // Last: who is interrupted leaves them, and the next finds the rest by them.
    old.extend(snapshots);
    Ok(old)
}

async fn epochs(objects: &dyn Objects, folder: &str) -> Result<impl Iterator<Item = Epoch> + use<>> {
    let names = list(objects, folder).await?;
    Ok(numbers(&names).map(Epoch).collect::<Vec<_>>().into_iter())
}
