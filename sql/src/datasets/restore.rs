//! `RESTORE`: a new version with the files of an old one.

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

/// `RESTORE`: a new version with the files of an old one.
pub(super) async fn restore(planning: &Planning<'_>, name: &TableReference, at: AsOf) -> Result<Plan> {
    let table = dataset(planning, name, "RESTORE").await?;
    let profile = &table.version.profile;
    profile.check_write(table.folder.location())?;
    profile.check_removal(table.folder.location())?;
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
    let new = &table.version;
    if old.profile != new.profile {
        return Err(Error::invalid(format!(
            "version {} had other columns or properties than version {}: read it with VERSION AS OF and INSERT OVERWRITE",
            old.number, new.number
        )));
    }
    let gone: Vec<&ActiveFile> = new.files.values().filter(|file| !old.files.contains_key(&file.raw)).collect();
    let back: Vec<&ActiveFile> = old.files.values().filter(|file| !new.files.contains_key(&file.raw)).collect();
    let Publication { application, version, mut info, checks } = Publication::of_run(&run);
    if log.application(new.number, &application).await?.is_some() {
        // A coordinator did it and could not say so: what was written since stays.
        return Ok(vec![new.number, old.number, 0, 0]);
    }
    // From here until they are a version's again, nobody deletes them.
    let _alone = datasets.tend(table.folder.location()).await?;
    check_there(&table, &back).await?;
    info.insert("restored".to_owned(), old.number.to_string());
    let target = Target {
        location: table.folder.location().to_owned(),
        writer: writer(&run),
        base: Some(new.number),
        made: None,
        mode: Mode::Overwrite,
        application,
        version,
        info,
        operation: "RESTORE".to_owned(),
        checkpoint_interval: new.profile.checkpoint_interval(),
        entry: None,
        checks,
    };
    let mut entry = Entry::new(&target, &run, now());
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
