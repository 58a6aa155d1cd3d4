//! `COPY … TO`: one file, which appears whole; or a directory of files, of which `_SUCCESS` comes last. Rule 14.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::datasource::sink::DataSinkExec;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::dml::CopyTo;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use tidemill_core::{Attempt, Error, Result, RunId};
use tidemill_engine::crash;
use tidemill_engine::error::{from_datafusion, object_store_error};
use tidemill_engine::plan::{SinkTarget, StageSink, encode, extension_of, stage};
use tidemill_engine::planner::{Commit, Pass, Plan, StagedPlan};
use tidemill_engine::runtime::register_stores;
use tidemill_engine::secrets::check_location;
use url::Url;

use super::finish::FinishSpec;
use super::{Planning, query, to_write};
use crate::datasets::{check_outside, input_versions};

/// The file that says that a directory is complete.
const SUCCESS: &str = "_SUCCESS";
/// The option that says whether one file is written, whatever the location looks like.
const SINGLE_FILE: &str = "single_file_output";

pub(super) async fn copy_to(planning: &Planning<'_>, mut copy: CopyTo) -> Result<Plan> {
    check_location(&copy.output_url)?;
    copy.output_url = to_write(&copy.output_url, planning.settings.directory.as_deref())?;
    if !copy.partition_by.is_empty() {
        return Err(Error::invalid("COPY … PARTITIONED BY is not built yet: write one directory per value"));
    }
    let single = match copy.options.get(SINGLE_FILE).map(String::as_str) {
        Some("true") => true,
        Some("false") => false,
        // DataFusion knows what else it may be, and refuses the rest.
        _ => Path::new(&copy.output_url).extension().is_some() && !copy.output_url.ends_with('/'),
    };
    if single {
        copy.output_url.truncate(copy.output_url.trim_end_matches('/').len());
    }
    if !single && !copy.output_url.ends_with('/') {
        copy.output_url.push('/');
    }
    planning.files.check(&copy.output_url)?;
    check_outside(&copy.output_url, &planning.context.runtime_env()).await?;
    let extension = copy.file_type.get_ext();
    let url = ListingTableUrl::parse(&copy.output_url).map_err(|e| from_datafusion(&e))?;
    let mut target = Target { url: url.as_str().to_owned(), single, extension, is_new: false };
    // What cannot be opened is said now, and not when all rows are there.
    target.location(&planning.context.runtime_env())?;
    if !single {
        target.directory(&planning.request.run, &planning.context.runtime_env())?.check_free(&copy.output_url).await?;
        target.is_new = target.on_disk().is_some_and(|folder| !folder.exists());
    }
    let inputs = input_versions(&copy.input)?;
    let physical = query::physical(planning, &LogicalPlan::Copy(copy)).await?;
    let Some(sink) = physical.downcast_ref::<DataSinkExec>() else {
        return Err(Error::invalid("this format cannot be written: use PARQUET, CSV or JSON"));
    };
    if let Some(extension) = extension_of(sink.sink()) {
        target.extension = extension;
    }
    let input = if single { Arc::clone(sink.input()) } else { divided(sink.input()) };
    let staged = stage(input, &planning.context).await.map_err(|e| from_datafusion(&e))?;
    let exchange = planning.settings.exchange;
    let sink = StageSink { exec: sink, single_file: single };
    let encoded =
        encode(&staged, Some(&sink), &planning.context.task_ctx(), exchange).map_err(|e| from_datafusion(&e))?;
    let (graph, blobs, session) = (encoded.graph, encoded.blobs, encoded.session);
    let schema = physical.schema();
    let finish = FinishSpec::Copy(target).encode()?;
    let (effects, keep) = (true, true);
    Ok(Plan::Stages(StagedPlan { graph, blobs, session, schema, finish, effects, keep, inputs }))
}

/// Where a statement writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Target {
    /// The file or directory.
    url: String,
    /// Whether it is a file.
    single: bool,
    /// How the files of a directory end.
    extension: String,
    /// Whether the directory was not there before: then it goes with what a failed run wrote. Earlier versions did not know.
    #[serde(default)]
    is_new: bool,
}

impl Target {
    /// What publishes the files that a run wrote there.
    pub(super) fn commit(&self, run: &RunId, runtime: &RuntimeEnv) -> Result<Box<dyn Commit>> {
        if self.single {
            let (store, path) = self.location(runtime)?;
            return Ok(Box::new(SingleFile { store, path, run: run.clone() }));
        }
        Ok(Box::new(self.directory(run, runtime)?))
    }

    fn directory(&self, run: &RunId, runtime: &RuntimeEnv) -> Result<Directory> {
        let (store, path) = self.location(runtime)?;
        let made = self.on_disk().filter(|_| self.is_new);
        Ok(Directory { store, path, run: run.clone(), extension: self.extension.clone(), made })
    }

    /// Its path, where it is on a disk: other stores have no folders.
    fn on_disk(&self) -> Option<PathBuf> {
        Url::parse(&self.url).ok()?.to_file_path().ok()
    }

    fn location(&self, runtime: &RuntimeEnv) -> Result<(Arc<dyn ObjectStore>, object_store::path::Path)> {
        let url = ListingTableUrl::parse(&self.url).map_err(|e| from_datafusion(&e))?;
        if let Ok(parsed) = Url::parse(url.object_store().as_str()) {
            register_stores(runtime, [&parsed])?;
        }
        let store = runtime.object_store(&url).map_err(|e| from_datafusion(&e))?;
        Ok((store, url.prefix().clone()))
    }
}

/// Each task writes a file of its own, unless the rows have an order.
fn divided(input: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    match input.downcast_ref::<CoalescePartitionsExec>() {
        Some(merge) if merge.fetch().is_none() => Arc::clone(merge.input()),
        _ => Arc::clone(input),
    }
}

