//! Data to try queries on: the TPC-H tables at any scale, as Parquet files.
//!
//! A table is a folder of several files, so that its scan has several tasks. Each file is written under a hidden
//! temporary name and renamed once whole, and a `_SUCCESS` file is written last, so a run that was killed half-way is
//! never taken for a finished one: the next run writes everything again.

mod error;
mod tables;

use std::fs::{self, File};
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

pub use self::error::GenerateError;
use self::tables::Job;
pub use self::tables::TPCH_TABLES;

/// The file that marks a folder as complete. Its content is the scale factor.
const SUCCESS: &str = "_SUCCESS";

/// Below this scale factor there would be no supplier, and the generators divide by the number of suppliers.
const MIN_SCALE: f64 = 0.0001;

/// The largest scale factor the TPC-H specification defines.
const MAX_SCALE: f64 = 100_000.0;

/// The most rows of one Parquet row group.
const ROW_GROUP_ROWS: usize = 1 << 20;

/// Whether a long operation shows how far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// A progress bar on standard error, if that is a terminal.
    #[default]
    Bar,
    /// Nothing.
    Hidden,
}

/// What [`tpch`] generates, and where.
#[derive(Clone, Debug)]
pub struct TpchOptions {
    /// The scale factor, from 0.0001 to 100,000. At 1 there are 8.7 million rows, about 1 GB as text.
    pub scale: f64,
    /// The folder below which the tables are written. It is created if it does not exist.
    pub to: PathBuf,
    /// Whether to show a progress bar.
    pub progress: Progress,
}

/// What a call of [`tpch`] did. The counts are of what this call wrote, so all are 0 if `reused`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TpchSummary {
    /// The folder was already complete at the same scale, and nothing was written.
    pub reused: bool,
    /// The number of Parquet files, of all tables.
    pub files: usize,
    /// The number of rows, of all tables.
    pub rows: u64,
    /// The size of the Parquet files, in bytes.
    pub bytes: u64,
}

/// Writes the eight TPC-H tables as Parquet below `to`: `to/{table}/part-NNN.parquet`.
///
/// Blocks until all is written, using as many threads as the machine has cores. The rows depend on the scale alone,
/// never on the number of threads. If `to` already holds the tables at this scale, nothing is written.
///
/// What an unfinished earlier run left in the tables' folders is removed first. Two calls must not write to the same
/// folder at the same time.
///
/// # Errors
///
/// Fails if the scale is out of range, if `to` holds the tables at another scale, or if a file cannot be written. An
/// unfinished folder has no `_SUCCESS` file, and the next call starts over.
pub fn tpch(options: &TpchOptions) -> Result<TpchSummary, GenerateError> {
    let TpchOptions { scale, ref to, progress } = *options;
    if !(MIN_SCALE..=MAX_SCALE).contains(&scale) {
        return Err(GenerateError::Scale { scale });
    }
    if is_complete(to, scale)? {
        return Ok(TpchSummary { reused: true, ..TpchSummary::default() });
    }
    for table in TPCH_TABLES {
        prepare_folder(&to.join(table))?;
    }
    let run = Run::new(scale, to, progress);
    let outcome = run.write_all();
    run.bar.finish_and_clear();
    outcome?;
    write_marker(to, scale)?;
    Ok(TpchSummary { reused: false, files: run.jobs.len(), rows: run.rows.into_inner(), bytes: run.bytes.into_inner() })
}

/// Whether `to` holds all tables at scale `wanted`. An error if it holds them at another scale.
fn is_complete(to: &Path, wanted: f64) -> Result<bool, GenerateError> {
    let marker = to.join(SUCCESS);
    let text = match fs::read_to_string(&marker) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed("read", &marker)(error)),
    };
    match text.trim().parse::<f64>() {
        Ok(found) if found == wanted => Ok(true),
        Ok(found) => Err(GenerateError::OtherScale { path: to.to_owned(), found, wanted }),
        Err(source) => Err(GenerateError::Marker { path: marker, source }),
    }
}

