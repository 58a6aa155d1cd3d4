//! EXPLAIN ANALYZE: what it counts is what the query gives, and what it tells is what the system tables tell.

use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::record_batch::RecordBatch;
use tidemill::client::Client;
use tidemill::output::size;
use tidemill::tpch::QUERIES;
use tidemill_core::{ErrorKind, RunId};
use tidemill_tests::harness::{
    LocalCluster, ProcessCluster, SMALL_SCALE, Shape, create_tpch, logged, rows, tpch_oracle, value,
};

use crate::durable::{SCALE, SLOW, at_least, state_in};

/// Its first stage makes tens of mebibytes in a moment, all others a row or two.
const WIDE: &str = "SELECT count(*) FROM (
        SELECT l_orderkey, l_linenumber, repeat(l_comment, 20) AS s FROM lineitem GROUP BY 1, 2, 3)";
/// At that speed the rows of [`WIDE`] take half a minute to store, and a count next to nothing.
const SLOW_STORE: &str = "2000000";

/// What was reported of a run.
struct Report {
    run: RunId,
    lines: Vec<String>,
}

impl Report {
    async fn of(client: &Client, sql: &str) -> Self {
        let result = client.query(&format!("EXPLAIN ANALYZE {sql}")).await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
        let run = result.run.clone().expect("a run");
        let batches = result.collect().await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
        Self { run, lines: lines(&batches) }
    }

    fn text(&self) -> String {
        self.lines.join("\n")
    }

    fn total(&self) -> &str {
        let total = self.lines.last().expect("a line");
        total.strip_prefix("total · ").unwrap_or_else(|| panic!("{}", self.text()))
    }

    /// The first number of the totals.
    fn rows(&self) -> u64 {
        first_number(self.total())
    }

    /// What is known of each stage, by its number.
    fn stages(&self) -> Vec<(u64, Vec<&str>)> {
        let mut stages = Vec::new();
        for line in &self.lines {
            if let Some(head) = line.strip_prefix("stage ") {
                stages.push((first_number(head), Vec::new()));
            } else if let Some(known) = line.strip_prefix("• ") {
                stages.last_mut().expect("a stage").1.push(known);
            }
        }
        stages.sort();
        stages
    }
}

fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let lines = batches.iter().flat_map(|b| b.column(0).as_string::<i32>().iter().flatten().map(str::to_owned));
    lines.collect()
}

fn first_number(text: &str) -> u64 {
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{text:?}"))
}

fn count(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(RecordBatch::num_rows).sum::<usize>() as u64
}

async fn number(client: &mut Client, what: &str, table: &str, of: &str) -> u64 {
    let sql = format!("SELECT CAST(coalesce({what}, 0) AS BIGINT) FROM system.{table} WHERE run_id = {of}");
    value(client, &sql).await.parse().expect("a number")
}

/// Checks every figure of a report against the system tables.
async fn assert_figures(client: &mut Client, report: &Report) {
    let run = format!("'{}'", report.run);
    let mut stages = 0;
    for (stage, known) in report.stages() {
        let of = format!("{run} AND stage_id = {stage}");
        let rows_in = number(client, "sum(rows_in)", "tasks", &of).await;
        let rows_out = number(client, "rows_out", "stages", &of).await;
        let bytes = size(number(client, "bytes_out", "stages", &of).await);
        let many = |rows: u64| if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") };
        let flow = format!("{} in · {} out · {bytes} out · ", many(rows_in), many(rows_out));
        assert!(known[0].starts_with(&flow), "stage {stage} is not {flow}\n{}", report.text());
        let millis = number(client, "round(sum(task_seconds) * 1000)", "tasks", &of).await;
        let time = format!("{}.{:03} s in tasks ", millis / 1000, millis % 1000);
        assert!(known[1].starts_with(&time), "stage {stage} is not {time}\n{}", report.text());
        let tasks = number(client, "tasks", "stages", &of).await;
        let left_out = number(client, "sum(CASE WHEN left_out_bytes > 0 THEN 1 ELSE 0 END)", "tasks", &of).await;
        // What is stored by now may not have been then.
        let stored = number(client, "count(pack)", "tasks", &of).await;
        assert_outputs(known[2], tasks, stored, left_out, &report.text());
        stages += 1;
    }
    assert_eq!(stages, number(client, "stages", "runs", &run).await, "{}", report.text());
    assert_eq!(report.rows(), number(client, "rows", "runs", &run).await, "{}", report.text());
    let millis = number(client, "round(task_seconds * 1000)", "runs", &run).await;
    let seconds = format!(" · {}.{:03} task seconds · ", millis / 1000, millis % 1000);
    assert!(report.total().contains(&seconds), "not {seconds}\n{}", report.text());
}

