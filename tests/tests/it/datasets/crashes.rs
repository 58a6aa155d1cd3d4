//! Processes that die around the list of written files, the version, and the lists' end: a statement's rows are there once.
//! DX5 and DX8 of the rows that datasets must satisfy.

use std::time::{Duration, Instant};

use tidemill_core::ErrorKind;
use tidemill_engine::crash::{DATASET_POINTS, VARIABLE};
use tidemill_tests::harness::s3::S3Server;
use tidemill_tests::harness::{LocalCluster, Process, ProcessCluster, Shape, is_full, logged, rows, value};

use super::{count, create_numbers, files, text, version};

const ROWS: u64 = 50_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Store {
    Folder,
    S3,
}

#[tokio::test(flavor = "multi_thread")]
async fn dx5_a_statement_that_is_killed_anywhere_changes_all_or_nothing_in_a_folder() {
    every_point(Store::Folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dx5_a_statement_that_is_killed_anywhere_changes_all_or_nothing_on_s3() {
    every_point(Store::S3).await;
}

async fn every_point(store: Store) {
    let s3 = match store {
        Store::Folder => None,
        Store::S3 => {
            let server = tokio::task::spawn_blocking(S3Server::start).await.expect("a server");
            server.create_bucket("lake");
            Some(server)
        }
    };
    let points = DATASET_POINTS.into_iter().chain(["log.intent", "log.finish"]);
    for (index, point) in points.enumerate() {
        for (number, side) in ["before", "after"].into_iter().enumerate() {
            // Beside the one that has the point, everybody else dies in every second.
            let everybody = (index + number) % 2 == 1;
            for everybody in if is_full() { vec![false, true] } else { vec![everybody] } {
                let folder = tempfile::tempdir().expect("a folder");
                let (location, environment) = match &s3 {
                    None => (folder.path().join("t").display().to_string(), Vec::new()),
                    Some(server) => (format!("s3://lake/{point}-{side}-{everybody}/t"), server.environment().to_vec()),
                };
                let context = format!("{point}:{side}, everybody: {everybody}, {store:?}");
                let state = format!("file://{}", folder.path().join("state").display());
                let cluster = ProcessCluster::with(1, 1, &state, &environment).await;
                die_at(cluster, point, side, everybody, &location, &context).await;
            }
        }
    }
}

async fn die_at(mut cluster: ProcessCluster, point: &str, side: &str, everybody: bool, location: &str, context: &str) {
    let armed = [(VARIABLE, format!("{point}:{side}:1"))];
    let mut client = cluster.client().await;
    let create = format!(
        "CREATE EXTERNAL TABLE t (k BIGINT, v BIGINT) STORED AS DELTA PARTITIONED BY (k) LOCATION '{location}'"
    );
    rows(&mut client, &create).await;
    assert_eq!(count(&mut client, "INSERT INTO t VALUES (0, -1)").await, 1, "{context}");
    logged(&mut client).await;
    let is_executors = point == "dataset.manifest";
    if is_executors {
        cluster.add_executor_with(1, &armed);
        cluster.wait_for_executors(2).await;
    } else {
        cluster.add_executor(1);
        cluster.wait_for_executors(2).await;
        // Nobody asks it for anything before: the end of each statement is a point.
        cluster.restart_coordinator_with(&armed);
    }
    let mut client = cluster.client().await;
    client.set("datafusion.execution.target_partitions", "4").expect("a setting");
    let statement =
        format!("INSERT INTO t SELECT v % 3, v FROM (SELECT DISTINCT x AS v FROM generate_series(1, {ROWS}) AS g(x))");
    let work = tokio::spawn(async move { client.query(&statement).await?.collect().await });
    strike(&mut cluster, is_executors, everybody, context).await;
    work.await.expect("no panic").unwrap_or_else(|e| panic!("{context}: {e}"));
    let mut client = cluster.client().await;
    let seen = text(&mut client, "SELECT count(*), count(DISTINCT v), sum(v) FROM t").await;
    let sum = ROWS * (ROWS + 1) / 2 - 1;
    assert_eq!(seen, format!("{0} {0} {sum}", ROWS + 1), "{context}");
    assert_eq!(version(&mut client, "t").await, "2", "{context}: not one version");
    assert_eq!(count(&mut client, "SELECT count(*) FROM t VERSION AS OF 1").await, 1, "{context}");
    // What no version names is gone, when it is swept.
    rows(&mut client, "VACUUM t RETAIN 0 HOURS").await;
    assert_eq!(text(&mut client, "VACUUM t RETAIN 0 HOURS DRY RUN").await, "0 0", "{context}");
    assert_eq!(value(&mut client, "SELECT sum(v) FROM t").await, sum.to_string(), "{context}");
}

async fn strike(cluster: &mut ProcessCluster, is_executors: bool, everybody: bool, context: &str) {
    let victim = match is_executors {
        true => cluster.executors.last_mut().expect("an executor"),
        false => &mut cluster.coordinator,
    };
    until_killed(victim, context).await;
    if everybody {
        cluster.executors.iter_mut().for_each(Process::kill);
    }
    if !is_executors || everybody {
        cluster.restart_coordinator();
    }
    if everybody {
        cluster.executors.clear();
        cluster.add_executor(1);
    }
    if is_executors || everybody {
        cluster.add_executor(1);
    }
}

async fn until_killed(victim: &mut Process, context: &str) {
    let start = Instant::now();
    while !victim.was_killed() {
        assert!(start.elapsed() < Duration::from_secs(40), "{context}: the point was not reached");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_made_while_its_coordinator_dies_is_made_once() {
    for side in ["before", "after"] {
        let folder = tempfile::tempdir().expect("a folder");
        let state = format!("file://{}", folder.path().join("state").display());
        let mut cluster = ProcessCluster::durable(1, 2, &state).await;
        cluster.restart_coordinator_with(&[(VARIABLE, format!("dataset.commit:{side}:1"))]);
        cluster.wait_for_executors(1).await;
        let create = format!(
            "CREATE TABLE t STORED AS DELTA LOCATION '{}' AS SELECT x FROM generate_series(1, 1000) AS g(x)",
            folder.path().join("t").display()
        );
        let client = cluster.client().await;
        let work = tokio::spawn(async move { client.query(&create).await?.collect().await });
        strike(&mut cluster, false, false, side).await;
        work.await.expect("no panic").unwrap_or_else(|e| panic!("{side}: {e}"));
        let mut client = cluster.client().await;
        assert_eq!(text(&mut client, "SELECT count(*), sum(x) FROM t").await, "1000 500500", "{side}");
        assert_eq!(version(&mut client, "t").await, "0", "{side}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interval_that_ends_inside_of_a_file_is_replaced_once_or_not_at_all() {
    for others_append in [false, true] {
        let context = format!("others append: {others_append}");
        let folder = tempfile::tempdir().expect("a folder");
        let location = folder.path().join("t").display().to_string();
        let state = format!("file://{}", folder.path().join("state").display());
        let mut cluster = ProcessCluster::durable(1, 2, &state).await;
        let mut client = cluster.client().await;
        let create = format!("CREATE EXTERNAL TABLE t (day BIGINT, v BIGINT) STORED AS DELTA LOCATION '{location}'");
        rows(&mut client, &create).await;
        let days = "INSERT INTO t SELECT x % 3, x FROM generate_series(0, 29) AS g(x)";
        assert_eq!(count(&mut client, days).await, 30, "{context}");
        logged(&mut client).await;
        // The files are written and the commit is decided, but not made.
        cluster.restart_coordinator_with(&[(VARIABLE, "dataset.commit:before:1".to_owned())]);
        cluster.wait_for_executors(1).await;
        let client = cluster.client().await;
        let replace =
            "INSERT INTO t REPLACE WHERE day >= 1 AND day < 2 SELECT 1, -x FROM generate_series(1, 5) AS g(x)";
        let work = tokio::spawn(async move { client.query(replace).await?.collect().await });
        until_killed(&mut cluster.coordinator, &context).await;
        if others_append {
            append_days(&location).await;
        }
        cluster.restart_coordinator();
        cluster.wait_for_executors(1).await;
        let answered = work.await.expect("no panic");
        let mut client = cluster.client().await;
        let sums = "SELECT day, count(*), sum(v) FROM t GROUP BY day ORDER BY day";
        if others_append {
            let error = answered.expect_err("a file of the interval came");
            assert_eq!(error.kind, ErrorKind::Conflict, "{context}: {error}");
            assert_eq!(text(&mut client, sums).await, "0 11 235; 1 11 246; 2 11 257", "{context}");
            assert_eq!(value(&mut client, replace).await, "5", "{context}");
            assert_eq!(text(&mut client, sums).await, "0 11 235; 1 5 -15; 2 11 257", "{context}");
        } else {
            answered.unwrap_or_else(|e| panic!("{context}: {e}"));
            assert_eq!(text(&mut client, sums).await, "0 10 135; 1 5 -15; 2 10 155", "{context}");
        }
        let versions = if others_append { "3" } else { "2" };
        assert_eq!(version(&mut client, "t").await, versions, "{context}");
    }
}

/// Another cluster adds a file with rows of three days.
async fn append_days(location: &str) {
    let other = LocalCluster::start(Shape { executors: 1, slots: 1 }).await;
    let mut writer = other.client().await;
    rows(&mut writer, &format!("CREATE EXTERNAL TABLE t STORED AS DELTA LOCATION '{location}'")).await;
    let append = "INSERT INTO t SELECT x % 3, 100 + x FROM generate_series(0, 2) AS g(x)";
    assert_eq!(count(&mut writer, append).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn dx8_attempts_write_apart_the_version_comes_last_and_vacuum_takes_what_the_dead_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let (table, state) = (folder.path().join("t"), format!("file://{}", folder.path().join("state").display()));
    let mut cluster = ProcessCluster::durable(1, 1, &state).await;
    let mut client = cluster.client().await;
    create_numbers(&mut client, &table.display().to_string()).await;
    assert_eq!(count(&mut client, "INSERT INTO t VALUES (0, 'first')").await, 1);
    let first = files(&table, ".parquet");
    let new = |known: &[&[String]]| {
        let all = files(&table, ".parquet").into_iter();
        all.filter(|file| !known.iter().any(|known| known.contains(file))).collect::<Vec<_>>()
    };
    // The only executor dies when its files are whole, and before it can name them.
    cluster.executors[0].kill();
    cluster.executors.clear();
    cluster.add_executor_with(1, &[(VARIABLE, "dataset.manifest:before:1".to_owned())]);
    cluster.wait_for_executors(1).await;
    let insert = "INSERT INTO t SELECT x, 'second' FROM generate_series(1, 1000) AS g(x)";
    let writer = cluster.client().await;
    let work = tokio::spawn(async move { writer.query(insert).await?.collect().await });
    let start = Instant::now();
    while !cluster.executors[0].was_killed() {
        assert!(start.elapsed() < Duration::from_secs(40), "the point was not reached");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let dead = new(&[&first]);
    let entry = table.join("_delta_log/00000000000000000002.json");
    assert!(!dead.is_empty() && !entry.exists(), "{dead:?} are of a version");
    cluster.executors.clear();
    cluster.add_executor(1);
    work.await.expect("no panic").expect("rows");
    // Another attempt wrote files of its own, and the version has only these.
    let second = new(&[&first, &dead]);
    let named = std::fs::read_to_string(&entry).expect("a version");
    assert!(!second.is_empty() && second.iter().all(|file| named.contains(file)), "{second:?} are not in {named}");
    assert!(dead.iter().all(|file| table.join(file).exists() && !named.contains(file)), "{dead:?}: {named}");
    assert_eq!(text(&mut client, "SELECT count(*), sum(id) FROM t").await, "1001 500500");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let swept = text(&mut client, "VACUUM t RETAIN 0 HOURS").await;
    assert!(swept.starts_with(&format!("{} ", dead.len())), "{swept} of {dead:?}");
    assert_eq!(new(&[&first, &second]), Vec::<String>::new());
    assert_eq!(text(&mut client, "SELECT count(*), sum(id) FROM t").await, "1001 500500");
    assert_eq!(count(&mut client, "SELECT count(*) FROM t VERSION AS OF 1").await, 1);
}
