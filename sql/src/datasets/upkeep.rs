//! `VACUUM`, and what `RESTORE` has in common with it.
//!
//! Invariant: a file is deleted only if no version of the retention and no live run needs it, and while none comes back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::TableReference;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use object_store::path::Path;
use tidemill_core::record::{Run, State};
use tidemill_core::{Error, Result, RunId};
use tidemill_engine::dataset::MANIFESTS;
use tidemill_engine::error::{object_store_error, to_datafusion};
use tidemill_engine::planner::{Plan, StateReader};

use super::log::{LOG, Log};
use super::pins::{Datasets, numbered};
use super::profile::Profile;
use super::table::DatasetTable;
use super::version::{Action, ActiveFile, actions};
use super::write::dataset;
use crate::session::Planning;

/// How long what is not needed any more is kept where neither statement nor table say.
const RETENTION: Duration = Duration::from_secs(168 * 3600);
/// What VACUUM answers.
pub(super) const VACUUMED: [&str; 2] = ["files", "bytes"];
/// Requests at once.
pub(super) const AT_ONCE: usize = 16;

/// `VACUUM`: deletes what no version of the retention needs, and no live run.
pub(super) async fn vacuum(
    planning: &Planning<'_>,
    name: &TableReference,
    hours: Option<u64>,
    dry_run: bool,
) -> Result<Plan> {
    let table = dataset(planning, name, "VACUUM").await?;
    // What its features would need is not known otherwise.
    table.version.profile.check_write(table.folder.location())?;
    let told = match hours {
        Some(hours) => Some(Duration::from_secs(hours.saturating_mul(3600))),
        None => table.version.profile.retention()?,
    };
    let retention = told.unwrap_or(RETENTION);
    let (state, datasets) = (Arc::clone(&planning.request.state), Arc::clone(planning.settings.pins.datasets()));
    let run = planning.request.run.clone();
    let work = Vacuum { table, retention, dry_run, state, datasets, run };
    one_row(&VACUUMED, async move { work.run().await })
}

struct Vacuum {
    table: DatasetTable,
    retention: Duration,
    dry_run: bool,
    state: Arc<dyn StateReader>,
    datasets: Arc<Datasets>,
    run: RunId,
}

impl Vacuum {
    async fn run(self) -> Result<Vec<u64>> {
        let cutoff = SystemTime::now().checked_sub(self.retention).unwrap_or(SystemTime::UNIX_EPOCH);
        let log = Log::new(self.table.folder.clone());
        let live = self.state.state().await?;
        let kept = self.kept(&log, cutoff, &live).await?;
        let mut old: Vec<ObjectMeta> = Vec::new();
        let mut listed = self.table.folder.store.list(Some(&self.table.folder.prefix));
        while let Some(file) = listed.try_next().await.map_err(|e| object_store_error(&e))? {
            self.check_alone(&file)?;
            if SystemTime::from(file.last_modified) < cutoff && self.is_needless(&file, &kept, &live) {
                old.push(file);
            }
        }
        if !self.dry_run {
            let folder = &self.table.folder;
            let _alone = self.datasets.tend(folder.location()).await?;
            let kept = self.kept_meanwhile(&log).await?;
            old.retain(|file| !kept.contains(&file.location));
            let paths: Vec<Path> = old.iter().map(|file| file.location.clone()).collect();
            futures::stream::iter(paths)
                .map(|path| async move { folder.delete(&path).await })
                .buffer_unordered(AT_ONCE)
                .try_collect::<()>()
                .await?;
        }
        Ok(vec![old.len() as u64, old.iter().map(|file| file.size).sum()])
    }

    /// The files of versions that came, and of versions that runs began to read, while the folder was listed.
    async fn kept_meanwhile(&self, log: &Log) -> Result<BTreeSet<Path>> {
        let mut kept = BTreeSet::new();
        let mut number = self.table.version.number + 1;
        while let Some(entry) = log.entry(number).await? {
            for line in lines_of(log, Some(&entry[..]))? {
                if let Some(protocol) = line.protocol {
                    // What its features would need is not known otherwise.
                    let known = Profile::clone(&self.table.version.profile);
                    Profile { protocol, ..known }.check_write(self.table.folder.location())?;
                }
                let files = line.add.map(ActiveFile::from).into_iter().chain(line.remove.map(ActiveFile::from));
                for file in files {
                    kept.insert(self.path(&file)?);
                }
            }
            number += 1;
        }
        let live = self.state.state().await?;
        self.keep_pinned(log, &live, &mut kept).await?;
        Ok(kept)
    }

    fn path(&self, file: &ActiveFile) -> Result<Path> {
        self.table.folder.path(file.path()?.as_ref())
    }

    async fn keep_pinned(&self, log: &Log, live: &State, kept: &mut BTreeSet<Path>) -> Result<()> {
        for version in self.pinned(live)? {
            for file in numbered(log, version).await?.files.values() {
                kept.insert(self.path(file)?);
            }
        }
        Ok(())
    }

