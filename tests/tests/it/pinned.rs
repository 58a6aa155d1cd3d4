//! Input files that change, are replaced or vanish while a run reads them: an error that names them, never a mix.

use std::path::{Path, PathBuf};

use object_store::ObjectStoreExt;
use tidemill::client::Client;
use tidemill_core::{Error, ErrorKind};
use tidemill_tests::harness::s3::S3Server;
use tidemill_tests::harness::{LocalCluster, ProcessCluster, Shape, logged, rows, value};

/// What happens to an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Another file takes its name.
    Replaced,
    /// Its bytes are overwritten in place, by as many.
    Overwritten,
    /// It grows.
    Appended,
    Deleted,
}

const CHANGES: [Change; 4] = [Change::Replaced, Change::Overwritten, Change::Appended, Change::Deleted];

impl Change {
    fn happen(self, file: &Path) {
        match self {
            Self::Replaced => {
                let other = file.with_extension("other");
                std::fs::copy(file, &other).expect("a copy");
                std::fs::rename(other, file).expect("a new file under the old name");
            }
            Self::Overwritten => {
                let bytes = std::fs::read(file).expect("the file");
                std::fs::write(file, bytes).expect("the same bytes");
            }
            Self::Appended => {
                let mut bytes = std::fs::read(file).expect("the file");
                bytes.push(b'\n');
                std::fs::write(file, bytes).expect("one byte more");
            }
            Self::Deleted => std::fs::remove_file(file).expect("no file"),
        }
    }
}

const FORMATS: [&str; 3] = ["parquet", "csv", "json"];

/// Files of every format in a folder.
async fn write_files(folder: &Path) {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let mut client = cluster.client().await;
    for format in FORMATS {
        for number in 0..CHANGES.len() {
            let rows_of = format!("SELECT value + {number} AS x, value % 7 AS y FROM generate_series(1, 50000)");
            let to = folder.join(format).join(format!("{number}.{format}"));
            rows(&mut client, &format!("COPY ({rows_of}) TO '{}' STORED AS {format}", to.display())).await;
        }
    }
}

async fn create_table(client: &mut Client, folder: &Path, format: &str) -> Vec<PathBuf> {
    let folder = folder.join(format);
    let options = if format == "csv" { " OPTIONS ('format.has_header' 'true')" } else { "" };
    let location = folder.display();
    let create = format!("CREATE EXTERNAL TABLE {format}_in STORED AS {format} LOCATION '{location}/'{options}");
    rows(client, &create).await;
    let found = std::fs::read_dir(&folder).expect("a folder").filter_map(Result::ok).map(|e| e.path());
    found.filter(|path| path.extension().is_some_and(|e| e == format)).collect()
}