/// One file, written beside the one that the statement names. It takes that name when it is complete: whoever reads
/// meanwhile, or after a failure, finds what was there before.
struct SingleFile {
    store: Arc<dyn ObjectStore>,
    path: object_store::path::Path,
    run: RunId,
}

impl SingleFile {
    fn folder(&self) -> object_store::path::Path {
        let parts: Vec<_> = self.path.parts().collect();
        parts.iter().take(parts.len().saturating_sub(1)).cloned().collect()
    }

    fn file(&self) -> &str {
        self.path.filename().unwrap_or_default()
    }

    /// Removes what attempts of this run wrote and nobody published.
    async fn remove_leftovers(&self) -> Result<()> {
        let ours = format!(".{}.{}-", self.file(), self.run);
        let folder = self.folder();
        let listed = self.store.list_with_delimiter(Some(&folder)).await.map_err(|e| object_store_error(&e))?;
        for file in listed.objects {
            if file.location.filename().is_some_and(|name| name.starts_with(&ours)) {
                delete(self.store.as_ref(), &file.location).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Commit for SingleFile {
    async fn commit(&self, winners: &[Attempt], again: bool) -> Result<Option<u64>> {
        let [winner] = winners else { return Err(Error::internal("rule 14: one file was written by several tasks")) };
        let SinkTarget::Hidden(name) = SinkTarget::hidden(self.file(), &self.run, *winner) else {
            return Err(Error::internal("rule 14: a single file has another name"));
        };
        // A name is joined as it is: in a part of a path, some signs would be encoded.
        let written = object_store::path::Path::parse(format!("{}/{name}", self.folder()))
            .map_err(|e| Error::invalid(format!("{name} is no name of a file: {e}")))?;
        match self.store.rename(&written, &self.path).await {
            // It has the name already: an earlier commit came so far and could not say so.
            Err(object_store::Error::NotFound { .. }) if again && self.store.head(&self.path).await.is_ok() => {}
            renamed => renamed.map_err(|e| object_store_error(&e))?,
        }
        // It is published: what else lies there can wait for the next statement.
        if let Err(error) = self.remove_leftovers().await {
            tracing::warn!(%error, run = %self.run, "files of losing attempts could not be removed");
        }
        Ok(None)
    }

    async fn abort(&self, _: Pass) {
        if let Err(error) = self.remove_leftovers().await {
            tracing::warn!(%error, run = %self.run, "files of a failed COPY could not be removed");
        }
    }
}

/// Deletes a file; one that is gone already is no error.
async fn delete(store: &dyn ObjectStore, path: &object_store::path::Path) -> Result<()> {
    match store.delete(path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(object_store_error(&error)),
    }
}

/// Files with attempt-unique names, losers' removed, then `_SUCCESS`.
struct Directory {
    store: Arc<dyn ObjectStore>,
    path: object_store::path::Path,
    run: RunId,
    extension: String,
    /// The folder on a disk that comes with the files.
    made: Option<PathBuf>,
}

impl Directory {
    async fn check_free(&self, shown: &str) -> Result<()> {
        match self.store.head(&self.path.clone().join(SUCCESS)).await {
            Ok(_) => Err(Error::conflict(format!(
                "{shown} holds a complete result already ({SUCCESS} is there): write to another directory or remove it"
            ))),
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(object_store_error(&error)),
        }
    }

    fn names(&self, winners: &[Attempt]) -> Vec<String> {
        let part =
            |(task, attempt): (u32, &Attempt)| match SinkTarget::part(&self.run, task, *attempt, self.extension()) {
                SinkTarget::Part(name) => name,
                SinkTarget::Hidden(_) => String::new(),
            };
        (0u32..).zip(winners).map(part).collect()
    }

    fn extension(&self) -> &str {
        self.extension.trim_start_matches('.')
    }

    /// Removes this run's files but for `kept`. The listing finds only leftovers: it decides nothing.
    async fn remove_others(&self, kept: &[String]) -> Result<()> {
        let of_run = format!("-{}-", self.run);
        // They lie in the folder itself: what is below it may be of any size.
        let listed = self.store.list_with_delimiter(Some(&self.path)).await.map_err(|e| object_store_error(&e))?;
        for file in listed.objects {
            let name = file.location.filename().unwrap_or_default();
            if name.contains(&of_run) && !kept.iter().any(|k| k == name) {
                delete(self.store.as_ref(), &file.location).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Commit for Directory {
    async fn commit(&self, winners: &[Attempt], _: bool) -> Result<Option<u64>> {
        let names = self.names(winners);
        crash::before("publish.files");
        self.remove_others(&names).await?;
        crash::after("publish.files");
        // Never a part of a result: whoever took a file away, the directory is not complete.
        for name in &names {
            let part = self.path.clone().join(name.as_str());
            self.store.head(&part).await.map_err(|e| {
                let error = object_store_error(&e);
                Error {
                    message: format!("{name} was written and cannot be found to be published: {}", error.message),
                    ..error
                }
            })?;
        }
        // Empty, as readers expect: DataFusion and others skip empty files in a folder.
        let success = self.path.clone().join(SUCCESS);
        crash::before("publish.marker");
        self.store.put(&success, PutPayload::new()).await.map_err(|e| object_store_error(&e))?;
        crash::after("publish.marker");
        Ok(None)
    }

    async fn abort(&self, _: Pass) {
        if let Err(error) = self.remove_others(&[]).await {
            tracing::warn!(%error, run = %self.run, "files of a failed COPY could not be removed");
        }
        if let Some(made) = &self.made {
            // One that is not empty stays.
            let _ = std::fs::remove_dir(made);
        }
    }
}
