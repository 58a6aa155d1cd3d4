//! What stays of a run that has finished, for how long, and what it took to write and read it.

use std::path::Path;
use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore};
use tidemill::client::Client;
use tidemill::oracle::compare;
use tidemill_core::{ErrorKind, RunId};
use tidemill_tests::harness::s3::S3Server;
use tidemill_tests::harness::{Process, ProcessCluster, SMALL_SCALE, Wire, create_tpch, logged, tpch_oracle, value};

use crate::durable::{SLOW, files_below, state_in};
use crate::faults::WIDE;
use crate::going::{self, Going, with_a_slow_end};

/// More rows than stand in the log, and than are under way at once.
const LARGE: &str = "SELECT l_orderkey, l_linenumber, l_comment FROM lineitem";
const LARGE_SCALE: f64 = 0.5;

pub(crate) async fn no_files_below(folder: &Path) {
    let start = Instant::now();
    while !files_below(folder).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?} are left", files_below(folder));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn server(state: &str, more: &[&str]) -> Process {
    let args = ["server", "--bind", "127.0.0.1:0", "--state", state, "--slots", "2"];
    Process::start(&[args.as_slice(), more].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_can_be_fetched_again_after_a_restart_until_its_retention_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = format!("file://{}", folder.path().display());
    let mut process = server(&state, &[]);
    let mut client = Client::connect(&process.url()).await.expect("a client");
    create_tpch(&mut client, LARGE_SCALE).await;
    let oracle = tpch_oracle(LARGE_SCALE).await;
    let statements = ["SELECT n_name, n_regionkey FROM nation", LARGE, "SELECT 1 + 1 AS two", "SHOW TABLES"];
    let mut runs = Vec::new();
    for sql in statements {
        let result = client.query(sql).await.expect("a run");
        let run = result.run.clone().expect("a run");
        runs.push((run, result.collect().await.expect("rows")));
    }
    assert_eq!(files_below(&folder.path().join("runs")).len(), 1, "only the large one is an object");
    logged(&mut client).await;
    process.kill();
    process = server(&state, &[]);
    client = Client::connect(&process.url()).await.expect("a client");
    for (run, before) in &runs {
        let again = client.fetch(run).await.expect("it is kept").collect().await.expect("rows");
        assert_eq!(&again, before, "the same rows in the same batches");
    }
    let large = oracle.answer(LARGE).await.expect("an answer");
    assert!(compare(&large, &runs[1].1).expect("a comparison").is_none());
    // By hand, as a user would.
    let url = process.url();
    let printed = Process::run(&["sql", "--connect", &url, "--format", "csv", "--run", &runs[0].0.0]);
    assert_eq!((printed.code, printed.stdout.lines().count()), (Some(0), 26), "{}", printed.stderr);
    let unknown = Process::run(&["sql", "--connect", &url, "--run", "01ARZ3NDEKTSV4RRFFQ69G5FAV"]);
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.stderr.contains("is not known here"), "{}", unknown.stderr);
    // A leader that keeps results for no time lets go of them.
    process.signal("TERM");
    process.wait();
    let process = server(&state, &["--result-retention", "0"]);
    no_files_below(&folder.path().join("runs")).await;
    no_files_below(&folder.path().join("pond")).await;
    let client = Client::connect(&process.url()).await.expect("a client");
    for (run, _) in &runs {
        let gone = client.fetch(run).await.err().expect("it is kept no longer");
        assert_eq!(gone.kind, ErrorKind::NotFound, "{gone}");
    }
}

