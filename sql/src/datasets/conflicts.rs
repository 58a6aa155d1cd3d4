//! What another writer's version means for one that was planned before it.
//!
//! | ours | is refused where theirs |
//! |---|---|
//! | any | changes columns, properties or the protocol |
//! | append | – |
//! | overwrite | adds or removes a file |
//! | replace partitions | adds or removes a file of one of them |
//! | replace an interval | adds or removes a file that may have rows of it |
//! | rewrite | removes one of the files |

use tidemill_core::{Error, Result};
use tidemill_engine::dataset::PartitionValues;

use super::target::{Mode, Place, Target, is_of, place_of};
use super::version::{Action, actions};

/// What an entry is to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is our own commit.
    Ours,
    Harmless,
    /// Why ours is refused.
    Conflict(String),
}

/// Looks at an entry that came after the version that ours was planned on.
pub(super) fn look(entry: &[u8], target: &Target) -> Result<Seen> {
    let Some(actions) = actions(entry)? else {
        return Err(Error::invalid(format!(
            "an entry of the log of {} cannot be read: it is damaged",
            target.location
        )));
    };
    let is_ours = |action: &Action| {
        let txn = action.txn.as_ref();
        txn.is_some_and(|txn| txn.app_id == target.application && txn.version >= target.version)
    };
    if actions.iter().any(is_ours) {
        return Ok(Seen::Ours);
    }
    if target.base.is_none() {
        return Ok(Seen::Conflict("made a table there".to_owned()));
    }
    for action in &actions {
        if action.metadata.is_some() || action.protocol.is_some() {
            return Ok(Seen::Conflict("changed the table's columns or properties".to_owned()));
        }
        let (path, partition, stats, what) = match (&action.add, &action.remove) {
            (Some(add), _) => (&add.path, Some(&add.partition_values), add.stats.as_deref(), "added"),
            (None, Some(remove)) => {
                (&remove.path, remove.partition_values.as_ref(), remove.stats.as_deref(), "removed")
            }
            (None, None) => continue,
        };
        let touches = match &target.mode {
            Mode::Append => false,
            Mode::Overwrite => true,
            Mode::Rewrite(files) => what == "removed" && files.contains(path),
            Mode::Partitions(of) => partition.is_none_or(|partition| of.iter().any(|of| is_of(partition, of))),
            Mode::Interval { column, .. } => touches_interval(target, column, partition, stats)?,
        };
        if touches {
            return Ok(Seen::Conflict(format!("{what} {path}, which this one replaces or would have replaced")));
        }
    }
    Ok(Seen::Harmless)
}

fn touches_interval(
    target: &Target,
    column: &str,
    partition: Option<&PartitionValues>,
    stats: Option<&str>,
) -> Result<bool> {
    let Mode::Interval { from, to, .. } = &target.mode else { return Ok(false) };
    Ok(place_of(partition, stats, column, &(from.value()?, to.value()?)) != Place::Outside)
}