    /// The files of all versions that are needed.
    async fn kept(&self, log: &Log, cutoff: SystemTime, live: &State) -> Result<BTreeSet<Path>> {
        let mut kept = BTreeSet::new();
        let mut keep = |file: &ActiveFile| -> Result<()> {
            kept.insert(self.path(file)?);
            Ok(())
        };
        self.table.version.files.values().try_for_each(&mut keep)?;
        let listed = log.listed().await?;
        let before = listed.iter().rev().find(|(_, object)| SystemTime::from(object.last_modified) <= cutoff);
        let since = match before.or_else(|| listed.first()) {
            Some((number, _)) => *number,
            None => 0,
        };
        let later = listed.iter().map(|(number, _)| *number).filter(|number| *number >= since).collect();
        for (number, entry) in log.entries(later).await? {
            // What was active at the beginning of the retention is active now, or was removed since.
            for line in lines_of(log, entry.as_deref())? {
                if let Some(add) = line.add {
                    keep(&ActiveFile::from(add))?;
                }
                if let Some(remove) = line.remove.filter(|_| number > since || before.is_none()) {
                    keep(&ActiveFile::from(remove))?;
                }
            }
        }
        self.keep_pinned(log, live, &mut kept).await?;
        Ok(kept)
    }

    /// The versions that live runs read: as they were planned here, and as the records of their plans say.
    fn pinned(&self, live: &State) -> Result<BTreeSet<u64>> {
        let location = self.table.folder.location();
        let mut pinned = BTreeSet::new();
        for run in live.live.iter().filter(|run| **run != self.run) {
            let known = live.runs.get(run);
            let (here, told) = (
                self.datasets.read_by(run, location),
                known.and_then(|known| read_as_told(known, &live.build, location)),
            );
            // One that is not planned reads the newest then.
            if here.is_none() && told.is_none() && known.is_some_and(|known| known.graph.is_some()) {
                return Err(Error::unavailable(format!(
                    "run {run} was planned by an earlier coordinator, and nobody knows whether it reads an old version of {location}: \
                     try again when it has ended, or end it with CANCEL RUN '{run}'"
                )));
            }
            pinned.extend(here.into_iter().chain(told).flatten());
        }
        Ok(pinned)
    }

    /// Another table inside of this one's folder would be taken for needless files.
    fn check_alone(&self, file: &ObjectMeta) -> Result<()> {
        let below = file.location.prefix_match(&self.table.folder.prefix).into_iter().flatten();
        match below.skip(1).any(|part| part.as_ref() == LOG) {
            false => Ok(()),
            true => Err(Error::invalid(format!(
                "{} is inside of the folder of {}, and VACUUM would delete that table: nothing was deleted, move it to a folder of \
                 its own",
                file.location,
                self.table.folder.location()
            ))),
        }
    }

    fn is_needless(&self, file: &ObjectMeta, kept: &BTreeSet<Path>, live: &State) -> bool {
        let below: Vec<String> = file
            .location
            .prefix_match(&self.table.folder.prefix)
            .map(|parts| parts.map(|part| part.as_ref().to_owned()).collect())
            .unwrap_or_default();
        let Some(first) = below.first() else { return false };
        // The log, and what other engines hide.
        if first.starts_with(['_', '.']) && first != MANIFESTS {
            return false;
        }
        let is_written = live.live.iter().any(|run| below.iter().any(|part| part.contains(&run.0)));
        !is_written && !kept.contains(&file.location)
    }
}

/// The versions of a table that the record of a run's plan names; `None` where it tells nothing: other builds may name none, and what
/// they planned is planned anew. Files that it replaces in part it reads, too, and does not name: where a newer version has them no
/// more, its commit is refused.
fn read_as_told(run: &Run, build: &str, location: &str) -> Option<Vec<u64>> {
    let is_ours = run.planned_by.as_ref().is_some_and(|(_, by)| by == build);
    run.sheet.as_ref().filter(|_| is_ours)?;
    Some(run.inputs().iter().filter(|input| input.location == location).map(|input| input.version).collect())
}

/// The lines of an entry. One that cannot be read may need any file.
fn lines_of(log: &Log, entry: Option<&[u8]>) -> Result<Vec<Action>> {
    match entry.map(actions).transpose()? {
        Some(Some(lines)) => Ok(lines),
        // Another engine cleaned it up meanwhile: it is older than any retention.
        None => Ok(Vec::new()),
        Some(None) => Err(Error::invalid(format!(
            "an entry of the log of {} cannot be read, so that it is not known which files are needed: nothing was deleted",
            log.folder.location()
        ))),
    }
}