/// All rows of a large result, of which some were shown when all of it was in the store and every executor was killed.
async fn read_from_packs(cluster: &mut ProcessCluster, client: &mut Client) -> (RunId, Vec<RecordBatch>) {
    create_tpch(client, LARGE_SCALE).await;
    let mut result = client.query(LARGE).await.expect("a run");
    let run = result.run.clone().expect("a run");
    let mut batches = vec![result.next().await.expect("rows").expect("rows")];
    let packed = format!("SELECT count(*) FILTER (WHERE pack IS NULL) FROM system.tasks WHERE run_id = '{run}'");
    let start = Instant::now();
    while value(client, &packed).await != "0" {
        assert!(start.elapsed() < Duration::from_secs(120), "it is not in the store");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ended = format!("SELECT state FROM system.runs WHERE run_id = '{run}'");
    assert_eq!(value(client, &ended).await, "running", "rows must be left to read");
    for executor in &mut cluster.executors {
        executor.kill();
    }
    while let Some(batch) = result.next().await {
        batches.push(batch.expect("the rest"));
    }
    (run, batches)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_goes_on_from_its_packs_after_rows_of_it_were_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = format!("file://{}", folder.path().display());
    let mut cluster = ProcessCluster::durable(2, 1, &state).await;
    let mut client = cluster.client().await;
    let (run, batches) = read_from_packs(&mut cluster, &mut client).await;
    let expected = tpch_oracle(LARGE_SCALE).await.answer(LARGE).await.expect("an answer");
    assert!(compare(&expected, &batches).expect("a comparison").is_none());
    let again = format!("SELECT sum(repeats) FROM system.tasks WHERE run_id = '{run}'");
    assert_eq!(value(&mut client, &again).await, "0");
}

/// The same on the wire and in the table, while the run lasts and after it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_result_is_read_with_from_the_store_is_counted() {
    let (_s3, wire, environment) = S3Server::behind_a_wire("tide").await;
    let mut cluster = ProcessCluster::with(2, 1, "s3://tide/cluster", &environment).await;
    let mut client = cluster.client().await;
    let (run, batches) = read_from_packs(&mut cluster, &mut client).await;
    let counted = format!("SELECT get_requests FROM system.runs WHERE run_id = '{run}' AND list_requests = 0");
    let gets = |path: &str| wire.requests(path).get("GET").copied().unwrap_or_default();
    let packs = gets("/pond/");
    assert!(packs > 0, "the result was not read from its packs");
    // It has one stage: no task read anything.
    assert_eq!(value(&mut client, &counted).await, packs.to_string());
    let again = client.fetch(&run).await.expect("it is kept").collect().await.expect("rows");
    assert_eq!(again, batches);
    let kept = gets("/runs/");
    assert!(kept > 0, "the kept result was not read from the store");
    assert_eq!(value(&mut client, &counted).await, (packs + kept).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_fault_packs_are_written_in_few_requests_and_never_read() {
    let (_s3, wire, mut environment) = S3Server::behind_a_wire("tide").await;
    environment.push(("TIDEMILL_YOUNG_MILLIS", "0".to_owned()));
    let cluster = ProcessCluster::with(2, 1, "s3://tide/cluster", &environment).await;
    let mut client = cluster.client().await;
    create_tpch(&mut client, LARGE_SCALE).await;
    client.set("datafusion.execution.target_partitions", "8").expect("a setting");
    let start = Instant::now();
    let log_puts = || wire.requests("/ctl/log").get("PUT").copied().unwrap_or_default();
    let before = log_puts();
    // Exchanges tens of megabytes.
    let sql = "SELECT count(*) AS total, max(n) AS n, max(c) AS c FROM (
        SELECT l_comment, count(*) AS n, max(l_shipinstruct) AS c FROM lineitem GROUP BY l_comment, l_orderkey) AS x";
    let run = {
        let result = client.query(&with_a_slow_end(sql, "c")).await.expect("a run");
        let run = result.run.clone().expect("a run");
        result.collect().await.expect("rows");
        run
    };
    let seconds = start.elapsed().as_secs_f64();
    let log = log_puts() - before;
    let column = |name: &str| format!("SELECT {name} FROM system.runs WHERE run_id = '{run}'");
    let number = async |client: &mut Client, name| value(client, &column(name)).await.parse::<u64>().expect("a number");
    let (packs, bytes) = (number(&mut client, "packs").await, number(&mut client, "durable_bytes").await);
    assert!(packs > 0 && bytes > 16 << 20, "{packs} packs of {bytes} bytes");
    let seen = wire.requests("/pond/");
    let of = |method: &str| seen.get(method).copied().unwrap_or_default() as u64;
    assert_eq!((of("GET"), of("HEAD"), of("LIST")), (0, 0, 0), "{seen:?}");
    for none in ["get_requests", "list_requests"] {
        assert_eq!(number(&mut client, none).await, 0, "{none}");
    }
    let puts = of("PUT") + of("POST");
    // A pack that was written when the run had just ended is on the wire only.
    let told = number(&mut client, "put_requests").await;
    assert!(packs <= told && told <= puts, "{told} requests are told of, {puts} were made");
    let made = wire.paths(".pack").len() as u64;
    assert!(packs <= made && made <= packs + 4, "{packs} packs are told of, {made} were written");
    assert!(told <= bytes / (16 << 20) + 2 * packs, "{told} requests for {packs} packs of {bytes} bytes");
    assert!(before > 0 && (log as f64) <= 5.0 * seconds + 2.0, "{log} log batches in {seconds} s");
    // No frame is uploaded twice, and an index is small beside what it is of.
    client.set("tidemill.test.force_encode", "true").expect("a setting");
    let result = client.query(sql).await.expect("a run");
    let forced = result.run.clone().expect("a run");
    result.collect().await.expect("rows");
    let encoded = format!("SELECT encoded_bytes FROM system.runs WHERE run_id = '{forced}'");
    let encoded = value(&mut client, &encoded).await.parse::<u64>().expect("a number");
    assert!(bytes <= encoded + encoded / 100, "{bytes} bytes were stored of {encoded} exchanged, compressed");
    let exchanged = number(&mut client, "exchanged_bytes").await;
    assert!(encoded <= exchanged, "{exchanged} bytes were exchanged, {encoded} compressed");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_were_submitted_again_after_their_end_are_answered_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = format!("file://{}", folder.path().display());
    let process = server(&state, &[]);
    let mut client = Client::connect(&process.url()).await.expect("a client");
    create_tpch(&mut client, SMALL_SCALE).await;
    for sql in ["CREATE VIEW v AS SELECT 1 AS x", "CREATE TABLE t AS SELECT n_name FROM nation", "SELECT * FROM region"]
    {
        let result = client.query(sql).await.expect("a run");
        let (run, schema) = (result.run.clone().expect("a run"), result.schema.clone());
        let before = result.collect().await.expect("an answer");
        let again = client.fetch(&run).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        assert_eq!(again.schema, schema, "{sql}");
        assert_eq!(again.collect().await.expect("an answer"), before, "{sql}");
    }
}

/// Results, packs, what the dead left, and what is on the executors' disks. What stays is the log.
#[tokio::test(flavor = "multi_thread")]
async fn after_every_retention_nothing_is_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = state_in(folder.path());
    let environment = [("TIDEMILL_RESULT_RETENTION", "2".to_owned()), ("TIDEMILL_SWEEP_INTERVAL", "1".to_owned())];
    let (mut cluster, mut client) = going::cluster(&state, &environment).await;
    client.query(LARGE).await.expect("a run").collect().await.expect("rows");
    let going = Going::start(&cluster, SLOW).await;
    going.until_durable(&mut client, 8).await;
    // As if it died a moment later: in the middle of a pack, and between a pack and its report.
    let mut packs =
        files_below(&folder.path().join("pond")).into_iter().filter(|f| f.extension().is_some_and(|e| e == "pack"));
    let pack = packs.next().expect("a pack");
    for name in ["dead.partial", "dead.pack"] {
        std::fs::copy(&pack, pack.with_file_name(name)).expect("a copy");
    }
    cluster.executors[0].kill();
    going.answers(SLOW).await;
    for part in ["pond", "runs"] {
        no_files_below(&folder.path().join(part)).await;
    }
    no_disk_is_used(&mut cluster).await;
    let objects = files_below(folder.path()).into_iter().map(|file| {
        let below = file.strip_prefix(folder.path()).expect("below it").display().to_string();
        (below, std::fs::metadata(&file).map_or(0, |m| m.len()))
    });
    only_the_log_is_left(objects);
}