/// Marks `to` as complete, by a rename so that the file never exists without its content.
fn write_marker(to: &Path, scale: f64) -> Result<(), GenerateError> {
    let marker = to.join(SUCCESS);
    let temporary = to.join(format!(".{SUCCESS}.tmp"));
    fs::write(&temporary, format!("{scale}\n")).map_err(failed("write", &temporary))?;
    fs::rename(&temporary, &marker).map_err(failed("create", &marker))
}

/// Creates a table's folder, and removes the files of an unfinished run: if that had more files, those would otherwise
/// be read as part of the table.
fn prepare_folder(folder: &Path) -> Result<(), GenerateError> {
    fs::create_dir_all(folder).map_err(failed("create", folder))?;
    for entry in fs::read_dir(folder).map_err(failed("list", folder))? {
        let entry = entry.map_err(failed("list", folder))?;
        if entry.file_name().to_str().is_some_and(is_own_file) {
            let path = entry.path();
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}

/// Whether a name is `part-NNN.parquet`, or the temporary name of such a file.
fn is_own_file(name: &str) -> bool {
    let whole = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp")).unwrap_or(name);
    whole
        .strip_prefix("part-")
        .and_then(|rest| rest.strip_suffix(".parquet"))
        .is_some_and(|number| number.len() >= 3 && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Makes the error of a failed operation on a file or folder, for `map_err`.
fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> GenerateError {
    move |source| GenerateError::Io { action, path: path.to_owned(), source }
}

/// One generation, shared by the threads that write its files.
struct Run<'a> {
    scale: f64,
    to: &'a Path,
    jobs: Vec<Job>,
    /// The index in `jobs` of the next file that no thread has taken.
    next: AtomicUsize,
    /// A thread failed, and the others are to stop early.
    stop: AtomicBool,
    /// Rows generated so far.
    rows: AtomicU64,
    /// Bytes of the files finished so far.
    bytes: AtomicU64,
    bar: ProgressBar,
}

impl<'a> Run<'a> {
    fn new(scale: f64, to: &'a Path, progress: Progress) -> Self {
        let jobs = tables::jobs(scale);
        let bar = match progress {
            Progress::Bar => row_bar(jobs.iter().map(|job| job.rows).sum()),
            Progress::Hidden => ProgressBar::hidden(),
        };
        Self {
            scale,
            to,
            jobs,
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            bar,
        }
    }

    /// Writes every file, on as many threads as there are cores. The first error is returned once all have stopped.
    fn write_all(&self) -> Result<(), GenerateError> {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        thread::scope(|scope| {
            let mut workers = Vec::new();
            for _ in 0..cores.min(self.jobs.len()) {
                let worker = thread::Builder::new().spawn_scoped(scope, || self.work()).map_err(|source| {
                    self.stop.store(true, Ordering::Relaxed);
                    GenerateError::Thread { path: self.to.to_owned(), source }
                })?;
                workers.push(worker);
            }
            let mut outcome: Result<(), GenerateError> = Ok(());
            for worker in workers {
                let done = worker.join().unwrap_or_else(|_| Err(GenerateError::Panicked { path: self.to.to_owned() }));
                outcome = outcome.and(done);
            }
            outcome
        })
    }

    /// Writes files until none is left, or a thread has failed.
    fn work(&self) -> Result<(), GenerateError> {
        while !self.stop.load(Ordering::Relaxed) {
            let Some(job) = self.jobs.get(self.next.fetch_add(1, Ordering::Relaxed)) else {
                break;
            };
            if let Err(error) = self.write_file(job) {
                self.stop.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes one file under a temporary name, and renames it once it is whole.
    fn write_file(&self, job: &Job) -> Result<(), GenerateError> {
        self.bar.set_prefix(job.table.name());
        let folder = self.to.join(job.table.name());
        let path = folder.join(job.file_name());
        let temporary = folder.join(format!(".{}.tmp", job.file_name()));
        let file = File::create(&temporary).map_err(failed("create", &temporary))?;
        let written = self.encode(job, file);
        if !matches!(written, Ok(Some(_))) {
            // It would only take up space. If it cannot be removed, the next run tries again.
            let _ = fs::remove_file(&temporary);
        }
        let written = written.map_err(|source| GenerateError::Parquet { path: path.clone(), source })?;
        if let Some(bytes) = written {
            fs::rename(&temporary, &path).map_err(failed("create", &path))?;
            let bytes = bytes + self.bytes.fetch_add(bytes, Ordering::Relaxed);
            self.bar.set_message(HumanBytes(bytes).to_string());
        }
        Ok(())
    }

    /// Generates the rows of one file into `file`. The number of bytes written, or `None` if another thread failed
    /// before the file was whole.
    fn encode(&self, job: &Job, file: File) -> Result<Option<u64>, ParquetError> {
        let batches = job.batches(self.scale);
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .build();
        let mut writer = ArrowWriter::try_new(file, batches.schema(), Some(properties))?;
        for batch in batches {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let batch = batch?;
            writer.write(&batch)?;
            let rows = batch.num_rows() as u64;
            self.rows.fetch_add(rows, Ordering::Relaxed);
            self.bar.inc(rows);
        }
        writer.finish()?;
        Ok(Some(writer.bytes_written() as u64))
    }
}

/// A bar on standard error that counts up to `rows`, with the table's name before it and the bytes written after.
fn row_bar(rows: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{prefix:8} {bar:30} {human_pos} of {human_len} rows, {msg} written, {eta} left");
    ProgressBar::new(rows)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message(HumanBytes(0).to_string())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::*;

    fn options(scale: f64, to: &Path) -> TpchOptions {
        TpchOptions { scale, to: to.to_owned(), progress: Progress::Hidden }
    }

    /// The rows of all files in a folder, as their footers state them.
    fn rows(folder: &Path) -> i64 {
        let rows = |path: PathBuf| {
            let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
            reader.metadata().file_metadata().num_rows()
        };
        fs::read_dir(folder).unwrap().map(|entry| rows(entry.unwrap().path())).sum()
    }

    #[test]
    fn the_tables_have_the_rows_of_the_specification() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("tpch");
        // Left by a run that was killed: neither is a Parquet file, so counting rows fails if one remains.
        fs::create_dir_all(to.join("lineitem")).unwrap();
        fs::write(to.join("lineitem/part-099.parquet"), "old").unwrap();
        fs::write(to.join("lineitem/.part-000.parquet.tmp"), "half").unwrap();

        let summary = tpch(&options(0.001, &to)).unwrap();
        let counts = TPCH_TABLES.map(|table| (table, rows(&to.join(table))));
        let expected = [
            ("customer", 150),
            ("lineitem", 6005),
            ("nation", 25),
            ("orders", 1500),
            ("part", 200),
            ("partsupp", 800),
            ("region", 5),
            ("supplier", 10),
        ];
        assert_eq!(counts, expected);
        assert!(!summary.reused);
        assert_eq!((summary.files, summary.rows), (12, 8695));
        assert!(summary.bytes > 0);

        let again = tpch(&options(0.001, &to)).unwrap();
        assert_eq!(again, TpchSummary { reused: true, ..TpchSummary::default() });

        let error = tpch(&options(0.002, &to)).unwrap_err();
        let (found, wanted) = (0.001, 0.002);
        let expected = format!("{} already holds TPC-H data at scale factor {found}, not {wanted}", to.display());
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_scale_out_of_range_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        for scale in [0.0, -1.0, 0.00001, 200_000.0, f64::INFINITY, f64::NAN] {
            let error = tpch(&options(scale, folder.path())).unwrap_err();
            assert!(matches!(error, GenerateError::Scale { .. }), "{scale}: {error}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_marker_of_another_program_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(SUCCESS), "").unwrap();
        let error = tpch(&options(0.001, folder.path())).unwrap_err();
        assert!(matches!(error, GenerateError::Marker { .. }), "{error}");
    }

    #[test]
    fn only_files_of_a_table_are_removed() {
        for name in ["part-000.parquet", "part-3999.parquet", ".part-012.parquet.tmp"] {
            assert!(is_own_file(name), "{name}");
        }
        for name in ["part-0.parquet", "part-abc.parquet", "mine.parquet", ".part-000.parquet", "part-000.parquet.tmp"]
        {
            assert!(!is_own_file(name), "{name}");
        }
    }
}
