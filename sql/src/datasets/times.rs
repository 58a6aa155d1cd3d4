//! Which version of a dataset was the newest at a time.
//!
//! Entries may tell their own times (`inCommitTimestamp`), which rise; from the first one that does, these count. Before it, and where
//! none does, it is the time of the entry's object, or of an earlier one that is later.

use std::time::SystemTime;

use object_store::ObjectMeta;
use tidemill_core::{Error, Result};

use super::as_of::millis;
use super::log::Log;
use super::version::actions;

/// The number of the version that was the newest then.
pub(super) async fn newest_at(log: &Log, time: &str) -> Result<u64> {
    let millis = millis(time)?;
    let listed = log.listed().await?;
    let versions: Vec<u64> = listed.iter().map(|(version, _)| *version).collect();
    let (Some(oldest), Some(newest)) = (versions.first(), versions.last()) else {
        return Err(Error::not_found(format!("there is no table at {}", log.folder.location())));
    };
    let mut untold = versions.len();
    if own_time(log, *newest).await?.is_some() {
        untold = count_before(log, &versions, |own| own.is_none()).await?;
        let telling = versions.get(untold..).unwrap_or_default();
        let made = count_before(log, telling, |own| own.is_some_and(|own| own <= millis)).await?;
        if let Some(version) = made.checked_sub(1).and_then(|last| telling.get(last)) {
            return Ok(*version);
        }
    }
    let mut latest = i64::MIN;
    let made = listed.iter().take(untold).take_while(|(_, object)| {
        latest = latest.max(modified(object));
        latest <= millis
    });
    made.last().map(|(version, _)| *version).ok_or_else(|| {
        Error::not_found(format!(
            "{} had no version at {time} yet, or its log was cleaned up: the oldest is {oldest}, see DESCRIBE HISTORY",
            log.folder.location()
        ))
    })
}

/// How many versions come before the first whose own time does not fit. Few entries are read.
async fn count_before(log: &Log, versions: &[u64], fits: impl Fn(Option<i64>) -> bool) -> Result<usize> {
    let (mut low, mut high) = (0, versions.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let Some(version) = versions.get(middle) else { break };
        if fits(own_time(log, *version).await?) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// What an entry says of when it was made; it says so in its first line.
async fn own_time(log: &Log, version: u64) -> Result<Option<i64>> {
    let Some(entry) = log.entry(version).await? else { return Ok(None) };
    let first = entry.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let lines = actions(first)?.unwrap_or_default();
    let info = lines.into_iter().find_map(|line| line.info);
    Ok(info.and_then(|info| info.get("inCommitTimestamp")?.as_i64()))
}

fn modified(object: &ObjectMeta) -> i64 {
    let since = SystemTime::from(object.last_modified).duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}
