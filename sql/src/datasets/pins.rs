//! Which version of a dataset a statement reads: one, for all of it. And what is remembered of that by the process.
//!
//! ```text
//! statement ──► Pins: its own versions ──► Datasets: the newest known of each table, which runs read what
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use datafusion::execution::runtime_env::RuntimeEnv;
use tidemill_core::{Error, Result, RunId};

use super::as_of::{AsOf, version_name};
use super::folder::Folder;
use super::log::Log;
use super::times::newest_at;
use super::version::Version;

/// Of newest versions that are remembered. The one that was read last is, whatever its size.
const MAX_KNOWN_BYTES: usize = 256 << 20;
/// Runs whose versions are remembered: of others VACUUM asks the records of their plans.
const MAX_RUNS: usize = 10_000;
/// Files of a version that a run may keep until its commit: about 12 MiB, for each run in progress.
const MAX_KEPT_FILES: usize = 10_000;
/// How long one of RESTORE and VACUUM waits for the other, and between two looks.
const TENDED_WITHIN: Duration = Duration::from_secs(60);
const TENDED_PAUSE: Duration = Duration::from_millis(50);

/// What a planner remembers of datasets.
#[derive(Debug, Default)]
pub(crate) struct Datasets {
    /// The newest version of each table, by location.
    known: Mutex<Known<Version>>,
    read: Mutex<Reads>,
    /// Tables of which old files are deleted or brought back.
    tended: Mutex<BTreeSet<String>>,
}

/// Which versions runs read, by location.
#[derive(Debug, Default)]
struct Reads {
    by: HashMap<RunId, Vec<(String, u64)>>,
    /// In the order in which they were planned: not all names tell their time.
    order: VecDeque<RunId>,
}

impl Reads {
    /// What a run reads. The oldest one leaves for it, where it is new and there are too many.
    fn of(&mut self, run: &RunId) -> &mut Vec<(String, u64)> {
        if !self.by.contains_key(run) {
            if self.order.len() >= MAX_RUNS
                && let Some(oldest) = self.order.pop_front()
            {
                self.by.remove(&oldest);
            }
            self.order.push_back(run.clone());
        }
        self.by.entry(run.clone()).or_default()
    }
}

/// What was used last, up to so many bytes.
#[derive(Debug)]
struct Known<V> {
    /// By name, each with its bytes and the number of its last use.
    values: HashMap<String, (V, usize, u64)>,
    bytes: usize,
    uses: u64,
}

impl<V> Default for Known<V> {
    fn default() -> Self {
        Self { values: HashMap::new(), bytes: 0, uses: 0 }
    }
}

impl<V: Clone> Known<V> {
    fn get(&mut self, name: &str) -> Option<V> {
        self.uses += 1;
        let (value, _, used) = self.values.get_mut(name)?;
        *used = self.uses;
        Some(value.clone())
    }

    fn remove(&mut self, name: &str) {
        if let Some((_, bytes, _)) = self.values.remove(name) {
            self.bytes -= bytes;
        }
    }

    /// Those that were used longest ago make room.
    fn insert(&mut self, name: String, value: V, bytes: usize, most: usize) {
        self.remove(&name);
        while self.bytes + bytes > most {
            let oldest = self.values.iter().min_by_key(|(_, (_, _, used))| *used).map(|(name, _)| name.clone());
            let Some(oldest) = oldest else { break };
            self.remove(&oldest);
        }
        self.uses += 1;
        self.bytes += bytes;
        self.values.insert(name, (value, bytes, self.uses));
    }
}

/// Alone with a table's old files, until it is dropped.
#[derive(Debug)]
pub(super) struct Tended {
    datasets: Arc<Datasets>,
    location: String,
}

impl Drop for Tended {
    fn drop(&mut self) {
        self.datasets.tended.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.location);
    }
}

