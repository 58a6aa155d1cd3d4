//! A folder of state that cannot be written: it is denied, or its disk is full; then it can be again.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;
use tidemill::client::Client;
use tidemill_core::Result;
use tidemill_tests::harness::{Process, lasting_port, value};
use tokio::task::JoinHandle;

use super::until;

/// How long nothing can be written, and things go on afterwards. A refusal is believed after 15 s.
const FOR_A_WHILE: Duration = Duration::from_secs(5);
/// Runs for some seconds, and nothing of it is spilled.
const GOES_ON: &str = "SELECT count(*) AS n FROM generate_series(1, 12000) AS a(x), generate_series(1, 12000) AS b(y) \
                       WHERE x + y <> 7";
const ITS_ANSWER: &str = "143999994";

/// A coordinator and an executor of a user who may not do everything, and the folder of their state.
struct Bounded {
    folder: PathBuf,
    address: String,
    coordinator: Process,
    _executor: Process,
}

/// What is wrong with the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    /// Nobody may enter it.
    Denied,
    /// No file can grow, as on a disk without room.
    Full,
}

impl Bounded {
    fn start(folder: &Path) -> Self {
        let folder = folder.to_owned();
        let address = format!("127.0.0.1:{}", lasting_port());
        let coordinator = Self::lead(&folder, &address);
        let work = folder.join("work").display().to_string();
        let url = coordinator.url();
        let args = ["executor", "--connect", &url, "--slots", "1", "--memory", "256MiB", "--work-dir", &work];
        let executor = Process::start_as_nobody(&folder, &args);
        Self { folder, address, coordinator, _executor: executor }
    }

    fn lead(folder: &Path, address: &str) -> Process {
        let state = format!("file://{}", folder.join("state").display());
        Process::start_as_nobody(folder, &["coordinator", "--bind", address, "--state", &state])
    }

    fn set(&self, harm: Harm, is_harmed: bool) {
        match harm {
            Harm::Denied => {
                let mode = if is_harmed { 0o000 } else { 0o755 };
                let permissions = std::fs::Permissions::from_mode(mode);
                std::fs::set_permissions(self.folder.join("state"), permissions).expect("permissions");
            }
            Harm::Full => {
                self.coordinator.limit_files_of_nobody(if is_harmed { "0" } else { "unlimited" });
            }
        }
    }

    async fn create(&self, view: &str) -> JoinHandle<Result<Vec<RecordBatch>>> {
        let client = Client::connect(&self.coordinator.url()).await.expect("a client");
        let sql = format!("CREATE VIEW {view} AS SELECT 42 AS a");
        tokio::spawn(async move { client.query(&sql).await?.collect().await })
    }
}

/// For a while: then everything goes on. For longer: the coordinator ends and says why; once the folder is well again the next
/// one goes on with what clients still wait for.
async fn a_folder_is_harmed(harm: Harm, says: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut bounded = Bounded::start(folder.path());
    let mut client = Client::connect(&bounded.coordinator.url()).await.expect("a client");
    let going = client.query(GOES_ON).await.expect("a run");
    bounded.set(harm, true);
    let creating = bounded.create("first").await;
    tokio::time::sleep(FOR_A_WHILE).await;
    assert!(!creating.is_finished(), "{harm:?}: something was told that is written nowhere");
    assert!(bounded.coordinator.exit_code().is_none(), "{harm:?}: {}", bounded.coordinator.said());
    bounded.set(harm, false);
    creating.await.expect("no panic").unwrap_or_else(|e| panic!("{harm:?}: {e}"));
    let counted = going.collect().await.unwrap_or_else(|e| panic!("{harm:?}: {e}"));
    let counted = counted.iter().find(|b| b.num_rows() == 1).expect("a row");
    let counted = arrow::util::display::array_value_to_string(counted.column(0), 0).expect("a value");
    assert_eq!(counted, ITS_ANSWER);
    bounded.set(harm, true);
    let start = Instant::now();
    let creating = bounded.create("second").await;
    until("the coordinator's end", async || bounded.coordinator.exit_code().is_some()).await;
    assert!(start.elapsed() < Duration::from_secs(60), "{harm:?}: it tried for {:?}", start.elapsed());
    assert_eq!(bounded.coordinator.exit_code(), Some(Some(1)));
    let said = bounded.coordinator.said();
    let error = said.lines().find(|line| line.starts_with("error")).unwrap_or_default();
    assert!(error.contains("/state/ctl/") && error.contains(says), "{harm:?}: {said}");
    if harm == Harm::Denied {
        bounded.set(harm, false);
    }
    bounded.coordinator = Bounded::lead(&bounded.folder, &bounded.address);
    creating.await.expect("no panic").unwrap_or_else(|e| panic!("{harm:?}: {e}"));
    client = Client::connect(&bounded.coordinator.url()).await.expect("a client");
    assert_eq!(value(&mut client, "SELECT first.a + second.a FROM first, second").await, "84");
    assert_eq!(value(&mut client, GOES_ON).await, ITS_ANSWER);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_that_is_denied_delays_and_in_the_end_is_an_error_that_says_so() {
    a_folder_is_harmed(Harm::Denied, "ermission denied").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_without_room_delays_and_in_the_end_is_an_error_that_says_so() {
    a_folder_is_harmed(Harm::Full, "too large").await;
}
