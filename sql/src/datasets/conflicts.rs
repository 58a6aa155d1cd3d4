//! What another writer's version means for one that was planned before it.
//!
//! | ours | is refused where theirs |
//! |---|---|
//! | any | changes columns, properties or the protocol |
//! | append | – |
//! | overwrite | adds or removes a file |
//! | replace partitions | adds or removes a file of one of them |
//! | replace an interval | adds or removes a file that may have rows of it, or removes one of those that are written again |
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
            // What cannot be read may be of them.
            Mode::Partitions(of) => {
                partition.is_none_or(|partition| of.iter().any(|of| is_of(partition, of).unwrap_or(true)))
            }
            Mode::Interval { column, crossing, .. } => {
                crossing.contains(path) || touches_interval(target, column, partition, stats)?
            }
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use datafusion::common::ScalarValue;

    use super::super::target::Scalar;
    use super::*;

    fn target(mode: Mode) -> Target {
        Target {
            location: "file:///t/".to_owned(),
            writer: "R-1".to_owned(),
            base: Some(1),
            made: None,
            mode,
            application: "tidemill/R".to_owned(),
            version: 2,
            info: BTreeMap::new(),
            operation: "WRITE".to_owned(),
            checkpoint_interval: 100,
            entry: None,
            checks: Default::default(),
        }
    }

    fn conflicts(entry: &str, mode: &Mode) -> Result<bool> {
        Ok(matches!(look(entry.as_bytes(), &target(mode.clone()))?, Seen::Conflict(_)))
    }

    #[test]
    fn what_touches_the_same_rows_is_refused_and_nothing_else() -> Result<()> {
        let date = |day| Scalar::new(&ScalarValue::Date32(Some(day)));
        let (from, to) = (date(20_454)?, date(20_455)?);
        let interval = Mode::Interval { column: "day".to_owned(), from, to, crossing: ["c".to_owned()].into() };
        let by_column = Mode::Interval {
            column: "v".to_owned(),
            from: Scalar::new(&ScalarValue::Int64(Some(10)))?,
            to: Scalar::new(&ScalarValue::Int64(Some(20)))?,
            crossing: BTreeSet::new(),
        };
        let modes = [
            Mode::Append,
            Mode::Overwrite,
            Mode::Partitions(vec![BTreeMap::from([("day".to_owned(), date(20_454)?)])]),
            interval,
            by_column,
            Mode::Rewrite(["a".to_owned()].into()),
        ];
        let stats = |min: i64, max: i64| {
            format!(
                r#""{{\"numRecords\":1,\"minValues\":{{\"v\":{min}}},\"maxValues\":{{\"v\":{max}}},\"nullCount\":{{\"v\":0}}}}""#
            )
        };
        let add = |day: &str, stats: &str| {
            format!(
                r#"{{"add":{{"path":"b","partitionValues":{{"day":"{day}"}},"size":1,"dataChange":true,"stats":{stats}}}}}"#
            )
        };
        let remove = r#"{"remove":{"path":"a","dataChange":false}}"#.to_owned();
        for (entry, expected) in [
            (add("2026-01-01", &stats(1, 2)), [false, true, true, true, false, false]),
            (add("2026-01-02", &stats(15, 25)), [false, true, false, false, true, false]),
            (add("2026-01-02", "null"), [false, true, false, false, true, false]),
            (add("2026-01-02", &stats(20, 25)), [false, true, false, false, false, false]),
            (remove, [false, true, true, true, true, true]),
            (
                add("2026-01-02", &stats(20, 25)).replace(r#""path":"b""#, r#""path":"c""#),
                [false, true, false, true, false, false],
            ),
            (r#"{"metaData":{"id":"x"}}"#.to_owned(), [true; 6]),
            (r#"{"protocol":{"minReaderVersion":3}}"#.to_owned(), [true; 6]),
            (r#"{"commitInfo":{"operation":"X"}}"#.to_owned(), [false; 6]),
            (r#"{"txn":{"appId":"tidemill/R","version":1}}"#.to_owned(), [false; 6]),
        ] {
            for (mode, expected) in modes.iter().zip(expected) {
                assert_eq!(conflicts(&entry, mode)?, expected, "{entry} {mode:?}");
            }
        }
        let ours = r#"{"add":{"path":"b"}}
            {"txn":{"appId":"tidemill/R","version":3}}"#;
        assert_eq!(look(ours.as_bytes(), &target(Mode::Overwrite))?, Seen::Ours);
        assert!(look(b"{\"add\":", &target(Mode::Append)).is_err());
        let made = Target { base: None, ..target(Mode::Append) };
        assert!(matches!(look(b"{}", &made)?, Seen::Conflict(_)));
        Ok(())
    }
}