impl Datasets {
    /// The newest version of a table; `None` if there is none.
    pub(super) async fn newest(&self, log: &Log) -> Result<Option<Version>> {
        let location = log.folder.location().to_owned();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&location);
        let newer = match &known {
            Some(known) => known.newer(log).await?,
            None => None,
        };
        let newest = match newer {
            Some(newer) => Some(newer),
            None => Version::read(log, None).await?,
        };
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match &newest {
            Some(version) => all.insert(location, version.clone(), version.bytes, MAX_KNOWN_BYTES),
            None => all.remove(&location),
        }
        Ok(newest)
    }

    /// A version, if it is the one of its table that is remembered, and not too large to be kept by each run in progress.
    pub(super) fn remembered(&self, location: &str, number: u64) -> Option<Version> {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(location).filter(|known| known.number == number && known.files.len() <= MAX_KEPT_FILES)
    }

    /// Waits to be alone with a table's old files: what RESTORE brings back, VACUUM must not delete.
    pub(super) async fn tend(self: &Arc<Self>, location: &str) -> Result<Tended> {
        let until = Instant::now() + TENDED_WITHIN;
        loop {
            let is_alone = self.tended.lock().unwrap_or_else(PoisonError::into_inner).insert(location.to_owned());
            if is_alone {
                return Ok(Tended { datasets: Arc::clone(self), location: location.to_owned() });
            }
            if Instant::now() > until {
                return Err(Error::unavailable(format!(
                    "another RESTORE or VACUUM of {location} has not ended for {} s: try again when it has",
                    TENDED_WITHIN.as_secs()
                )));
            }
            tokio::time::sleep(TENDED_PAUSE).await;
        }
    }

    fn note(&self, run: &RunId, location: &str, version: u64) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let of_run = read.of(run);
        if !of_run.iter().any(|known| known.0 == location && known.1 == version) {
            of_run.push((location.to_owned(), version));
        }
    }

    /// What a run reads of a table; `None` if nothing is known of the run.
    pub(super) fn read_by(&self, run: &RunId, location: &str) -> Option<Vec<u64>> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let of_run = read.by.get(run)?;
        Some(of_run.iter().filter(|(of, _)| of == location).map(|(_, version)| *version).collect())
    }

    /// Notes that a run was planned here, whatever it reads.
    fn planned(&self, run: &RunId) {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).of(run);
    }
}

/// The versions of one statement.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pins {
    datasets: Arc<Datasets>,
    run: Option<RunId>,
    pinned: Arc<tokio::sync::Mutex<BTreeMap<(String, AsOf), Version>>>,
}

impl Pins {
    /// None yet, for the statement of a run.
    pub(crate) fn of_run(datasets: &Arc<Datasets>, run: &RunId) -> Self {
        datasets.planned(run);
        Self { datasets: Arc::clone(datasets), run: Some(run.clone()), pinned: Arc::default() }
    }

    pub(super) const fn datasets(&self) -> &Arc<Datasets> {
        &self.datasets
    }

    /// The version that this statement reads of a table; `None` if there is no table.
    pub(super) async fn version(&self, folder: &Folder, at: &AsOf) -> Result<Option<Version>> {
        let key = (folder.location().to_owned(), at.clone());
        let mut pinned = self.pinned.lock().await;
        if let Some(version) = pinned.get(&key) {
            return Ok(Some(version.clone()));
        }
        let log = Log::new(folder.clone());
        let version = match at {
            AsOf::Newest => self.datasets.newest(&log).await?,
            AsOf::Version(number) => Some(numbered(&log, *number).await?),
            AsOf::Time(time) => Some(numbered(&log, newest_at(&log, time).await?).await?),
        };
        if let (Some(run), Some(version)) = (&self.run, &version) {
            self.datasets.note(run, folder.location(), version.number);
            pinned.insert(key, version.clone());
        }
        Ok(version)
    }
}

/// A name for each version of each table: its location, and with its number where it is not the newest that is read.
pub(super) fn by_name<'a>(versions: impl Iterator<Item = (&'a str, u64)>) -> BTreeMap<String, u64> {
    let mut of_tables: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for (location, number) in versions {
        of_tables.entry(location).or_default().insert(number);
    }
    let mut named = BTreeMap::new();
    for (location, numbers) in of_tables {
        let newest = numbers.last().copied();
        for number in numbers {
            let name = if Some(number) == newest { location.to_owned() } else { version_name(location, number) };
            named.insert(name, number);
        }
    }
    named
}

