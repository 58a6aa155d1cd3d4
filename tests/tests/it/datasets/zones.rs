//! Times with and without a zone: what columns are, and which instants values become. With processes of their own.

use std::path::Path;

use serde_json::{Value, json};
use tidemill::client::Client;
use tidemill_core::ErrorKind;
use tidemill_tests::harness::{Process, rows, value};

use super::{count, refused, text};

/// A coordinator, an executor, a client, and a folder for tables.
async fn processes() -> ([Process; 2], Client, tempfile::TempDir) {
    let coordinator = Process::start(&["coordinator", "--bind", "127.0.0.1:0"]);
    let url = coordinator.url();
    let executor = Process::start(&["executor", "--connect", &url, "--slots", "2", "--memory", "256MiB"]);
    let client = Client::connect(&url).await.expect("a client");
    ([coordinator, executor], client, tempfile::tempdir().expect("a folder"))
}

/// The columns that a table's first entry names, with their types.
fn columns(table: &Path) -> Value {
    let entry = std::fs::read_to_string(table.join("_delta_log/00000000000000000000.json")).expect("an entry");
    let mut actions = entry.lines().map(|line| serde_json::from_str::<Value>(line).expect("an action"));
    let schema = actions.find_map(|action| action["metaData"]["schemaString"].as_str().map(str::to_owned));
    let schema: Value = serde_json::from_str(&schema.expect("columns")).expect("columns");
    let fields = schema["fields"].as_array().expect("columns");
    fields.iter().map(|field| json!([field["name"], field["type"]])).collect()
}

fn list_of(element: &str) -> Value {
    json!({ "type": "array", "elementType": element, "containsNull": true })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_with_a_zone_is_deltas_timestamp_and_has_instants() {
    let (_processes, mut client, folder) = processes().await;
    let at = folder.path().join("z");
    let create = format!(
        "CREATE EXTERNAL TABLE z (id BIGINT, h TIMESTAMP WITH TIME ZONE, short TIMESTAMPTZ(3), bare TIMESTAMP, \
         many TIMESTAMPTZ[]) STORED AS DELTA LOCATION '{}'",
        at.display()
    );
    rows(&mut client, &create).await;
    let expected = json!([
        ["id", "long"],
        ["h", "timestamp"],
        ["short", "timestamp"],
        ["bare", "timestamp_ntz"],
        ["many", list_of("timestamp")]
    ]);
    assert_eq!(columns(&at), expected);
    // Text with an offset is that instant; without one, as a timestamp without a zone, it is UTC.
    let insert = "INSERT INTO z VALUES \
        (1, '2026-01-01T12:00:00+02:00', '2026-01-01 12:00:00', TIMESTAMP '2026-01-01 12:00:00', \
         make_array('2026-01-01T00:00:00-05:00')), \
        (2, TIMESTAMP '2026-07-01 12:00:00', '2026-07-01 12:00:00.123456-07:00', NULL, NULL)";
    assert_eq!(value(&mut client, insert).await, "2");
    assert_eq!(
        text(&mut client, "SELECT * FROM z ORDER BY id").await,
        "1 2026-01-01T10:00:00Z 2026-01-01T12:00:00Z 2026-01-01T12:00:00 [2026-01-01T05:00:00Z]; \
         2 2026-07-01T12:00:00Z 2026-07-01T19:00:00.123456Z  "
    );
    assert_eq!(
        text(&mut client, "SELECT arrow_typeof(h), arrow_typeof(short), arrow_typeof(bare) FROM z LIMIT 1").await,
        "Timestamp(µs, \"UTC\") Timestamp(µs, \"UTC\") Timestamp(µs)"
    );
    for (filter, expected) in
        [("h = '2026-01-01T12:00:00+02:00'", 1), ("h < '2026-01-01T09:59:59Z'", 0), ("h >= '2026-07-01 12:00:00'", 1)]
    {
        assert_eq!(count(&mut client, &format!("SELECT count(*) FROM z WHERE {filter}")).await, expected, "{filter}");
    }
    // A table that is made of rows has their zones.
    let copy = folder.path().join("copy");
    let create = format!(
        "CREATE TABLE copy STORED AS DELTA LOCATION '{}' AS SELECT h, bare, many FROM z WHERE id = 1",
        copy.display()
    );
    rows(&mut client, &create).await;
    assert_eq!(columns(&copy), json!([["h", "timestamp"], ["bare", "timestamp_ntz"], ["many", list_of("timestamp")]]));
    assert_eq!(
        text(&mut client, "SELECT * FROM copy").await,
        "2026-01-01T10:00:00Z 2026-01-01T12:00:00 [2026-01-01T05:00:00Z]"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sessions_zone_is_that_of_expressions_and_never_of_columns() {
    let (_processes, mut client, folder) = processes().await;
    client.set("datafusion.execution.time_zone", "+05:00").expect("a setting");
    let at = folder.path().join("t");
    let create = |name: &str, columns: &str| {
        format!("CREATE EXTERNAL TABLE {name} ({columns}) STORED AS DELTA LOCATION '{}'", at.display())
    };
    rows(&mut client, &create("t", "h TIMESTAMPTZ, bare TIMESTAMP")).await;
    assert_eq!(columns(&at), json!([["h", "timestamp"], ["bare", "timestamp_ntz"]]));
    // Text goes straight into the column; of the expression it is noon there, in a column without a zone by the clocks of UTC.
    assert_eq!(value(&mut client, "INSERT INTO t VALUES ('2026-01-01 12:00:00', '2026-01-01 12:00:00')").await, "1");
    let noon = "CAST('2026-01-01 12:00:00' AS TIMESTAMP WITH TIME ZONE)";
    assert_eq!(value(&mut client, &format!("INSERT INTO t SELECT {noon} AS a, {noon} AS b")).await, "1");
    assert_eq!(
        text(&mut client, "SELECT h, bare FROM t ORDER BY h").await,
        "2026-01-01T07:00:00Z 2026-01-01T07:00:00; 2026-01-01T12:00:00Z 2026-01-01T12:00:00"
    );
    // Columns that are declared must be the table's own, with their zones.
    for other in ["h TIMESTAMP, bare TIMESTAMP", "h TIMESTAMPTZ, bare TIMESTAMPTZ"] {
        let parts = ["other columns", "h TIMESTAMP WITH TIME ZONE, bare TIMESTAMP"];
        refused(&mut client, &create("again", other), ErrorKind::Conflict, &parts).await;
    }
    rows(&mut client, &create("again", "h TIMESTAMP WITH TIME ZONE, bare TIMESTAMP")).await;
    assert_eq!(count(&mut client, "SELECT count(*) FROM again WHERE arrow_typeof(h) LIKE '%UTC%'").await, 2);
}