/// All outputs of a stage are told of: they are stored, or not yet, or left out.
fn assert_outputs(line: &str, tasks: u64, stored: u64, left_out: u64, context: &str) {
    let plural = if tasks == 1 { "" } else { "s" };
    if line.contains(" not stored: ") {
        assert!(line.starts_with(&format!("{tasks} output{plural} not stored: ")), "{line}\n{context}");
        assert_eq!((stored, left_out), (0, 0), "{line}\n{context}");
        return;
    }
    let then = first_number(line);
    assert!(line.starts_with(&format!("{then} of {tasks} output{plural} in the store")), "{line}\n{context}");
    assert!(then <= stored, "more was stored than {stored}: {line}\n{context}");
    let part = |what: &str| line.split(" · ").find(|part| part.ends_with(what)).map_or(0, first_number);
    assert_eq!(part(" left out by auto"), left_out, "{line}\n{context}");
    assert_eq!(part(" not stored yet"), tasks - left_out - then, "{line}\n{context}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_counts_the_rows_of_the_query_and_tells_what_the_system_tables_tell() {
    let cluster = ProcessCluster::start(2, 1).await;
    let mut client = cluster.client().await;
    create_tpch(&mut client, SMALL_SCALE).await;
    client.set("datafusion.execution.target_partitions", "3").expect("a setting");
    for index in [0, 2, 5, 8, 10, 12, 15, 17, 21] {
        let (name, sql) = QUERIES[index];
        let sql = sql.trim().trim_end_matches(';');
        let expected = count(&rows(&mut client, sql).await);
        let report = Report::of(&client, sql).await;
        assert_eq!(report.rows(), expected, "{name}\n{}", report.text());
        assert_figures(&mut client, &report).await;
        assert!(report.total().contains(" · no store · 0 B stored in 0 packs · "), "{}", report.text());
        // The tree is that of EXPLAIN.
        let plain = lines(&rows(&mut client, &format!("EXPLAIN {sql}")).await);
        let known = |line: &&String| !line.starts_with("• ") && !line.starts_with("total · ");
        let drawn: Vec<&String> = report.lines.iter().filter(known).collect();
        assert_eq!(drawn.len(), plain.len(), "{name}\n{}", report.text());
        for (drawn, plain) in drawn.into_iter().zip(&plain) {
            // Behind operators stands what they did.
            assert!(drawn.starts_with(plain.as_str()), "{name}: {drawn} is not {plain}");
        }
    }
    let nothing = Report::of(&client, "SELECT * FROM nation WHERE n_nationkey < 0").await;
    assert_eq!(nothing.rows(), 0, "{}", nothing.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_auto_left_out_and_what_off_does_not_store_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let environment = [("TIDEMILL_STORE_RATE", SLOW_STORE.to_owned())];
    let cluster = ProcessCluster::with(1, 2, &state_in(folder.path()), &environment).await;
    let mut client = cluster.client().await;
    create_tpch(&mut client, SMALL_SCALE).await;
    client.set("tidemill.durability", "auto").expect("a setting");
    let report = Report::of(&client, WIDE).await;
    assert_figures(&mut client, &report).await;
    let stages = report.stages();
    let (_, first) = &stages[0];
    assert!(first[2].starts_with("0 of ") && first[2].ends_with(" left out by auto"), "{}", report.text());
    assert!(first[3].starts_with("auto left out what took "), "{}", report.text());
    // What is a few bytes is worth it.
    let (_, root) = stages.last().expect("a root");
    assert!(!root[2].contains("left out"), "{}", report.text());
    assert!(root[3].starts_with("auto stores what took "), "{}", report.text());
    assert!(report.total().contains(" · durability auto · "), "{}", report.text());
    client.set("tidemill.durability", "off").expect("a setting");
    let report = Report::of(&client, WIDE).await;
    assert_figures(&mut client, &report).await;
    for (_, known) in report.stages() {
        assert!(known[2].ends_with(" not stored: durability is off"), "{}", report.text());
    }
    assert!(report.total().contains(" · durability off · 0 B stored in 0 packs · "), "{}", report.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_store_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let environment = [("TIDEMILL_YOUNG_MILLIS", "0".to_owned())];
    let cluster = ProcessCluster::with(2, 1, &state_in(folder.path()), &environment).await;
    let mut client = cluster.client().await;
    create_tpch(&mut client, SMALL_SCALE).await;
    let start = Instant::now();
    // Packs are written behind the run: the longer it goes on, the more is stored at its end.
    for longer in 0.. {
        let report = Report::of(&client, &slow(1 << (2 * longer))).await;
        assert_figures(&mut client, &report).await;
        let stored = report.stages().iter().map(|(_, known)| first_number(known[2])).sum::<u64>();
        assert_eq!(report.text().contains(" in the store, in "), stored > 0, "{}", report.text());
        assert_eq!(report.total().contains(" stored in 0 packs "), stored == 0, "{}", report.text());
        if stored > 0 {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "nothing is ever stored:\n{}", report.text());
    }
}

/// [`SLOW`], so many times as long, over fewer rows.
fn slow(times: u32) -> String {
    let slow = SLOW.replace("generate_series(1, 20000)", &format!("generate_series(1, {})", 5_000 * times));
    assert_ne!(slow, SLOW);
    slow
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_leader_reports_when_one_died() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = ProcessCluster::durable(2, 1, &state_in(folder.path())).await;
    let mut client = cluster.client().await;
    create_tpch(&mut client, SCALE).await;
    client.set("datafusion.execution.target_partitions", "8").expect("a setting");
    let result = client.query(&format!("EXPLAIN ANALYZE {SLOW}")).await.expect("a run");
    let run = result.run.clone().expect("a run");
    let reading = tokio::spawn(result.collect());
    let done = format!("SELECT count(*) FROM system.tasks WHERE run_id = '{run}' AND state = 'succeeded'");
    assert!(at_least(&mut client, &done, 4).await, "it does not get on");
    // A leader that died before it noted the run would leave it to its client to submit it again.
    logged(&mut client).await;
    cluster.restart_coordinator();
    let report = Report { run, lines: lines(&reading.await.expect("no panic").expect("a report")) };
    let expected = tpch_oracle(SCALE).await.answer(SLOW).await.expect("an answer");
    assert_eq!(report.rows(), count(&expected.batches), "{}", report.text());
    let mut client = cluster.client().await;
    assert_figures(&mut client, &report).await;
    assert_eq!(number(&mut client, "recoveries", "runs", &format!("'{}'", report.run)).await, 1);
    // What is kept is the report.
    let again = client.fetch(&report.run).await.expect("it is kept").collect().await.expect("lines");
    assert_eq!(lines(&again), report.lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_queries_are_run_for_a_report() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let mut client = cluster.client().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("out.csv");
    let copy = format!("COPY (SELECT 1 AS x) TO '{}' STORED AS CSV", file.display());
    let cases = [
        (copy.as_str(), "runs only queries"),
        ("CREATE TABLE made AS SELECT 1 AS x", "runs only queries"),
        ("CREATE VIEW made AS SELECT 1 AS x", "runs only queries"),
        ("EXPLAIN SELECT 1", "runs only queries"),
        ("SELECT count(*) FROM system.runs", "without stages"),
        ("FORMAT graphviz SELECT 1", "graphviz"),
    ];
    for (sql, words) in cases {
        let refused = client.execute(&format!("EXPLAIN ANALYZE {sql}")).await.err();
        let error = refused.unwrap_or_else(|| panic!("EXPLAIN ANALYZE {sql} was accepted"));
        assert!(error.message.contains(words), "{sql}: {error}");
        assert_eq!(error.kind, ErrorKind::Invalid, "{sql}: {error}");
    }
    assert!(!file.exists());
    assert_eq!(
        value(&mut client, "SELECT count(*) FROM information_schema.tables WHERE table_name = 'made'").await,
        "0"
    );
    // What fails is no report, and what is left out of a result is not counted.
    let failed =
        client.execute("EXPLAIN ANALYZE SELECT CAST('a' || x AS INT) FROM generate_series(1, 3) AS t(x)").await;
    let error = match failed {
        Ok(result) => result.collect().await.expect_err("a letter is no number"),
        Err(error) => error,
    };
    assert!(error.message.contains("a1"), "{error}");
    let series = "SELECT x FROM generate_series(1, 1000) AS t(x) ORDER BY x LIMIT 10";
    assert_eq!(Report::of(&client, series).await.rows(), 10);
    let tasks = rows(&mut client, &format!("EXPLAIN ANALYZE VERBOSE {series}")).await;
    assert!(lines(&tasks).iter().any(|line| line.starts_with("•   task 0 · ")), "{:?}", lines(&tasks));
}

/// The rows behind operators' lines of this name.
fn rows_of(report: &Report, name: &str) -> u64 {
    let lines = report.lines.iter().filter(|line| line.trim_start_matches(['│', ' ']).starts_with(name));
    let told = lines.map(|line| {
        let rows = line.split(" · ").find_map(|part| part.strip_suffix(" rows").or_else(|| part.strip_suffix(" row")));
        rows.and_then(|rows| rows.parse::<u64>().ok()).unwrap_or_else(|| panic!("{line}\n{}", report.text()))
    });
    told.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_tell_their_rows_to_people_and_to_programs() {
    const SQL: &str = "SELECT l_returnflag, count(*) FROM lineitem GROUP BY 1";
    let cluster = LocalCluster::start(Shape { executors: 2, slots: 2 }).await;
    let mut client = cluster.client().await;
    create_tpch(&mut client, SMALL_SCALE).await;
    let lineitems: u64 = value(&mut client, "SELECT count(*) FROM lineitem").await.parse().expect("a number");
    let report = Report::of(&client, SQL).await;
    assert_eq!(rows_of(&report, "DataSourceExec"), lineitems, "{}", report.text());
    let groups = rows_of(&report, "AggregateExec: mode=FinalPartitioned");
    assert_eq!(groups, report.rows(), "{}", report.text());
    let json = async |explain: &str| {
        let told = lines(&rows(&mut cluster.client().await, &format!("{explain} {SQL}")).await);
        serde_json::from_str::<serde_json::Value>(&told.concat()).unwrap_or_else(|e| panic!("{e}: {told:?}"))
    };
    // The tables are the cluster's, so any client sees them.
    let measured = json("EXPLAIN (ANALYZE, FORMAT JSON)").await;
    let stages = measured["stages"].as_array().expect("stages");
    let operators = stages.iter().flat_map(|stage| stage["operators"].as_array().expect("operators"));
    let scanned = operators.filter(|o| o["name"] == "DataSourceExec").filter_map(|o| o["rows"].as_u64()).sum::<u64>();
    assert_eq!((scanned, measured["total"]["rows"].as_u64()), (lineitems, Some(groups)), "{measured}");
    let planned = json("EXPLAIN (FORMAT JSON)").await;
    assert_eq!(planned["stages"].as_array().map(Vec::len), Some(stages.len()), "{planned}");
    assert!(planned["stages"][0].get("actual").is_none() && planned.get("total").is_none(), "{planned}");
}