fn assert_named(error: &Error, file: &Path, change: Change, context: &str) {
    let name = file.file_name().expect("a name").to_string_lossy();
    assert!(error.message.contains(name.as_ref()), "{context}: {error}");
    let what = if change == Change::Deleted { "was deleted" } else { "was changed" };
    assert!(error.message.contains(what), "{context}: {error}");
    assert_eq!(error.kind, ErrorKind::Conflict, "{context}: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_input_is_named_and_never_mixed() {
    let folder = tempfile::tempdir().expect("a folder");
    write_files(folder.path()).await;
    // Without an executor runs are planned, and wait.
    let mut cluster = ProcessCluster::start(0, 1).await;
    let mut client = cluster.client().await;
    let mut waiting = Vec::new();
    for format in FORMATS {
        let files = create_table(&mut client, folder.path(), format).await;
        // Each change happens to a file of its own, and each run reads that one alone.
        for (change, file) in CHANGES.into_iter().zip(&files) {
            let options = if format == "csv" { " OPTIONS ('format.has_header' 'true')" } else { "" };
            let name = format!("{format}_{change:?}");
            let location = file.display();
            rows(
                &mut client,
                &format!("CREATE EXTERNAL TABLE {name} STORED AS {format} LOCATION '{location}'{options}"),
            )
            .await;
            let sql = format!("SELECT y, count(*), sum(x) FROM {name} GROUP BY y");
            waiting.push((client.query(&sql).await.expect("a plan"), change, file.clone(), name));
        }
        assert!(files.len() >= CHANGES.len(), "{files:?}");
    }
    let whole = client.query("SELECT count(*) FROM parquet_in").await.expect("a plan");
    for (_, change, file, _) in &waiting {
        change.happen(file);
    }
    cluster.add_executor(2);
    for (result, change, file, name) in waiting {
        let error = result.collect().await.err().unwrap_or_else(|| panic!("{name} answered"));
        assert_named(&error, &file, change, &name);
    }
    // Counted from what was pinned: no file is read for it.
    assert_eq!(whole.collect().await.expect("a count").len(), 1);
    // The next run sees them as they are now.
    assert_eq!(value(&mut client, "SELECT count(*) FROM (SELECT x + y FROM csv_Overwritten)").await, "50000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_object_is_named_and_never_mixed() {
    let folder = tempfile::tempdir().expect("a folder");
    write_files(folder.path()).await;
    let s3 = tokio::task::spawn_blocking(S3Server::start).await.expect("a server");
    s3.create_bucket("pond");
    let store = s3.store("pond");
    let read = |format: &str, number: usize| {
        let name = format!("{format}/{number}.{format}");
        let bytes = std::fs::read(folder.path().join(&name)).expect("a file");
        (object_store::path::Path::from(name), bytes)
    };
    let mut cluster = ProcessCluster::with(0, 1, "memory://", &s3.environment()).await;
    let mut client = cluster.client().await;
    let mut waiting = Vec::new();
    for format in FORMATS {
        for (number, change) in [(0, Change::Replaced), (1, Change::Deleted)] {
            let (path, bytes) = read(format, number);
            store.put(&path, bytes.into()).await.expect("an upload");
            let options = if format == "csv" { " OPTIONS ('format.has_header' 'true')" } else { "" };
            let name = format!("{format}_{change:?}");
            let create =
                format!("CREATE EXTERNAL TABLE {name} STORED AS {format} LOCATION 's3://pond/{path}'{options}");
            rows(&mut client, &create).await;
            let sql = format!("SELECT y, count(*), sum(x) FROM {name} GROUP BY y");
            waiting.push((client.query(&sql).await.expect("a plan"), change, path, name));
        }
    }
    for (_, change, path, _) in &waiting {
        match change {
            Change::Deleted => store.delete(path).await.expect("it is gone"),
            _ => {
                // Other rows, of about as many bytes.
                let format = path.extension().expect("a format");
                store.put(path, read(format, 2).1.into()).await.expect("another object");
            }
        }
    }
    cluster.add_executor(2);
    for (result, change, path, name) in waiting {
        let error = result.collect().await.err().unwrap_or_else(|| panic!("{name} answered"));
        assert_named(&error, Path::new(path.as_ref()), change, &name);
    }
    assert_eq!(value(&mut client, "SELECT count(*) FROM (SELECT x + y FROM csv_Replaced)").await, "50000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_taken_over_keeps_its_pins() {
    let folder = tempfile::tempdir().expect("a folder");
    write_files(folder.path()).await;
    let state = format!("file://{}", folder.path().join("state").display());
    let mut cluster = ProcessCluster::durable(0, 1, &state).await;
    let mut client = cluster.client().await;
    let files = create_table(&mut client, folder.path(), "parquet").await;
    let result = client.query("SELECT y, sum(x) FROM parquet_in GROUP BY y").await.expect("a plan");
    let reading = tokio::spawn(result.collect());
    logged(&mut client).await;
    cluster.restart_coordinator();
    let file = files.iter().max().expect("a file");
    Change::Replaced.happen(file);
    cluster.add_executor(1);
    let error = reading.await.expect("no panic").expect_err("an input is another one now");
    assert_named(&error, file, Change::Replaced, "taken over");
}
