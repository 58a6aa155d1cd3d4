//! Queries of every shape over small tables with nulls, skew, every type and every format: each answer is the one of
//! in-process DataFusion, over partitions × executors × slots.

use std::fmt::Write;

use tidemill::client::Client;
use tidemill::oracle::{Answer, Oracle, compare};
use tidemill_tests::harness::{LocalCluster, Shape, create_small_tables, is_full, rows, statements_of};

const FILES: [&str; 10] = [
    include_str!("../../queries/joins.sql"),
    include_str!("../../queries/subqueries.sql"),
    include_str!("../../queries/sets.sql"),
    include_str!("../../queries/limits.sql"),
    include_str!("../../queries/windows.sql"),
    include_str!("../../queries/aggregates.sql"),
    include_str!("../../queries/recursion.sql"),
    include_str!("../../queries/types.sql"),
    include_str!("../../queries/formats.sql"),
    include_str!("../../queries/values.sql"),
];

/// Every query of `tests/queries`.
pub(crate) fn statements() -> Vec<String> {
    FILES.iter().flat_map(|text| statements_of(text)).collect()
}

/// The limits below which DataFusion broadcasts a build side.
const BROADCAST_LIMITS: [&str; 2] = [
    "datafusion.optimizer.hash_join_single_partition_threshold",
    "datafusion.optimizer.hash_join_single_partition_threshold_rows",
];

/// Every join type over empty, one-row, skewed and null-keyed sides.
fn join_matrix() -> Vec<String> {
    let types = ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"];
    let filters = ["LEFT SEMI JOIN", "RIGHT SEMI JOIN", "LEFT ANTI JOIN", "RIGHT ANTI JOIN"];
    let sides =
        [("empty", "many"), ("many", "empty"), ("one", "many"), ("many", "one"), ("few", "skew"), ("skew", "few")];
    let mut queries = Vec::new();
    for (left, right) in sides {
        for join in types {
            let both = "count(*), count(a.id), count(b.id), sum(a.id), sum(b.id)";
            queries.push(format!("SELECT {both} FROM {left} a {join} {right} b ON a.k = b.k"));
        }
        for join in filters {
            queries.push(format!("SELECT count(*), sum(id) FROM {left} a {join} {right} b ON a.k = b.k"));
        }
        queries.push(format!("SELECT count(*), sum(id) FROM {left} WHERE k NOT IN (SELECT k FROM {right})"));
    }
    queries
}

/// A plan of 200 steps one above the other, as many terms in one expression, and as many branches.
fn deep() -> Vec<String> {
    let mut nested = "SELECT id, k FROM few".to_owned();
    let mut sum = "id".to_owned();
    for depth in 0..100 {
        nested =
            format!("SELECT k AS id, max(id) AS k FROM (SELECT DISTINCT k + 1 AS k, id FROM ({nested})) GROUP BY k");
        let _ = write!(sum, " + {depth} * id");
    }
    let union = vec!["SELECT id FROM few"; 200].join(" UNION ALL ");
    vec![
        format!("SELECT count(*), sum(id) FROM ({nested})"),
        format!("SELECT {sum} AS s FROM few"),
        format!("SELECT count(*), sum(id) FROM ({union})"),
    ]
}

async fn oracle() -> Oracle {
    let oracle = Oracle::new(2, 1 << 30).expect("an oracle");
    // Its default of 50 would refuse the deep queries.
    let deeper = oracle.context().sql("SET datafusion.sql_parser.recursion_limit = 1000").await.expect("a setting");
    deeper.collect().await.expect("a setting");
    for create in create_small_tables().await {
        let made = oracle.context().sql(&create).await.unwrap_or_else(|e| panic!("{create}\n{e}"));
        made.collect().await.unwrap_or_else(|e| panic!("{create}\n{e}"));
    }
    oracle
}

async fn answers(oracle: &Oracle, queries: Vec<String>) -> Vec<(String, Answer)> {
    let mut answers = Vec::new();
    let mut wrong = Vec::new();
    for sql in queries {
        match oracle.answer(&sql).await {
            Ok(answer) => answers.push((sql, answer)),
            Err(error) => wrong.push(format!("{sql}\n    {error}")),
        }
    }
    assert!(wrong.is_empty(), "DataFusion refuses {} queries:\n{}", wrong.len(), wrong.join("\n"));
    answers
}

/// Why the answer is not the expected one, if so.
async fn difference(client: &mut Client, sql: &str, expected: &Answer) -> Option<String> {
    let ours = match client.execute(sql).await {
        Ok(result) => result.collect().await,
        Err(error) => Err(error),
    };
    match ours {
        Ok(batches) => compare(expected, &batches).expect("answers can be compared").map(|d| d.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

async fn check(shape: Shape, partitions: &[&str], answers: &[(String, Answer)], set: &[(&str, &str)]) {
    let cluster = LocalCluster::start(shape).await;
    let mut client = cluster.client().await;
    for create in create_small_tables().await {
        rows(&mut client, &create).await;
    }
    for (key, value) in set {
        client.set(key, value).expect("a setting");
    }
    let mut wrong = Vec::new();
    for partitions in partitions {
        client.set("datafusion.execution.target_partitions", partitions).expect("a setting");
        for (sql, expected) in answers {
            if let Some(difference) = difference(&mut client, sql, expected).await {
                wrong.push(format!("{partitions} partitions: {sql}\n    {difference}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{shape:?}: {} answers are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn deep_plans_are_answered_as_datafusion_does() {
    // DataFusion recurses through deep plans on whatever stack it is given.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.thread_stack_size(64 << 20).enable_all().build().expect("a runtime");
    let checked = async {
        let answers = answers(&oracle().await, deep()).await;
        // A hundred exchanges each: every shape in the full run.
        if !is_full() {
            return check(Shape { executors: 2, slots: 2 }, &["1", "2", "3"], &answers, &[]).await;
        }
        for executors in [1, 2, 3] {
            for slots in [1, 2] {
                check(Shape { executors, slots }, &["1", "2", "3", "8"], &answers, &[]).await;
            }
        }
    };
    runtime.block_on(async { tokio::spawn(checked).await }).expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_is_answered_as_datafusion_does() {
    let oracle = oracle().await;
    let queries = statements();
    assert!(queries.len() >= 250, "only {} queries are left", queries.len());
    let answers = answers(&oracle, queries).await;
    for executors in [1, 2, 3] {
        for slots in [1, 2] {
            check(Shape { executors, slots }, &["1", "2", "3", "8"], &answers, &[]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_join_is_answered_as_datafusion_does() {
    let oracle = oracle().await;
    let answers = answers(&oracle, join_matrix()).await;
    // Broadcast as far as DataFusion likes, and never.
    let never: Vec<(&str, &str)> = BROADCAST_LIMITS.iter().map(|key| (*key, "0")).collect();
    for set in [&[][..], &never[..]] {
        for executors in [1, 2, 3] {
            check(Shape { executors, slots: 2 }, &["1", "2", "3", "8"], &answers, set).await;
        }
    }
}
