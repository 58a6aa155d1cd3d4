//! Hostile input: whatever bytes arrive, they end in an error, never in a panic, and others' runs go on.

use std::time::{Duration, Instant};

use arrow::array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, Int64Array, ListArray, NullArray, StringArray, StringViewArray,
    StructArray,
};
use arrow::datatypes::{Field, Int32Type, Int64Type};
use arrow::record_batch::RecordBatch;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{Action, Ticket};
use bytes::Bytes;
use fastrand::Rng;
use futures::FutureExt;
use prost::Message;
use std::sync::Arc;
use tidemill::client::Client;
use tidemill::compose::raise_open_files;
use tidemill::session::{redact, statements};
use tidemill_core::record::Footer;
use tidemill_core::{Attempt, Epoch, ExecutorId, RunId, StageId};
use tidemill_engine::exchange::frame::{Compression, Frame};
use tidemill_engine::exchange::{
    Holder, Manifest, ManifestOutput, PondSlot, ResultKeeper, read_kept_blob, result_name,
};
use tidemill_engine::wire;
use tidemill_tests::harness::{LocalCluster, Process, Shape, is_full, value};
use tidemill_tests::random::{mutate, mutate_text};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Connections that say nothing.
const CONNECTIONS: usize = 1000;
/// Results that nobody reads: more than runs go on at once, and than streams fit on a connection that others need.
const UNREAD: usize = 24;
/// How long an answer may take, also where other builds run.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long each kind of input is tried.
fn budget() -> Duration {
    Duration::from_secs(if is_full() { 60 } else { 2 })
}

/// Tries changed inputs until the time is over; a failure names its seed.
fn try_all(what: &str, mut attempt: impl FnMut(&mut Rng)) {
    let (start, mut seed) = (Instant::now(), 0);
    while start.elapsed() < budget() {
        let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| attempt(&mut Rng::with_seed(seed))));
        assert!(tried.is_ok(), "{what} panics with seed {seed}");
        seed += 1;
    }
    assert!(seed > 100, "only {seed} inputs were tried: {what}");
}

fn batch() -> RecordBatch {
    let columns: [(&str, ArrayRef); 2] = [
        ("n", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))),
        ("s", Arc::new(StringArray::from(vec!["a", "bb", "ccc"]))),
    ];
    RecordBatch::try_from_iter(columns).expect("a batch")
}

#[test]
fn statements_of_any_kind_are_divided_and_parsed_or_refused() {
    let corpus = [
        "SELECT a, sum(b) OVER (PARTITION BY c ORDER BY d) FROM t WHERE e LIKE 'x%' -- note\n;",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://b/t' OPTIONS ('aws.secret' 'abc');",
        "EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM (VALUES (1, 'ü'), (2, $$x$$)) v(a, b)",
        "COPY (SELECT 1) TO 'f.parquet'; /* a /* nested */ comment */ SHOW ALL; SET x = 1",
        "WITH RECURSIVE r AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT * FROM r WHERE ((((1)))) = 1",
    ];
    try_all("a statement", |rng| {
        let origin = corpus[rng.usize(..corpus.len())];
        let text = mutate_text(rng, origin);
        let _ = (redact(&text), statements::may_change(&text));
        for statement in statements::split(&text).unwrap_or_default() {
            let _ = statements::parse_one(&statement);
        }
    });
}

#[test]
fn frames_and_manifests_are_read_or_refused() {
    let frame = Frame::encode(&batch(), Compression::Lz4).expect("a frame");
    let bytes = frame.to_bytes();
    try_all("a frame", |rng| {
        if let Ok(read) = Frame::from_bytes(Bytes::from(mutate(rng, &bytes)), frame.crc) {
            assert_eq!(read, frame, "what has the same checksum is the same");
        }
    });
    let attempt = Attempt { epoch: Epoch(1), counter: 2 };
    let holder = Holder { executor: ExecutorId("e".to_owned()), endpoint: "http://127.0.0.1:1".to_owned() };
    let output = ManifestOutput { attempt, holder, footer: Footer::default(), pack: None };
    let manifest = Manifest { stage: StageId(0), outputs: vec![output] }.encode();
    try_all("a manifest", |rng| {
        let _ = Manifest::decode(&mutate(rng, &manifest));
    });
}

/// Columns of the kinds that have different numbers of buffers.
fn wide_batch() -> RecordBatch {
    let (numbers, text) = (0..300, |n: i64| format!("word {} of some length", n % 7));
    let letters = StringArray::from_iter_values(numbers.clone().map(text));
    let field = |name: &str, column: &ArrayRef| Arc::new(Field::new(name, column.data_type().clone(), true));
    let inner: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers.clone()));
    let nested = StructArray::from(vec![(field("i", &inner), inner)]);
    let lists = numbers.clone().map(|n| (n % 5 > 0).then(|| vec![Some(n), None]));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("number", Arc::new(numbers.clone().map(|n| (n % 3 > 0).then_some(n)).collect::<Int64Array>())),
        ("truth", Arc::new(numbers.clone().map(|n| (n % 4 > 0).then_some(n % 2 == 0)).collect::<BooleanArray>())),
        ("view", Arc::new(numbers.clone().map(|n| Some(text(n))).collect::<StringViewArray>())),
        ("word", Arc::new(letters.iter().collect::<DictionaryArray<Int32Type>>())),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))),
        ("nested", Arc::new(nested)),
        ("nothing", Arc::new(NullArray::new(300))),
        ("letters", Arc::new(letters)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .expect("a batch")
}

