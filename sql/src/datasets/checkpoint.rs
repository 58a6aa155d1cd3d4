//! Checkpoints: what all entries of a log come to, so that readers need not read them. Written behind the answers of commits.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tidemill_core::Result;

use super::log::Log;

/// Tables that are remembered.
const MAX_TABLES: usize = 1024;
/// After which part of the interval another one is tried, where one failed.
const RETRY_PART: u64 = 10;

/// At which version of each table this process tried last.
static TRIED: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// A checkpoint behind a commit of ours, where one is due: also if the version at which it was due was somebody else's, or its
/// committer died.
pub(super) fn checkpoint(log: Log, version: u64, interval: u64) {
    if version < interval {
        return;
    }
    tokio::spawn(async move {
        if let Err(error) = written(&log, version, interval).await {
            tracing::warn!(%error, version, "a checkpoint could not be written: reading the table takes longer");
        }
    });
}

async fn written(log: &Log, version: u64, interval: u64) -> Result<()> {
    if !is_due(log.last_checkpoint().await?, version, interval) {
        return Ok(());
    }
    let may =
        may_try(&mut TRIED.lock().unwrap_or_else(PoisonError::into_inner), log.folder.location(), version, interval);
    if may { log.checkpoint(version).await } else { Ok(()) }
}

/// Whether an interval ended since the last one.
const fn is_due(last: Option<u64>, version: u64, interval: u64) -> bool {
    match last {
        Some(last) => last / interval < version / interval,
        None => true,
    }
}

/// Whether one may be begun, and that it is: not while another one is on its way, and not with each commit where they fail.
fn may_try(tried: &mut BTreeMap<String, u64>, location: &str, version: u64, interval: u64) -> bool {
    let pause = (interval / RETRY_PART).max(1);
    // A lower version is that of another table in the same place.
    if tried.get(location).is_some_and(|last| (*last..last.saturating_add(pause)).contains(&version)) {
        return false;
    }
    if tried.len() >= MAX_TABLES {
        tried.clear();
    }
    tried.insert(location.to_owned(), version);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_due_at_the_first_version_behind_each_interval() {
        for (last, version, expected) in [
            (None, 100, true),
            (None, 101, true),
            (Some(0), 99, false),
            (Some(100), 199, false),
            (Some(100), 200, true),
            (Some(100), 201, true),
            (Some(201), 299, false),
            (Some(201), 300, true),
            (Some(300), 250, false),
        ] {
            assert_eq!(is_due(last, version, 100), expected, "{last:?} {version}");
        }
    }

    #[test]
    fn where_they_fail_not_every_commit_tries_again() {
        let mut tried = BTreeMap::new();
        let mut may = |location: &str, version| may_try(&mut tried, location, version, 100);
        let begun: Vec<u64> = (100..125).filter(|version| may("a", *version)).collect();
        assert_eq!(begun, [100, 110, 120]);
        assert!(may("b", 121) && may("a", 7) && !may("a", 7));
    }
}
