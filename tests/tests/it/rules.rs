//! One test per rule of the stage planner (`docs/planner.md`), named after it: it fails when the rule is switched off.
//! `cargo run -p tidemill-tests -- mutants` switches each off and checks that.

use arrow::util::pretty::pretty_format_batches;
use tidemill::client::Client;
use tidemill_core::ErrorKind;
use tidemill_tests::harness::{LocalCluster, Shape, create_small_tables, rows, value};

async fn cluster(executors: u32) -> (LocalCluster, Client) {
    let cluster = LocalCluster::start(Shape { executors, slots: 2 }).await;
    let mut client = cluster.client().await;
    for create in create_small_tables().await {
        rows(&mut client, &create).await;
    }
    partitions(&mut client, 4);
    (cluster, client)
}

fn partitions(client: &mut Client, count: u32) {
    client.set("datafusion.execution.target_partitions", &count.to_string()).expect("a setting");
}

async fn explain(client: &mut Client, sql: &str) -> String {
    pretty_format_batches(&rows(client, &format!("EXPLAIN {sql}")).await).expect("text").to_string()
}

/// The error of a statement, whenever it comes.
async fn error(client: &mut Client, sql: &str) -> tidemill::Error {
    match client.execute(sql).await {
        Ok(result) => result.collect().await.err().unwrap_or_else(|| panic!("{sql} was answered")),
        Err(error) => error,
    }
}