/// What a peer encodes that is broken, or hostile: wrong bytes under a right checksum.
#[test]
fn frames_whose_checksum_fits_are_decoded_or_refused() {
    let batch = wide_batch();
    for compression in [Compression::None, Compression::Lz4] {
        let frame = Frame::encode(&batch, compression).expect("a frame");
        assert_eq!(frame.decode(&batch.schema()).expect("the batch"), batch);
        let (mut decoded, mut refused) = (0, 0);
        try_all("a frame whose checksum fits", |rng| {
            let mut messages = frame.messages.clone();
            let message = &mut messages[rng.usize(..frame.messages.len())];
            let part = if rng.bool() { &mut message.header } else { &mut message.body };
            *part = Bytes::from(mutate(rng, part));
            let changed = Frame::of(messages);
            let read = Frame::from_bytes(changed.to_bytes(), changed.crc).expect("what was written is read");
            match read.decode(&batch.schema()) {
                Ok(other) => {
                    decoded += 1;
                    for column in other.columns() {
                        column.to_data().validate_full().expect("a batch of valid columns");
                    }
                }
                Err(error) => {
                    refused += 1;
                    assert!(error.message.contains("a frame cannot be decoded"), "{error}");
                }
            }
        });
        assert!(decoded > 10 && refused > 10, "{decoded} were decoded, {refused} refused: that tries nothing");
    }
}

#[tokio::test]
async fn indexes_of_packs_are_read_or_refused() {
    let name = result_name(&RunId("r".to_owned()), "w");
    let (folder, pond) = (tempfile::tempdir().expect("a folder"), PondSlot::default());
    pond.open(&format!("file://{}", folder.path().display())).expect("a pond");
    let keeper = ResultKeeper::begin(name, &batch().schema(), &pond).expect("a keeper");
    let mut keeper = keeper.expect("a keeper");
    keeper.push(&batch()).await.expect("room");
    let (_, blob) = keeper.finish_small();
    assert!(read_kept_blob(&blob.bytes).is_ok());
    let read = |bytes: Vec<u8>| {
        let Ok((_, rows)) = read_kept_blob(&Bytes::from(bytes)) else { return };
        let _ = futures::StreamExt::collect::<Vec<_>>(rows).now_or_never();
    };
    try_all("an index", |rng| read(mutate(rng, &blob.bytes)));
    try_all("a well-formed index of places that are not there", |rng| read(with_places(rng, &blob.bytes)));
}

/// A kept result whose frames lie anywhere.
fn with_places(rng: &mut Rng, bytes: &[u8]) -> Vec<u8> {
    // The index, its checksum and length, and eight bytes that say what it is.
    let (rest, tail) = bytes.split_at(bytes.len() - 16);
    let length = u32::from_le_bytes(tail[4..8].try_into().expect("four bytes")) as usize;
    let (frames, index) = rest.split_at(rest.len() - length);
    let mut index = wire::PackIndex::decode(index).expect("an index");
    for frame in index.blocks.iter_mut().flat_map(|block| &mut block.frames) {
        let mut place = || [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX, rng.u64(..)][rng.usize(..6)];
        (frame.offset, frame.length) = (place(), place());
    }
    let index = index.encode_to_vec();
    let length = u32::try_from(index.len()).expect("a short index");
    [frames, &index, &tail[..4], &length.to_le_bytes(), &tail[8..]].concat()
}

/// Whoever panics while it answers leaves a broken call behind, which no peer's own words explain.
fn refused_by_a_peer<T>(answer: Result<T, Status>) {
    let Err(status) = answer else { return };
    let by_connection = matches!(status.code(), Code::Unknown | Code::Unavailable | Code::Cancelled | Code::Internal);
    // Our own errors have details.
    assert!(!by_connection || !status.details().is_empty(), "{status:?}");
}