/// A row of numbers, when they are there.
pub(super) fn one_row(names: &[&str], work: impl Future<Output = Result<Vec<u64>>> + Send + 'static) -> Result<Plan> {
    let field = |name: &&str| Field::new(*name, DataType::Int64, false);
    let schema: SchemaRef = Arc::new(Schema::new(names.iter().map(field).collect::<Vec<_>>()));
    let columns = Arc::clone(&schema);
    let rows = futures::stream::once(async move {
        let number =
            |value: u64| Arc::new(Int64Array::from(vec![i64::try_from(value).unwrap_or(i64::MAX)])) as ArrayRef;
        let values = work.await.map_err(to_datafusion)?;
        Ok::<_, DataFusionError>(RecordBatch::try_new(columns, values.into_iter().map(number).collect())?)
    });
    Ok(Plan::Rows(Box::pin(RecordBatchStreamAdapter::new(schema, rows))))
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use bytes::Bytes;
    use datafusion::execution::runtime_env::RuntimeEnv;
    use serde_json::json;
    use tidemill_core::graph::StageGraph;
    use tidemill_core::record::{InputVersion, Record, RunSpec, Sheet};
    use tidemill_core::{BlobHash, Epoch, Millis};

    use super::super::folder::Folder;
    use super::*;

    #[derive(Debug)]
    struct Nobody;

    #[async_trait]
    impl StateReader for Nobody {
        async fn state(&self) -> Result<State> {
            Ok(State::default())
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_deleted_where_another_engine_began_to_need_what_is_not_known()
    -> std::result::Result<(), Box<dyn std::error::Error>> {
        let root = tempfile::tempdir()?;
        let place = root.path().join("t");
        let folder = Folder::open(&place.display().to_string(), &RuntimeEnv::default())?;
        let log = Log::new(folder.clone());
        let columns = r#"{"type":"struct","fields":[{"name":"a","type":"long","nullable":true,"metadata":{}}]}"#;
        let first = [
            json!({ "protocol": { "minReaderVersion": 1, "minWriterVersion": 2 } }),
            json!({ "metaData": { "id": "x", "format": { "provider": "parquet", "options": {} }, "schemaString": columns,
                                  "partitionColumns": [], "configuration": {}, "createdTime": 0 } }),
        ];
        log.create(0, Bytes::from(format!("{}\n{}\n", first[0], first[1]))).await?;
        let version = numbered(&log, 0).await?;
        let (beside, earlier) = (place.join("vector.bin"), SystemTime::now() - Duration::from_secs(60));
        std::fs::File::create(&beside)?.set_modified(earlier)?;
        let vacuum = |features: &[&str]| {
            let protocol = json!({ "protocol": { "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features,
                                                 "writerFeatures": features } });
            let table = DatasetTable { name: "t".to_owned(), folder: folder.clone(), version: version.clone() };
            let (datasets, run) = (Arc::new(Datasets::default()), RunId("r".to_owned()));
            let vacuum =
                Vacuum { table, retention: Duration::ZERO, dry_run: false, state: Arc::new(Nobody), datasets, run };
            let entry = place.join("_delta_log/00000000000000000001.json");
            async move {
                std::fs::write(entry, format!("{protocol}\n")).map_err(|e| Error::internal(e.to_string()))?;
                vacuum.run().await
            }
        };
        let refused = vacuum(&["deletionVectors"]).await;
        assert!(refused.as_ref().is_err_and(|e| e.message.contains("`deletionVectors`")), "{refused:?}");
        assert!(beside.exists());
        assert_eq!(vacuum(&["timestampNtz"]).await?, [1, 0]);
        assert!(!beside.exists());
        Ok(())
    }

    #[test]
    fn what_a_run_reads_is_told_by_its_plan_if_this_build_made_it() {
        let run = RunId("r".to_owned());
        let spec = RunSpec { statement: "SELECT 1".to_owned(), ..RunSpec::default() };
        let input = |location: &str, version| InputVersion {
            dataset: "public.t".to_owned(),
            location: location.to_owned(),
            version,
        };
        let sheet = Sheet {
            blob: BlobHash("a".to_owned()),
            session: BlobHash("b".to_owned()),
            effects: false,
            inputs: vec![input("file:///t/", 3), input("file:///t/", 5), input("file:///u/", 7)],
        };
        let mut state = State { epoch: Some(Epoch(1)), build: "ours".to_owned(), ..State::default() };
        state.apply(&Record::RunAccepted { run: run.clone(), spec, at: Millis(1) });
        let told = |state: &State, build: &str, location: &str| {
            state.runs.get(&run).and_then(|known| read_as_told(known, build, location))
        };
        assert_eq!(told(&state, "ours", "file:///t/"), None, "it is not planned");
        let graph = StageGraph { stages: Vec::new() };
        state.apply(&Record::RunPlanned { run: run.clone(), graph: graph.clone(), sheet: Some(sheet) });
        assert_eq!(told(&state, "ours", "file:///t/"), Some(vec![3, 5]));
        assert_eq!(told(&state, "ours", "file:///v/"), Some(Vec::new()));
        assert_eq!(told(&state, "theirs", "file:///t/"), None);
        state.apply(&Record::RunPlanned { run: run.clone(), graph, sheet: None });
        assert_eq!(told(&state, "ours", "file:///t/"), None, "nothing is told");
    }
}
