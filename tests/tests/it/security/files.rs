//! Files: what is below `--allow-path` and `--allow-url`, and no way out of it.

use std::os::unix::fs::symlink;
use std::path::Path;

use datafusion::prelude::{CsvReadOptions, SessionContext};
use tempfile::TempDir;
use tidemill::client::Client;
use tidemill_core::ErrorKind;
use tidemill_tests::harness::{Process, value};

/// A folder that is allowed, with links that lead out of it, and one that is not.
struct Folders {
    root: TempDir,
}

impl Folders {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir_all(at("in/deep")).expect("a folder");
        std::fs::create_dir_all(at("in/clean")).expect("a folder");
        std::fs::create_dir_all(at("in-not")).expect("a folder");
        for file in ["in/t.csv", "in/clean/v.csv", "in/deep/u.csv", "in-not/secret.csv"] {
            std::fs::write(at(file), "x\n42\n").expect("a file");
        }
        symlink(at("in-not"), at("in/away")).expect("a link");
        symlink(at("in-not/secret.csv"), at("in/deep/link.csv")).expect("a link");
        symlink(at("in-not/new.csv"), at("in/dangling.csv")).expect("a link");
        symlink(at("in/t.csv"), at("in/near.csv")).expect("a link");
        symlink(at("in/t.csv"), at("in/clean/w.csv")).expect("a link");
        Self { root }
    }

    fn path(&self, name: &str) -> String {
        self.root.path().join(name).display().to_string()
    }
}

fn server(allowed: &str) -> Process {
    let args = ["server", "--bind", "127.0.0.1:0", "--slots", "1", "--memory", "128MiB", "--allow-path", allowed];
    Process::start(&args)
}

/// Creates a table of a location, and reads it.
async fn read(client: &Client, location: &str) -> Result<(), tidemill::Error> {
    let create = format!(
        "CREATE OR REPLACE EXTERNAL TABLE t STORED AS CSV LOCATION '{location}' OPTIONS ('format.has_header' 'true')"
    );
    client.query(&create).await?.collect().await?;
    client.query("SELECT count(*) FROM t").await?.collect().await.map(|_| ())
}

