//! Whether it is this process's turn to lead. Decides when an epoch is claimed; whether the claim succeeds, the store
//! decides.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidemill_core::{Epoch, Result};
use tidemill_engine::crash;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Leader, News, Objects, epoch_name, fenced, newest_leader};

/// How often a leader says that it lives.
const RENEW: Duration = Duration::from_millis(1_500);
/// A lease that did not change for this long, by the watcher's own clock, is over.
const EXPIRES: Duration = Duration::from_secs(5);
/// How often a standby looks.
const LOOK: Duration = Duration::from_millis(500);
/// How long a leader's port may take to accept or refuse.
const DIAL: Duration = Duration::from_secs(2);

pub(super) fn lease_name(epoch: Epoch) -> String {
    format!("ctl/lease/{:016x}", epoch.0)
}

/// Waits until nobody leads: the newest leader's port refuses or belongs to `own`, or its lease stands still. Returns the
/// newest epoch. `standing_by` is told of a leader that lives, once for each.
///
/// # Errors
/// The store does not answer.
pub async fn wait_for_turn(
    objects: &dyn Objects,
    own: &Leader,
    mut standing_by: impl FnMut(&Leader),
) -> Result<Option<Epoch>> {
    let mut told = None;
    let mut seen: Option<(Epoch, Option<Bytes>, Instant)> = None;
    loop {
        let Some((epoch, leader)) = newest_leader(objects).await? else { return Ok(None) };
        let is_near = leader.network == own.network;
        if is_near && (leader.address == own.address || refuses(&leader.address).await) {
            return Ok(Some(epoch));
        }
        let lease = super::read(objects, &lease_name(epoch)).await?;
        match &seen {
            Some((e, l, since)) if *e == epoch && *l == lease => {
                if since.elapsed() > EXPIRES {
                    return Ok(Some(epoch));
                }
            }
            _ => seen = Some((epoch, lease, Instant::now())),
        }
        if told != Some(epoch) {
            told = Some(epoch);
            standing_by(&leader);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether nobody can be listening there: a process that is gone refuses, one that is stopped does not.
async fn refuses(address: &str) -> bool {
    let dialled = tokio::time::timeout(DIAL, TcpStream::connect(address)).await;
    matches!(dialled, Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// The network of this process: the machine's boot and its network namespace.
pub(super) fn network() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/net").unwrap_or_default();
    format!("{} {}", boot.trim(), namespace.display())
}

/// Renews the lease of an epoch until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease(tokio::task::AbortHandle);

impl Lease {
    /// `news` tells of a later epoch: a leader that has nothing to append would not find out. Without it nobody leads yet.
    pub(super) fn renew(
        objects: Arc<dyn Objects>,
        epoch: Epoch,
        leader: &Leader,
        news: Option<mpsc::Sender<News>>,
    ) -> Self {
        let leader = leader.clone();
        let renewing = tokio::spawn(async move {
            let mut beat = tokio::time::interval(RENEW);
            for count in 0u64.. {
                beat.tick().await;
                if let Some(news) = &news
                    && let Ok(Some(_)) = objects.read(&epoch_name(Epoch(epoch.0 + 1))).await
                {
                    // A leader that has ended needs no news.
                    let _ = news.send(News::Deposed(fenced(epoch, &leader, "the log"))).await;
                    return;
                }
                let body = Bytes::from(format!("{} {count}", leader.boot));
                crash::before("lease.renew");
                if let Err(error) = objects.overwrite(&lease_name(epoch), body).await {
                    // A standby that takes over for that is right to: this leader cannot append either.
                    tracing::warn!(%error, "the lease could not be renewed");
                }
                crash::after("lease.renew");
            }
        });
        Self(renewing.abort_handle())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.abort();
    }
}