/// What switches a rule off is still where it was.
#[test]
fn every_mutant_has_exactly_one_place() {
    for mutant in tidemill_tests::mutants::MUTANTS {
        let text = std::fs::read_to_string(tidemill_tests::mutants::root().join(mutant.file)).expect(mutant.file);
        assert_eq!(text.matches(mutant.from).count(), 1, "{mutant:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_01_unsafe_settings_of_a_client_change_nothing() {
    let (_cluster, mut client) = cluster(2).await;
    for unsafe_setting in [
        "datafusion.execution.enable_file_stream_work_stealing",
        "datafusion.optimizer.enable_round_robin_repartition",
        "datafusion.optimizer.prefer_existing_sort",
        "datafusion.optimizer.enable_dynamic_filter_pushdown",
        "datafusion.optimizer.enable_join_dynamic_filter_pushdown",
        "datafusion.optimizer.enable_window_topn",
        "datafusion.optimizer.enable_piecewise_merge_join",
    ] {
        client.set(unsafe_setting, "true").expect("a setting");
    }
    assert_eq!(value(&mut client, "SELECT count(*) FROM many").await, "3000");
    let join = "SELECT count(*) FROM many a JOIN many b ON a.id = b.id WHERE a.g < 3";
    assert_eq!(value(&mut client, join).await, "1286");
    let windowed =
        "SELECT count(*) FROM (SELECT row_number() OVER (PARTITION BY g ORDER BY id) AS r FROM many) WHERE r = 1";
    assert_eq!(value(&mut client, windowed).await, "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_02_endless_tables_are_refused() {
    let (_cluster, mut client) = cluster(1).await;
    let create = "CREATE UNBOUNDED EXTERNAL TABLE endless (a INT) STORED AS CSV LOCATION '/dev/null'";
    let refused = error(&mut client, create).await;
    assert!(refused.message.contains("never ends"), "{refused}");
    assert_eq!(refused.kind, ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_03_what_only_the_coordinator_knows_needs_no_executor_and_reaches_executors_as_rows() {
    let (_empty, mut alone) = cluster(0).await;
    assert_eq!(value(&mut alone, "SELECT count(*) FROM information_schema.tables WHERE table_name = 'few'").await, "1");
    assert!(explain(&mut alone, "SELECT * FROM few").await.contains("stage 0"));
    let (_cluster, mut client) = cluster(1).await;
    let joined = "SELECT count(*) FROM generate_series(1, 5) AS t(x) JOIN few ON x = id";
    assert_eq!(value(&mut client, joined).await, "5");
    let plan = explain(&mut client, joined).await;
    assert!(!plan.contains("LazyMemoryExec"), "{plan}");
    let tables = "SELECT count(*) FROM information_schema.tables t JOIN few ON length(t.table_name) = id WHERE table_name = 'few'";
    assert_eq!(value(&mut client, tables).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_04_a_scalar_subquery_is_computed_once_and_has_at_most_one_row() {
    let (_cluster, mut client) = cluster(2).await;
    let query = "SELECT count(*) FROM many WHERE id > (SELECT max(id) - 10 FROM many)";
    let plan = explain(&mut client, query).await;
    assert!(plan.contains("(one value)") && !plan.contains("ScalarSubqueryExec"), "{plan}");
    assert_eq!(value(&mut client, query).await, "10");
    assert_eq!(value(&mut client, "SELECT (SELECT k FROM empty) IS NULL").await, "true");
    let several = error(&mut client, "SELECT count(*) FROM many WHERE id = (SELECT id FROM few)").await;
    assert!(several.message.contains("several rows"), "{several}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_05_joins_share_no_state_between_tasks() {
    let (_cluster, mut client) = cluster(2).await;
    let plan = explain(&mut client, "SELECT count(*) FROM few a JOIN many b ON a.k = b.k").await;
    assert!(plan.contains("(broadcast)"), "{plan}");
    for kind in ["LEFT", "FULL", "LEFT ANTI", "LEFT SEMI"] {
        let plan = explain(&mut client, &format!("SELECT count(*) FROM few a {kind} JOIN many b ON a.k = b.k")).await;
        let safe = plan.contains("mode=Partitioned") || plan.contains("join_type=Right");
        assert!(safe, "{kind}: {plan}");
    }
    assert_eq!(value(&mut client, "SELECT count(*) FROM few a LEFT ANTI JOIN many b ON a.k = b.k").await, "2");
    assert_eq!(value(&mut client, "SELECT count(*) FROM few a LEFT JOIN many b ON a.id = b.id").await, "9");
    assert_eq!(value(&mut client, "SELECT count(*) FROM few a FULL JOIN many b ON a.id > b.id + 8").await, "3009");
    assert_eq!(value(&mut client, "SELECT count(*) FROM one a LEFT JOIN many b ON a.id > b.id + 100").await, "1");
    // One NULL anywhere empties the result.
    assert_eq!(value(&mut client, "SELECT count(*) FROM many WHERE id NOT IN (SELECT k FROM skew)").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_06_no_repartition_is_left_inside_a_stage() {
    let (_cluster, mut client) = cluster(2).await;
    for query in [
        "SELECT k, count(*) FROM many GROUP BY k",
        "SELECT count(*) FROM few a LEFT JOIN skew b ON a.k = b.k",
        "SELECT id, rank() OVER (PARTITION BY k ORDER BY id) FROM many",
        "SELECT k FROM many UNION SELECT k FROM skew",
    ] {
        let plan = explain(&mut client, query).await;
        assert!(!plan.contains("RepartitionExec") && plan.contains("(hash)"), "{query}\n{plan}");
    }
    assert_eq!(value(&mut client, "SELECT sum(n) FROM (SELECT k, count(*) AS n FROM many GROUP BY k)").await, "3000");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_07_a_limit_is_kept_by_the_merge_and_an_offset_runs_once() {
    let (_cluster, mut client) = cluster(2).await;
    let limited = "SELECT count(*) FROM (SELECT k, count(*) FROM many GROUP BY k LIMIT 7)";
    let plan = explain(&mut client, limited).await;
    assert!(plan.contains("fetch=7") && plan.contains("LocalLimitExec: fetch=7"), "{plan}");
    assert_eq!(value(&mut client, limited).await, "7");
    let skipped = "SELECT count(*) FROM (SELECT id FROM many ORDER BY k, id OFFSET 2990)";
    assert_eq!(value(&mut client, skipped).await, "10");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_08_sorted_streams_stay_apart_until_they_are_merged() {
    let (_cluster, mut client) = cluster(2).await;
    let plan = explain(&mut client, "SELECT id FROM skew ORDER BY k, id").await;
    assert!(plan.contains("(sorted gather)"), "{plan}");
    let sorted = rows(&mut client, "SELECT id FROM skew ORDER BY id DESC").await;
    let ids: Vec<i64> = sorted
        .iter()
        .flat_map(|b| arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(b.column(0)).values().to_vec())
        .collect();
    assert_eq!(ids, (1..=3000).rev().collect::<Vec<_>>());
    // Sorted before an exchange, and relied on above it.
    let windowed = "SELECT sum(n) FROM (SELECT count(*) OVER (PARTITION BY g ORDER BY id ROWS 1 PRECEDING) AS n \
                    FROM (SELECT * FROM many ORDER BY g, id LIMIT 2000))";
    assert_eq!(value(&mut client, windowed).await, "3995");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_09_both_sides_of_a_join_are_divided_alike() {
    let (_cluster, mut client) = cluster(2).await;
    for threshold in ["hash_join_single_partition_threshold", "hash_join_single_partition_threshold_rows"] {
        client.set(&format!("datafusion.optimizer.{threshold}"), "0").expect("a setting");
    }
    // Keys of different types meet, whichever side computes them.
    let typed = "SELECT count(*) FROM many a JOIN skew b ON CAST(a.id AS INT) = b.id AND a.name || '' = b.name";
    assert_eq!(value(&mut client, typed).await, "3000");
    let branches = "SELECT count(*) FROM (SELECT k FROM many UNION ALL SELECT k FROM skew) a JOIN few b ON a.k = b.k";
    let apart = "SELECT (SELECT count(*) FROM many a JOIN few b ON a.k = b.k) + (SELECT count(*) FROM skew a JOIN few b ON a.k = b.k)";
    assert_eq!(value(&mut client, branches).await, value(&mut client, apart).await);
    client.set("datafusion.optimizer.prefer_hash_join", "false").expect("a setting");
    assert_eq!(value(&mut client, typed).await, "3000");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_10_each_partition_counts_once() {
    let (_cluster, mut client) = cluster(2).await;
    partitions(&mut client, 8);
    let rows = "SELECT count(*) FROM (SELECT 1 AS x UNION ALL SELECT id FROM many UNION ALL VALUES (1), (2))";
    assert_eq!(value(&mut client, rows).await, "3003");
    // The build side of a broadcast is computed by one stage, not by every task that reads it.
    let plan = explain(
        &mut client,
        "SELECT count(*) FROM (SELECT id FROM few WHERE random() < 2) a JOIN many b ON a.id = b.k",
    )
    .await;
    assert!(plan.contains("(broadcast)"), "{plan}");
    assert_eq!(value(&mut client, "SELECT count(*) FROM one CROSS JOIN many").await, "3000");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_a_task_gets_its_own_files_and_no_others() {
    let (_cluster, mut client) = cluster(2).await;
    for (query, expected) in [
        ("SELECT id FROM many", 3000),
        ("SELECT id FROM many UNION ALL SELECT id FROM skew UNION ALL SELECT id FROM few", 6009),
    ] {
        let result = client.query(query).await.expect("a run");
        let run = result.run.clone().expect("a run");
        let count: usize = result.collect().await.expect("rows").iter().map(|b| b.num_rows()).sum();
        assert_eq!(count, expected, "{query}");
        let read = format!("SELECT sum(rows_in) FROM system.tasks WHERE run_id = '{run}'");
        assert_eq!(value(&mut client, &read).await, count.to_string(), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_12_no_filter_waits_for_another_task() {
    let (_cluster, mut client) = cluster(2).await;
    for setting in ["enable_dynamic_filter_pushdown", "enable_join_dynamic_filter_pushdown"] {
        client.set(&format!("datafusion.optimizer.{setting}"), "true").expect("a setting");
    }
    let join = "SELECT count(*) FROM few a JOIN many b ON a.id = b.id";
    let plan = explain(&mut client, join).await;
    assert!(!plan.contains("DynamicFilter"), "{plan}");
    assert_eq!(value(&mut client, join).await, "9");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_12_filters_made_inside_a_task_skip_what_it_need_not_read() {
    let (_cluster, mut client) = cluster(2).await;
    let folder = tempfile::tempdir().expect("a folder");
    for file in 0..4 {
        let series =
            format!("SELECT value AS id, value % 7 AS g FROM generate_series({0}, {0} + 49999)", file * 50_000);
        let to = folder.path().join(format!("{file}.parquet"));
        let options = "STORED AS PARQUET OPTIONS ('format.max_row_group_size' '1000')";
        rows(&mut client, &format!("COPY ({series}) TO '{}' {options}", to.display())).await;
    }
    let create = format!("CREATE EXTERNAL TABLE large STORED AS PARQUET LOCATION '{}/'", folder.path().display());
    rows(&mut client, &create).await;
    for (query, expected) in [
        ("SELECT sum(large.g) FROM few JOIN large ON few.id = large.id", "24"),
        (
            "SELECT sum(u.g) FROM few JOIN (SELECT * FROM large UNION ALL SELECT id, g FROM large) u ON few.id = u.id",
            "48",
        ),
        ("SELECT sum(id) FROM (SELECT id, g FROM large ORDER BY id LIMIT 3)", "3"),
    ] {
        let result = client.query(query).await.expect("a run");
        let run = result.run.clone().expect("a run");
        let batches = result.collect().await.expect("rows");
        let shown = arrow::util::display::array_value_to_string(batches[0].column(0), 0).expect("text");
        assert_eq!(shown, expected, "{query}");
        let read = format!("SELECT sum(rows_in) FROM system.tasks WHERE run_id = '{run}'");
        let read: u64 = value(&mut client, &read).await.parse().expect("a number");
        assert!(read < 120_000, "{query} read {read} rows");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_13_a_recursion_stays_whole() {
    let (_cluster, mut client) = cluster(2).await;
    let recursion = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT t.n + 1 FROM t JOIN many ON id = n WHERE n < 9) \
                     SELECT n % 2, count(*) FROM t GROUP BY 1";
    let plan = explain(&mut client, recursion).await;
    let stage = plan.split("stage ").find(|s| s.contains("RecursiveQueryExec")).expect("a recursion");
    assert!(stage.contains("WorkTableExec") && stage.contains("DataSourceExec"), "{plan}");
    assert!(!stage.contains("ExchangeReaderExec"), "{plan}");
    assert_eq!(value(&mut client, &format!("SELECT sum(c) FROM ({recursion}) AS x(p, c)")).await, "9");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_14_a_sink_per_task_is_committed_once() {
    let (_cluster, mut client) = cluster(2).await;
    let folder = tempfile::tempdir().expect("a folder");
    let to = folder.path().join("out");
    let copy = format!("COPY (SELECT k, count(*) AS n FROM many GROUP BY k) TO '{}/' STORED AS PARQUET", to.display());
    let groups = value(&mut client, "SELECT count(DISTINCT k) + 1 FROM many").await;
    assert_eq!(value(&mut client, &copy).await, groups);
    let files = std::fs::read_dir(&to).expect("a folder").filter_map(|f| f.ok()?.file_name().into_string().ok());
    let parts = files.filter(|name| name.starts_with("part-")).count();
    assert_eq!(parts, 4, "one per task");
    let read = format!("CREATE EXTERNAL TABLE written STORED AS PARQUET LOCATION '{}/'", to.display());
    rows(&mut client, &read).await;
    assert_eq!(value(&mut client, "SELECT count(*) FROM written").await, groups);
    assert_eq!(value(&mut client, "SELECT sum(n) FROM written").await, "3000");
    assert!(to.join("_SUCCESS").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_15_what_datafusions_encoding_loses_travels_beside_it() {
    let (_cluster, mut client) = cluster(2).await;
    assert_eq!(value(&mut client, "SELECT count(name) FROM csv_gz").await, "15");
    let ids: usize = rows(&mut client, "SELECT * FROM csv_gz").await.iter().map(|b| b.num_rows()).sum();
    assert_eq!(ids, 17);
    let filtered = "SELECT sum(s) FROM (SELECT sum(id) FILTER (WHERE id > 8) OVER (ORDER BY id) AS s FROM few)";
    assert_eq!(value(&mut client, filtered).await, "9");
    let skipped = "SELECT count(l) FROM (SELECT lag(k) IGNORE NULLS OVER (ORDER BY id) AS l FROM few)";
    assert_eq!(value(&mut client, skipped).await, "8");
    let reversed = "SELECT sum(n) FROM (SELECT row_number() OVER (ORDER BY id), nth_value(id, 2) OVER (ORDER BY id DESC \
                    ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS n FROM few)";
    assert_eq!(value(&mut client, reversed).await, "72");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_16_tasks_see_the_session() {
    let (_cluster, mut client) = cluster(2).await;
    client.set("datafusion.execution.time_zone", "+05:00").expect("a setting");
    let zone =
        value(&mut client, "SELECT max(arrow_typeof(CAST('2024-01-01T00:00:00Z' AS TIMESTAMPTZ))) FROM many").await;
    assert!(zone.contains("+05:00"), "{zone}");
    let limit = error(&mut client, "SELECT id FROM many ORDER BY id LIMIT 5000000000").await;
    assert!(limit.message.contains("5000000000"), "{limit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_17_attempts_share_nothing() {
    let (cluster, mut client) = cluster(1).await;
    let query = "SELECT a.g, count(*) FROM many a JOIN skew b ON a.id = b.id GROUP BY a.g";
    let run = async |mut client: Client| {
        let result = client.query(query).await.expect("a run");
        let run = result.run.clone().expect("a run");
        let count: usize = result.collect().await.expect("rows").iter().map(|b| b.num_rows()).sum();
        assert_eq!(count, 7);
        value(&mut client, &format!("SELECT sum(rows_in) FROM system.tasks WHERE run_id = '{run}'")).await
    };
    let alone = run(cluster.client().await).await;
    let together = futures::future::join_all((0..4).map(async |_| run(cluster.client().await).await)).await;
    // Rows that one attempt counted for another would show here: 3,000 rows of each scan, which the join
    // reads from its exchanges, then 7 groups twice.
    assert_eq!(alone, "12014");
    assert!(together.iter().all(|read| *read == alone), "{together:?}, alone {alone}");
    assert_eq!(value(&mut client, "SELECT count(*) FROM many").await, "3000");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_18_a_reader_declares_what_is_true() {
    let (_cluster, mut client) = cluster(2).await;
    // Nullability drifts when a literal takes the place of a subquery.
    let drift = "SELECT m, count(*) FROM (SELECT (SELECT max(id) FROM one) AS m, g FROM many) GROUP BY m";
    assert_eq!(rows(&mut client, drift).await.iter().map(|b| b.num_rows()).sum::<usize>(), 1);
    // Producers are sorted, what arrives from several of them is not: an aggregate that took it for sorted would give the
    // same group more than once.
    let sorted =
        "SELECT g, max(r) FROM (SELECT g, row_number() OVER (PARTITION BY g, k ORDER BY id) AS r FROM many) GROUP BY g";
    assert_eq!(value(&mut client, &format!("SELECT count(*) FROM ({sorted})")).await, "7");
    let plan = explain(&mut client, sorted).await;
    let readers: Vec<&str> = plan.lines().filter(|l| l.contains("ExchangeReaderExec") && l.contains("hash")).collect();
    assert!(!readers.is_empty() && readers.iter().all(|l| !l.contains("ordering=")), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_19_an_exchange_sends_rows_and_not_the_buffers_they_came_in() {
    let (_cluster, mut client) = cluster(2).await;
    partitions(&mut client, 8);
    let result =
        client.query("SELECT s, count(*) FROM (SELECT repeat(name, 50) AS s, id FROM many) GROUP BY s, id").await;
    let result = result.expect("a run");
    let run = result.run.clone().expect("a run");
    result.collect().await.expect("rows");
    let bytes = format!("SELECT exchanged_bytes FROM system.runs WHERE run_id = '{run}'");
    let bytes: u64 = value(&mut client, &bytes).await.parse().expect("a number");
    // 3,000 strings of about 200 bytes twice: to the groups, and to the client. Every buffer to all 8 would be 8 times.
    assert!(bytes > 600_000 && bytes < 4_000_000, "{bytes} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_20_stages_whose_rows_may_differ_say_so() {
    let (_cluster, mut client) = cluster(2).await;
    let differs = "rows may differ when repeated";
    for (query, expected) in [
        ("SELECT g, sum(random()) FROM many GROUP BY g", true),
        ("SELECT uuid(), k FROM many", true),
        ("SELECT count(*) FROM (SELECT k, count(*) FROM many GROUP BY k LIMIT 3)", true),
        ("SELECT g, array_agg(s) FROM (SELECT g, k, sum(id) AS s FROM many GROUP BY g, k) GROUP BY g", true),
        ("SELECT k, sum(id) FROM many GROUP BY k", false),
        ("SELECT count(*) FROM many a JOIN skew b ON a.k = b.k", false),
    ] {
        let plan = explain(&mut client, query).await;
        assert_eq!(plan.contains(differs), expected, "{query}\n{plan}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_20_sums_whose_last_digits_decide_about_rows_are_not_repeatable() {
    let (_cluster, mut client) = cluster(2).await;
    let (digits, rows) = ("last digits may differ when repeated", "rows may differ when repeated");
    let sums = "SELECT k, sum(CAST(id AS DOUBLE)) AS x FROM many GROUP BY k";
    for (query, digits_differ, rows_differ) in [
        (sums.to_owned(), true, false),
        (format!("SELECT k, x * 2 AS y FROM ({sums})"), true, false),
        (format!("SELECT * FROM ({sums}) ORDER BY x"), true, false),
        ("SELECT k, sum(id), count(*) FROM many GROUP BY k".to_owned(), false, false),
        ("SELECT k, max(CAST(id AS DOUBLE)) FROM many GROUP BY k".to_owned(), false, false),
        (format!("{sums} HAVING sum(CAST(id AS DOUBLE)) > 5"), true, true),
        (format!("SELECT x, count(*) FROM ({sums}) GROUP BY x"), true, true),
        (format!("SELECT * FROM ({sums}) a JOIN skew b ON a.x = b.k"), true, true),
        (format!("SELECT * FROM many WHERE id > (SELECT max(x) FROM ({sums}))"), true, true),
    ] {
        let plan = explain(&mut client, &query).await;
        assert_eq!(plan.contains(digits), digits_differ, "{query}\n{plan}");
        assert_eq!(plan.contains(rows), rows_differ, "{query}\n{plan}");
    }
}