fn denied<T>(outcome: Result<T, tidemill::Error>, what: &str) {
    let Err(error) = outcome else { panic!("{what} is allowed") };
    assert_eq!(error.kind, ErrorKind::Denied, "{what}: {error}");
    let says = error.message.contains("--allow-path") || error.message.contains("write the path that it means");
    assert!(says, "{what}: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_outside_of_what_is_allowed() {
    let folders = Folders::new();
    let server = server(&folders.path("in"));
    let client = Client::connect(&server.url()).await.expect("a client");
    let inside = folders.path("in");
    let fine = [
        format!("{inside}/t.csv"),
        format!("file://{inside}/t.csv"),
        format!("{inside}/near.csv"),
        format!("{inside}/clean/"),
        format!("{inside}/clean/[vw]*.csv"),
        format!("file://{inside}/clean/"),
    ];
    for location in fine {
        read(&client, &location).await.unwrap_or_else(|e| panic!("{location}: {e}"));
    }
    let root = folders.root.path().display();
    for escape in [
        folders.path("in-not/secret.csv"),
        format!("file://{root}/in-not/secret.csv"),
        format!("{inside}/../in-not/secret.csv"),
        format!("file://{inside}/../in-not/secret.csv"),
        format!("file://{inside}/%2e%2e/in-not/secret.csv"),
        format!("file://{inside}/.%2E/in-not/secret.csv"),
        format!("{inside}/%2e%2e/in-not/secret.csv"),
        format!("{inside}/away/secret.csv"),
        format!("{inside}/away/"),
        format!("{inside}/away/*.csv"),
        format!("{inside}/deep/link.csv"),
        // What they list leads out of it somewhere.
        format!("{inside}/deep/*.csv"),
        format!("{inside}/deep/"),
        format!("{inside}/*.csv"),
        format!("{root}/*/secret.csv"),
        format!("{root}/in*/*.csv"),
        "/etc/passwd".to_owned(),
        "/proc/self/environ".to_owned(),
        "s3://bucket/in/t.csv".to_owned(),
    ] {
        denied(read(&client, &escape).await, &escape);
    }
    // Several locations are checked each; and names are no ways around.
    denied(read(&client, "../../../../../../etc/passwd").await, "a relative path");
    // Files that a plan brings along, whose columns the client read by itself.
    let session = tidemill::connect(server.url()).start().await.expect("a session");
    let counted = async |session: &SessionContext, location: &str| {
        let frame = session.read_csv(location, CsvReadOptions::new()).await.expect("a frame");
        frame.count().await.map_err(|e| tidemill_engine::error::from_datafusion(&e))
    };
    assert_eq!(counted(&session, &format!("{inside}/t.csv")).await, Ok(1));
    for escape in ["in-not/secret.csv", "in/away/secret.csv", "in/deep/link.csv"] {
        denied(counted(&session, &folders.path(escape)).await, escape);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_outside_of_what_is_allowed() {
    let folders = Folders::new();
    let server = server(&folders.path("in"));
    let mut client = Client::connect(&server.url()).await.expect("a client");
    let inside = folders.path("in");
    let copy = |to: &str| format!("COPY (SELECT 7 AS x) TO '{to}' STORED AS CSV");
    for fine in [format!("{inside}/new.csv"), format!("{inside}/new/folder/"), format!("file://{inside}/other.csv")] {
        assert_eq!(value(&mut client, &copy(&fine)).await, "1", "{fine}");
    }
    let before = std::fs::read_dir(folders.path("in-not")).expect("a folder").count();
    let root = folders.root.path().display();
    for escape in [
        folders.path("in-not/new.csv"),
        folders.path("in-not/folder/"),
        format!("{root}/beside.csv"),
        format!("{inside}/../in-not/new.csv"),
        format!("file://{inside}/%2e%2e/in-not/new.csv"),
        format!("{inside}/away/new.csv"),
        format!("{inside}/away/folder/"),
        format!("{inside}/deep/link.csv"),
        format!("{inside}/dangling.csv"),
        "s3://bucket/new.csv".to_owned(),
    ] {
        let written = async {
            client.query(&copy(&escape)).await?.collect().await?;
            Ok(())
        };
        denied(written.await, &escape);
    }
    assert_eq!(std::fs::read_dir(folders.path("in-not")).expect("a folder").count(), before);
    assert_eq!(std::fs::read_to_string(folders.path("in-not/secret.csv")).expect("a file"), "x\n42\n");
    assert!(!Path::new(&folders.path("beside.csv")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_looks_for_itself() {
    let folders = Folders::new();
    let (all, inside) = (folders.root.path().display().to_string(), folders.path("in"));
    let work = tempfile::tempdir().expect("a folder");
    let coordinator = Process::start(&["coordinator", "--bind", "127.0.0.1:0", "--allow-path", &all]);
    let (url, work) = (coordinator.url(), work.path().display().to_string());
    let executor = ["executor", "--connect", &url, "--slots", "1", "--memory", "128MiB", "--work-dir", &work];
    let _executor = Process::start(&[&executor[..], &["--allow-path", &inside]].concat());
    let mut client = Client::connect(&url).await.expect("a client");
    read(&client, &format!("{inside}/t.csv")).await.expect("it may");
    denied(read(&client, &folders.path("in-not/secret.csv")).await, "an executor's file");
    let copy = format!("COPY (SELECT 7 AS x) TO '{}'", folders.path("in-not/new.csv"));
    let written = async { client.query(&copy).await?.collect().await.map(|_| ()) };
    denied(written.await, "an executor's target");
    assert!(!Path::new(&folders.path("in-not/new.csv")).exists());
    assert_eq!(value(&mut client, "SELECT 40 + 2").await, "42");
}