/// Of what executors hold on their disks nothing is left. A dead one's folder goes when somebody else starts beside it.
async fn no_disk_is_used(cluster: &mut ProcessCluster) {
    cluster.add_executor(1);
    let disk = || files_below(cluster.work_dir()).into_iter().filter(|file| !file.ends_with("executor.lock"));
    let start = Instant::now();
    while disk().next().is_some() {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?} are left", disk().collect::<Vec<_>>());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Objects by name and size: none but the log's, and these are small.
fn only_the_log_is_left(objects: impl Iterator<Item = (String, u64)>) {
    let of_log = ["ctl/epoch/", "ctl/lease/", "ctl/log/", "ctl/snap/"];
    let (log, others): (Vec<_>, Vec<_>) = objects.partition(|(name, _)| of_log.iter().any(|p| name.starts_with(p)));
    let bytes = |objects: &[(String, u64)]| objects.iter().map(|(_, bytes)| bytes).sum::<u64>();
    assert_eq!((others.len(), bytes(&others)), (0, 0), "{others:?}");
    assert!(!log.is_empty() && bytes(&log) < 16 << 20, "the log has {} bytes: {log:?}", bytes(&log));
}

/// The same in S3, where uploads that nobody completed stand in no list of objects: after runs that ended well, that were
/// cancelled in the middle of an upload, and that lost every process.
#[tokio::test(flavor = "multi_thread")]
async fn after_every_retention_nothing_is_left_in_s3_either() {
    let (s3, wire, mut environment) = S3Server::behind_a_wire("tide").await;
    let short = [("TIDEMILL_RESULT_RETENTION", 2), ("TIDEMILL_SWEEP_INTERVAL", 1), ("TIDEMILL_YOUNG_MILLIS", 0)];
    environment.extend(short.map(|(name, value)| (name, value.to_string())));
    let (mut cluster, mut client) = going::cluster("s3://tide/cluster", &environment).await;
    client.query(LARGE).await.expect("a run").collect().await.expect("rows");
    let uploads = || tokio::task::block_in_place(|| s3.uploads("tide"));
    let parts = || wire.requests("partNumber=").get("PUT").copied().unwrap_or_default();
    let (large, before) = (with_a_slow_end(WIDE, "m"), parts());
    let cancelled = Going::in_partitions(cluster.client().await, &large, "2").await;
    let start = Instant::now();
    while parts() == before {
        assert!(start.elapsed() < Duration::from_secs(120), "no part of an upload came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    wire.set(Wire::Frozen);
    assert!(!uploads().is_empty(), "no upload is under way: this would see none that is left either");
    wire.set(Wire::Whole);
    cancelled.reading.abort();
    let going = Going::in_partitions(cluster.client().await, &large, "2").await;
    going.until_stored(&mut client).await;
    cluster.executors.iter_mut().for_each(Process::kill);
    cluster.restart_coordinator();
    cluster.executors.clear();
    cluster.add_executor(1);
    cluster.add_executor(1);
    going.answers(&large).await;
    let store = s3.store("tide");
    let objects = async || {
        let listed = store.list(None).try_collect::<Vec<ObjectMeta>>().await.expect("a list");
        listed.into_iter().map(|o| (o.location.to_string().replacen("cluster/", "", 1), o.size)).collect::<Vec<_>>()
    };
    let start = Instant::now();
    loop {
        let left: Vec<_> = objects().await.into_iter().filter(|(name, _)| !name.starts_with("ctl/")).collect();
        let uploads = uploads();
        if left.is_empty() && uploads.is_empty() {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{left:?} and the uploads {uploads:?} are left");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    no_disk_is_used(&mut cluster).await;
    only_the_log_is_left(objects().await.into_iter());
}