/// Tickets, actions and messages of all kinds at the doors of a cluster; afterwards it answers as before.
#[tokio::test(flavor = "multi_thread")]
async fn tickets_and_messages_of_any_kind_are_refused_and_the_cluster_goes_on() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 1 }).await;
    let mut client = cluster.client().await;
    let statement = wire::StatementTicket {
        sql: "SELECT 1".to_owned(),
        build: wire::BUILD.to_owned(),
        run: "r".to_owned(),
        seen_messages: 1,
        ..Default::default()
    };
    let task = Some(wire::TaskId { stage: 0, index: 0 });
    let block = wire::BlockRef { task, attempt: Some(wire::Attempt { epoch: 1, counter: 1 }), ..Default::default() };
    let executor = cluster.coordinator.coordinator().state().await.expect("a state").executors.keys().next().cloned();
    let blocks = wire::BlockTicket {
        executor: executor.expect("an executor").0,
        run: "r".to_owned(),
        epoch: 1,
        blocks: vec![block],
        ..Default::default()
    };
    let doors = [
        (cluster.url(), statement.encode_to_vec()),
        (format!("http://{}", cluster.executors[0].address), blocks.encode_to_vec()),
    ];
    for (url, ticket) in doors {
        let channel = Channel::from_shared(url).expect("a URL").connect().await.expect("a door");
        let mut door = FlightServiceClient::new(channel);
        let (start, mut rng) = (Instant::now(), Rng::with_seed(7));
        while start.elapsed() < budget() {
            let bytes = mutate(&mut rng, &ticket);
            let asked = async {
                let mut messages = door.do_get(Ticket { ticket: bytes.clone().into() }).await?.into_inner();
                while messages.message().await?.is_some() {}
                Ok::<_, Status>(())
            };
            let answer = tokio::time::timeout(Duration::from_secs(30), asked).await.expect("an end of the answer");
            refused_by_a_peer(answer);
            let action = Action { r#type: wire::PROGRESS_ACTION.to_owned(), body: bytes.into() };
            refused_by_a_peer(door.do_action(action).await);
        }
    }
    assert_eq!(value(&mut client, "SELECT 40 + 2").await, "42");
    assert_eq!(value(&mut client, "SELECT count(*) FROM system.executors WHERE state = 'alive'").await, "1");
}

/// More clients than anybody has, some of whom say nothing, or read nothing of a long answer: more of these than runs go on at
/// once.
#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_and_slow_readers_keep_nobody_from_an_answer() {
    let files = raise_open_files();
    assert!(files > 2 * CONNECTIONS as u64, "this system allows {files} open files: raise its hard limit (ulimit -Hn)");
    // As most systems start it, or with less.
    let server = ["server", "--bind", "127.0.0.1:0", "--slots", "2", "--memory", "256MiB"];
    let server = Process::start_with_open_files(256, &server);
    let mut client = Client::connect(&server.url()).await.expect("a client");
    let address = server.url().trim_start_matches("http://").to_owned();
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        silent.push(tokio::net::TcpStream::connect(&address).await.expect("a connection"));
    }
    let mut unread = Vec::new();
    for number in 0..UNREAD {
        let reader = Client::connect(&server.url()).await.expect("a client");
        let sql = format!("SELECT value, repeat('x', 100) AS x FROM generate_series({number}, 200000 + {number})");
        let run = tokio::time::timeout(PATIENCE, reader.query(&sql)).await;
        unread.push(run.unwrap_or_else(|_| panic!("run {number} has no turn")).expect("a run"));
    }
    let answer = tokio::time::timeout(PATIENCE, value(&mut client, "SELECT 40 + 2"));
    assert_eq!(answer.await.expect("an answer in time"), "42");
    let waiting = "SELECT count(*) FROM system.runs WHERE state = 'running' AND statement LIKE '%repeat%' \
                   AND statement NOT LIKE '%system.runs%'";
    assert_eq!(value(&mut client, waiting).await, UNREAD.to_string(), "they are to be unread");
    // Whoever reads at last gets all.
    let late = unread.pop().expect("a result").collect();
    let late = tokio::time::timeout(PATIENCE, late).await.expect("rows in time").expect("rows");
    assert_eq!(late.iter().map(RecordBatch::num_rows).sum::<usize>(), 200_001);
    drop((silent, unread));
    assert_eq!(value(&mut client, "SELECT 1").await, "1");
}

/// The same for rows that only the coordinator has.
#[tokio::test(flavor = "multi_thread")]
async fn unread_rows_of_the_coordinators_own_keep_nobody_from_an_answer() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let mut client = cluster.client().await;
    let settings = "information_schema.df_settings";
    let many = format!("SELECT * FROM {settings} AS a CROSS JOIN {settings} AS b CROSS JOIN {settings} AS c");
    let mut unread = Vec::new();
    for number in 0..UNREAD {
        let reader = cluster.client().await;
        let run = tokio::time::timeout(PATIENCE, reader.query(&many)).await;
        unread.push(run.unwrap_or_else(|_| panic!("run {number} has no turn")).expect("a run"));
    }
    let answer = tokio::time::timeout(PATIENCE, value(&mut client, "SELECT count(*) FROM system.executors"));
    assert_eq!(answer.await.expect("an answer in time"), "1");
    // A client counts as slow after a moment.
    let start = Instant::now();
    loop {
        let state = cluster.coordinator.coordinator().state().await.expect("a state");
        let waiting = state.runs.values().filter(|run| run.waits_for_client()).count();
        if waiting >= UNREAD - 16 {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{waiting} are unread");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(unread);
}
