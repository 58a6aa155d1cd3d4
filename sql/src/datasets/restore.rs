//! `RESTORE`: a new version with the columns, properties and files of an old one.
//!
//! ```text
//! version 3: columns a      version 7: columns a, b      RESTORE TO VERSION AS OF 3
//!   files 1, 2                files 1, 4                   metaData of 3, remove 4, add 2: columns a, files 1, 2
//! ```
//!
//! Invariant: the protocol is never lowered; a version that asks for what is not written here is refused, and nothing is changed.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::TableReference;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tidemill_core::{Error, Result, RunId};
use tidemill_engine::error::object_store_error;
use tidemill_engine::planner::Plan;

use super::Publication;
use super::as_of::AsOf;
use super::checkpoint::checkpoint;
use super::commit::{MakeEntry, publish};
use super::entry::{Entry, now};
use super::log::Log;
use super::pins::Datasets;
use super::table::DatasetTable;
use super::target::{Mode, Target, writer};
use super::upkeep::{AT_ONCE, one_row};
use super::version::{ActiveFile, Version};
use super::write::dataset;
use crate::session::Planning;

/// What RESTORE answers.
pub(super) const RESTORED: [&str; 4] = ["version", "restored", "files_added", "files_removed"];

struct Ready(Entry);

#[async_trait]
impl MakeEntry for Ready {
    async fn entry(&self, _: &Log) -> Result<Option<Entry>> {
        Ok(Some(self.0.clone()))
    }
}

/// `RESTORE`: a new version that is like an old one.
pub(super) async fn restore(planning: &Planning<'_>, name: &TableReference, at: AsOf) -> Result<Plan> {
    let table = dataset(planning, name, "RESTORE").await?;
    table.version.profile.check_write(table.folder.location())?;
    if at == AsOf::Newest {
        return Err(Error::invalid("RESTORE needs a version: write TO VERSION AS OF n"));
    }
    // It is noted that the run reads it: a VACUUM that begins now keeps its files.
    let old = planning.settings.pins.version(&table.folder, &at).await?.ok_or_else(|| table.gone())?;
    let (datasets, run) = (Arc::clone(planning.settings.pins.datasets()), planning.request.run.clone());
    one_row(&RESTORED, async move { restored(table, old, &datasets, run).await })
}

async fn restored(table: DatasetTable, old: Version, datasets: &Arc<Datasets>, run: RunId) -> Result<Vec<u64>> {
    let log = Log::new(table.folder.clone());
    let (new, location) = (&table.version, table.folder.location());
    let gone: Vec<&ActiveFile> = new.files.values().filter(|file| !old.files.contains_key(&file.raw)).collect();
    let back: Vec<&ActiveFile> = old.files.values().filter(|file| !new.files.contains_key(&file.raw)).collect();
    let Publication { application, version, mut info, checks } = Publication::of_run(&run);
    if log.application(new.number, &application).await?.is_some() {
        // A coordinator did it and could not say so: what was written since stays.
        return Ok(vec![new.number, old.number, 0, 0]);
    }
    new.profile.check_removal(location)?;
    // What is written then must be what we write.
    let profile = new.profile.restored(&old.profile);
    let place = format!("{location}, at version {},", old.number);
    old.profile.check_write(&place)?;
    profile.check_write(&place)?;
    // From here until they are a version's again, nobody deletes them.
    let _alone = datasets.tend(location).await?;
    check_there(&table, &back).await?;
    info.insert("restored".to_owned(), old.number.to_string());
    let target = Target {
        location: location.to_owned(),
        writer: writer(&run),
        base: Some(new.number),
        made: None,
        mode: Mode::Overwrite,
        application,
        version,
        info,
        operation: "RESTORE".to_owned(),
        checkpoint_interval: profile.checkpoint_interval(),
        entry: None,
        checks,
    };
    let mut entry = Entry::new(&target, &run, now());
    if profile.protocol != new.profile.protocol {
        entry.protocol(&profile.protocol);
    }
    if profile.metadata != new.profile.metadata {
        entry.metadata(&profile.metadata);
    }
    gone.iter().for_each(|file| entry.remove(file));
    back.iter().for_each(|file| entry.add_again(file));
    let made = publish(&log, &target, &Ready(entry)).await?.version()?;
    checkpoint(log, made, target.checkpoint_interval);
    Ok(vec![made, old.number, back.len() as u64, gone.len() as u64])
}