/// A version by its number.
pub(super) async fn numbered(log: &Log, number: u64) -> Result<Version> {
    let location = log.folder.location();
    // Listing takes longer, the longer the log is: only to say what is wrong.
    if let Ok(Some(version)) = Version::read(log, Some(number)).await
        && version.number == number
    {
        return Ok(version);
    }
    let listed = log.listed().await?;
    let newest = listed.last().map(|(version, _)| *version);
    let missing = |why: String| Error::not_found(format!("there is no version {number} of {location}: {why}"));
    match newest {
        None => Err(missing("there is no table".to_owned())),
        Some(newest) if number > newest => Err(missing(format!("the newest is {newest}"))),
        Some(_) => match Version::read(log, Some(number)).await {
            Ok(Some(version)) => Ok(version),
            Ok(None) => Err(missing("its log was cleaned up".to_owned())),
            Err(error) if listed.first().is_some_and(|(oldest, _)| number < *oldest) => {
                Err(missing(format!("its log was cleaned up ({})", error.message)))
            }
            Err(error) => Err(error),
        },
    }
}

/// Opens the folder of a table and its version for one statement.
pub(super) async fn open(
    pins: &Pins,
    location: &str,
    at: &AsOf,
    runtime: &RuntimeEnv,
) -> Result<(Folder, Option<Version>)> {
    let folder = Folder::open(location, runtime)?;
    let version = pins.version(&folder, at).await?;
    Ok((folder, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_that_was_planned_first_is_forgotten_whatever_it_is_called() {
        let datasets = Datasets::default();
        let run = |number: usize| RunId(format!("job-hourly-1-{number}-1-1"));
        (0..MAX_RUNS - 1).for_each(|number| datasets.note(&run(number), "file:///t", 7));
        // Names of clients' runs come before those of jobs.
        let client = RunId("01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned());
        datasets.planned(&client);
        datasets.note(&run(MAX_RUNS), "file:///t", 8);
        assert_eq!(datasets.read_by(&run(0), "file:///t"), None);
        assert_eq!(datasets.read_by(&run(1), "file:///t"), Some(vec![7]));
        assert_eq!(datasets.read_by(&client, "file:///t"), Some(Vec::new()));
        assert_eq!(datasets.read_by(&run(MAX_RUNS), "file:///t"), Some(vec![8]));
    }

    #[tokio::test]
    async fn what_brings_files_back_and_what_deletes_them_wait_for_each_other() -> Result<()> {
        let datasets = Arc::new(Datasets::default());
        let (first, other) = (datasets.tend("file:///t/").await?, datasets.tend("file:///other/").await?);
        let mut second = Box::pin(datasets.tend("file:///t/"));
        assert!(tokio::time::timeout(Duration::from_millis(200), &mut second).await.is_err());
        drop(first);
        let second = second.await?;
        assert_eq!((second.location.as_str(), other.location.as_str()), ("file:///t/", "file:///other/"));
        Ok(())
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let mut known = Known::default();
        for (name, bytes) in [("a", 40), ("b", 40), ("c", 10)] {
            known.insert(name.to_owned(), name, bytes, 100);
        }
        assert_eq!(known.get("a"), Some("a"));
        known.insert("d".to_owned(), "d", 50, 100);
        assert_eq!(["a", "b", "c", "d"].map(|name| known.get(name).is_some()), [true, false, true, true]);
        // Its size changed.
        known.insert("d".to_owned(), "d", 20, 100);
        assert_eq!(known.bytes, 70);
        // One is kept, however large it is.
        known.insert("e".to_owned(), "e", 1_000, 100);
        assert_eq!((known.get("e"), known.values.len(), known.bytes), (Some("e"), 1, 1_000));
        known.remove("e");
        assert_eq!(known.bytes, 0);
    }

    #[test]
    fn versions_of_one_table_are_inputs_of_their_own() {
        let versions = [("file:///t/", 7), ("file:///t/", 3), ("file:///t/", 7), ("file:///u/", 0)];
        let expected = [("file:///t/", 7), ("file:///t/ VERSION AS OF 3", 3), ("file:///u/", 0)];
        let expected = expected.map(|(name, number)| (name.to_owned(), number));
        assert_eq!(by_name(versions.into_iter()), BTreeMap::from(expected));
    }
}
