//! Random queries over random tables are answered as in-process DataFusion answers them. A failing one is shrunk,
//! printed, and kept in `tests/queries/found/`, whose files are run first.
//!
//! `TIDEMILL_SEED=K` runs one seed, `TIDEMILL_QUERY_SEEDS=N` so many.

use std::fs;
use std::path::{Path, PathBuf};

use tidemill::client::Client;
use tidemill::oracle::{Oracle, compare};
use tidemill_tests::harness::{LocalCluster, Shape, rows};
use tidemill_tests::random::{Relation, grow, shrink, write_tables};

/// Seeds in CI.
const SEEDS: u64 = 400;
/// Seeds that share their tables.
const SEEDS_PER_TABLES: u64 = 40;
/// First line of a kept query.
const TABLES_OF: &str = "-- tables of seed ";

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// A cluster and an oracle with the tables of one seed.
struct Pair {
    client: Client,
    oracle: Oracle,
    /// Their lives.
    _cluster: LocalCluster,
    _folder: tempfile::TempDir,
}

impl Pair {
    async fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let oracle = Oracle::new(2, 1 << 30).expect("an oracle");
        let cluster = LocalCluster::start(Shape { executors: 2, slots: 2 }).await;
        let mut client = cluster.client().await;
        for create in write_tables(seed, folder.path()).await {
            let made = oracle.context().sql(&create).await.expect("a table");
            made.collect().await.expect("a table");
            rows(&mut client, &create).await;
        }
        Self { client, oracle, _cluster: cluster, _folder: folder }
    }

    /// What is wrong with our answer; `None` too if DataFusion has none.
    async fn difference(&mut self, sql: &str, partitions: u64) -> Result<Option<String>, tidemill::Error> {
        let expected = self.oracle.answer(sql).await?;
        self.client.set("datafusion.execution.target_partitions", &partitions.to_string()).expect("a setting");
        let ours = match self.client.execute(sql).await {
            Ok(result) => result.collect().await,
            Err(error) => Err(error),
        };
        Ok(match ours {
            Ok(batches) => compare(&expected, &batches).expect("a comparison").map(|d| d.to_string()),
            Err(error) => Some(error.to_string()),
        })
    }
}

const fn partitions(seed: u64) -> u64 {
    [1, 2, 3, 8][(seed % 4) as usize]
}

fn found() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("queries/found")
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_once_failed_are_answered_as_datafusion_does() {
    let mut files: Vec<PathBuf> =
        fs::read_dir(found()).map(|d| d.map(|e| e.expect("an entry").path()).collect()).unwrap_or_default();
    files.sort();
    for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "sql")) {
        let text = fs::read_to_string(file).expect("a file");
        let (first, sql) = text.split_once('\n').expect("two lines");
        let seed: u64 = first.strip_prefix(TABLES_OF).expect("the tables' seed").parse().expect("a number");
        let mut pair = Pair::new(seed).await;
        for partitions in [1, 2, 3, 8] {
            let difference = pair.difference(sql.trim(), partitions).await.expect("an answer of DataFusion");
            assert_eq!(difference, None, "{} with {partitions} partitions", file.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_queries_are_answered_as_datafusion_does() {
    let seeds = match variable("TIDEMILL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("TIDEMILL_QUERY_SEEDS").unwrap_or(SEEDS),
    };
    let (count, mut answered) = (seeds.end - seeds.start, 0);
    let mut pair: Option<(u64, Pair)> = None;
    for seed in seeds {
        let tables = seed / SEEDS_PER_TABLES;
        let pair = match pair.take() {
            Some((of, kept)) if of == tables => pair.insert((of, kept)),
            _ => pair.insert((tables, Pair::new(tables).await)),
        };
        let query = grow(seed);
        // What DataFusion itself refuses is no question.
        let Ok(difference) = pair.1.difference(&query.sql(), partitions(seed)).await else { continue };
        answered += 1;
        if difference.is_some() {
            report(seed, tables, query, &mut pair.1).await;
        }
    }
    assert!(count == 1 || answered * 10 >= count * 7, "only {answered} of {count} queries have an answer");
}

async fn report(seed: u64, tables: u64, query: Relation, pair: &mut Pair) {
    let partitions = partitions(seed);
    let smallest = shrink(query.clone(), async |candidate: &Relation| {
        matches!(pair.difference(&candidate.sql(), partitions).await, Ok(Some(_)))
    })
    .await;
    let difference = pair.difference(&smallest.sql(), partitions).await.ok().flatten().unwrap_or_default();
    let file = found().join(format!("seed-{seed}.sql"));
    fs::create_dir_all(found()).expect("a folder");
    fs::write(&file, format!("{TABLES_OF}{tables}\n{}\n", smallest.sql())).expect("a file");
    panic!(
        "seed {seed}, {partitions} partitions: {difference}\n{}\nshrunk and kept in {}:\n{}",
        query.sql(),
        file.display(),
        smallest.sql()
    );
}