/// A version whose files were deleted is not made again.
async fn check_there(table: &DatasetTable, files: &[&ActiveFile]) -> Result<()> {
    let look = |path: Path| async move {
        match table.folder.store.head(&path).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::NotFound { .. }) => {
                Err(Error::not_found(format!("the version cannot be restored: VACUUM deleted {path}")))
            }
            Err(error) => Err(object_store_error(&error)),
        }
    };
    let paths = files.iter().map(|file| table.folder.path(file.path()?.as_ref())).collect::<Result<Vec<Path>>>()?;
    futures::stream::iter(paths).map(look).buffer_unordered(AT_ONCE).try_collect().await
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use datafusion::execution::runtime_env::RuntimeEnv;
    use serde_json::{Value, json};
    use tidemill_core::ErrorKind;

    use super::super::folder::Folder;
    use super::super::pins::numbered;
    use super::super::version::actions;
    use super::*;

    /// The line of a table's columns.
    fn columns(names: &[&str]) -> Value {
        let field = |name: &&str| json!({ "name": name, "type": "long", "nullable": true, "metadata": {} });
        let fields: Vec<Value> = names.iter().map(field).collect();
        let columns = json!({ "type": "struct", "fields": fields }).to_string();
        json!({ "metaData": {
            "id": "x", "name": null, "format": { "provider": "parquet", "options": {} }, "schemaString": columns,
            "partitionColumns": [], "configuration": {}, "createdTime": 0,
        } })
    }

    async fn written(log: &Log, version: u64, lines: &[Value]) -> Result<()> {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        log.create(version, Bytes::from(text)).await.map(|_| ())
    }

    /// The metadata and the protocol of an entry.
    async fn said(log: &Log, version: u64) -> Result<(Option<Value>, Option<Value>)> {
        let entry = log.entry(version).await?.unwrap_or_default();
        let actions = actions(&entry)?.unwrap_or_default();
        let metadata = actions.iter().find_map(|action| action.metadata.clone());
        Ok((metadata, actions.into_iter().find_map(|action| action.protocol)))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_another_writer_does_meanwhile_is_not_undone_and_a_run_restores_once()
    -> std::result::Result<(), Box<dyn std::error::Error>> {
        let root = tempfile::tempdir()?;
        let folder = Folder::open(&root.path().join("t").display().to_string(), &RuntimeEnv::default())?;
        let (log, datasets) = (Log::new(folder.clone()), Arc::new(Datasets::default()));
        let protocol = json!({ "protocol": { "minReaderVersion": 1, "minWriterVersion": 2 } });
        written(&log, 0, &[protocol, columns(&["a"])]).await?;
        written(&log, 1, &[columns(&["a", "b"])]).await?;
        let old = numbered(&log, 0).await?;
        let table = |version: Version| DatasetTable { name: "public.t".to_owned(), folder: folder.clone(), version };
        let restored = |version: Version, run: &str| {
            let (table, old, datasets, run) = (table(version), old.clone(), &datasets, RunId(run.to_owned()));
            async move { restored(table, old, datasets, run).await }
        };
        let first = numbered(&log, 1).await?;
        // Another column comes after it was planned.
        written(&log, 2, &[columns(&["a", "b", "c"])]).await?;
        let refused = restored(first, "R").await;
        let is_told =
            |error: &Error| error.kind == ErrorKind::Conflict && error.message.contains("columns or properties");
        assert!(refused.as_ref().is_err_and(is_told), "{refused:?}");
        assert_eq!(log.entry(3).await?, None);
        let second = numbered(&log, 2).await?;
        assert_eq!(restored(second.clone(), "S").await?, [3, 0, 0, 0]);
        let (metadata, protocol) = said(&log, 3).await?;
        let expected = old.profile.metadata.clone();
        assert_eq!((metadata.as_ref(), protocol), (Some(&expected), None));
        assert_eq!(expected.get("name"), None, "a name that is null is none");
        // Whoever leads later does not do it again, from wherever it begins.
        for version in [second, numbered(&log, 3).await?] {
            assert_eq!(restored(version, "S").await?, [3, 0, 0, 0]);
        }
        assert_eq!(log.entry(4).await?, None);
        Ok(())
    }
}
