//! Tables of PostgreSQL and SQLite beside files: what is read of them, how often, and what is said when they are not as they
//! were. Against a real server, which writes down what it is asked.

mod mysql;
mod once;
mod sqlite;
mod wrong;

use arrow::util::pretty::pretty_format_batches;
use tidemill::client::Client;
use tidemill_tests::harness::postgres::Postgres;
use tidemill_tests::harness::{Process, rows, tpch, value};

/// A table with a column of each type that is read, and rows that are hard to read.
const ITEMS: &str = "
CREATE SCHEMA shop;
CREATE TYPE shop.mood AS ENUM ('sad', 'it''s \"fine\"');
CREATE DOMAIN shop.positive AS bigint CHECK (VALUE > 0);
CREATE TABLE shop.items (
  id int PRIMARY KEY, small smallint, big bigint, part real, weight double precision, active boolean,
  price numeric(12,2), wide numeric(38,10), free numeric, name text, label varchar(10), tag char(4), raw bytea,
  born date, tod time, at timestamp, seen timestamptz, lasts interval, mood shop.mood, ref uuid, data jsonb,
  codes int[], words text[], \"Mixed Case\" shop.positive);
INSERT INTO shop.items VALUES
 (1, -32768, 9223372036854775807, 1.5, 2.25, true, -1234567890.12, 1234567890123456789012345678.0123456789, 0.1,
  'it''s \"q\" \\ ü', 'label', 'ab', '\\x00ff', '1969-12-31', '23:59:59.999999', '1969-12-31 23:59:59.5',
  '3000-01-01 00:00:00+02', '1 month 2 days', 'it''s \"fine\"', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
  '{\"a\": [1, null]}', '{1,2,3}', '{x,y}', 7),
 (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
  NULL, NULL, NULL, NULL),
 (3, 0, 0, 'NaN', '-0', false, 0, 0, -2.5, '', '', '', '', '0001-01-01', '00:00', '0001-01-01', '1970-01-01 00:00:00Z',
  '0', 'sad', '00000000-0000-0000-0000-000000000000', 'null', '{}', '{}', 1);
";

/// What each of its columns is as text, in the first row and in the last.
const VALUES: &[(&str, &str, &str)] = &[
    ("small", "-32768", "0"),
    ("big", "9223372036854775807", "0"),
    ("part", "1.5", "NaN"),
    ("weight", "2.25", "-0.0"),
    ("active", "true", "false"),
    ("price", "-1234567890.12", "0.00"),
    ("wide", "1234567890123456789012345678.0123456789", "0.0000000000"),
    ("free", "0.10000000000000000000", "-2.50000000000000000000"),
    ("name", "it's \"q\" \\ ü", ""),
    ("label", "label", ""),
    ("tag", "ab", ""),
    ("encode(raw, 'hex')", "00ff", ""),
    ("born", "1969-12-31", "0001-01-01"),
    ("tod", "23:59:59.999999", "00:00:00"),
    ("at", "1969-12-31T23:59:59.500", "0001-01-01T00:00:00"),
    ("seen", "2999-12-31T22:00:00Z", "1970-01-01T00:00:00Z"),
    ("lasts", "1 mons 2 days", "0 secs"),
    ("mood", "it's \"fine\"", "sad"),
    ("ref", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-000000000000"),
    ("data", "{\"a\": [1, null]}", "null"),
    ("codes[3]", "3", ""),
    ("words[1]", "x", ""),
    ("\"Mixed Case\"", "7", "1"),
];

/// A single server process, which knows PostgreSQL as the secret `pg`.
struct Shop {
    postgres: Postgres,
    _server: Process,
    client: Client,
    url: String,
}

impl Shop {
    async fn open(setup: &str) -> Self {
        let postgres = tokio::task::spawn_blocking(Postgres::start).await.expect("a server");
        postgres.execute(setup);
        let server = ["server", "--bind", "127.0.0.1:0", "--slots", "2", "--memory", "512MiB"];
        let server = Process::start_with(&server, &postgres.environment());
        let url = server.url();
        let client = Client::connect(&url).await.expect("a client");
        Self { postgres, _server: server, client, url }
    }

    async fn create(&mut self, name: &str, table: &str) {
        rows(&mut self.client, &create(name, table)).await;
    }

    async fn explain(&mut self, sql: &str) -> String {
        let drawn = rows(&mut self.client, &format!("EXPLAIN {sql}")).await;
        pretty_format_batches(&drawn).expect("text").to_string()
    }
}

fn create(name: &str, table: &str) -> String {
    format!("CREATE EXTERNAL TABLE {name} STORED AS POSTGRES LOCATION '{table}' OPTIONS (secret 'pg')")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_of_postgres_is_read_exactly() {
    let mut shop = Shop::open(ITEMS).await;
    shop.create("items", "shop.items").await;
    for (column, first, last) in VALUES {
        for (id, expected) in [(1, first), (3, last)] {
            let sql = format!("SELECT coalesce(CAST({column} AS VARCHAR), '') FROM items WHERE id = {id}");
            assert_eq!(value(&mut shop.client, &sql).await, *expected, "{column} of row {id}");
        }
        let nulls = format!("SELECT count(*) FROM items WHERE id = 2 AND {column} IS NULL");
        assert_eq!(value(&mut shop.client, &nulls).await, "1", "{column} of row 2");
    }
    assert_eq!(value(&mut shop.client, "SELECT count(*) FROM items").await, "3");
    let all = rows(&mut shop.client, "SELECT * FROM items ORDER BY id").await;
    assert_eq!(all.iter().map(|batch| batch.num_columns()).max(), Some(24));
    // What is kept with the table makes the same table once more.
    let definition = rows(&mut shop.client, "SHOW CREATE TABLE items").await;
    let definition = arrow::util::display::array_value_to_string(definition[0].column(3), 0).expect("text");
    assert!(definition.contains("secret 'pg'") && definition.contains("[\"price\",\"numeric(12,2)\"]"), "{definition}");
    rows(&mut shop.client, "DROP TABLE items").await;
    rows(&mut shop.client, &definition).await;
    assert_eq!(value(&mut shop.client, "SELECT sum(price) FROM items").await, "-1234567890.12");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_columns_and_limits_are_the_databases_work_where_they_mean_the_same() {
    let mut shop = Shop::open(ITEMS).await;
    shop.create("items", "shop.items").await;
    let cases = [
        (
            "SELECT label FROM items WHERE id >= 2 LIMIT 1",
            r#"SELECT "items"."label" FROM "shop"."items" WHERE ("items"."id" >= 2) LIMIT 1"#,
            "1",
        ),
        (
            "SELECT id FROM items WHERE born < DATE '1970-01-01' AND active",
            r#"FROM "shop"."items" WHERE (("items"."born" < CAST('1970-01-01' AS DATE)) AND "items"."active")"#,
            "1",
        ),
        ("SELECT id FROM items WHERE price < -1.5", r#"("items"."price" < -1.50)"#, "1"),
        (
            "SELECT id FROM items WHERE at < TIMESTAMP '1969-12-31T23:59:59.75'",
            r#"WHERE ("items"."at" < CAST('1969-12-31 23:59:59.750' AS TIMESTAMP))"#,
            "2",
        ),
        ("SELECT id FROM items WHERE seen >= TIMESTAMP '2020-01-01T00:00:00Z'", r#"WHERE ("items"."seen" >= "#, "1"),
        ("SELECT id FROM items WHERE tag = 'ab'", r#"WHERE ("items"."tag" = 'ab')"#, "1"),
        ("SELECT id FROM items WHERE label LIKE 'lab%' AND id IN (1, 3)", r#"LIKE 'lab%'"#, "1"),
        (
            "SELECT id FROM items WHERE weight IS NULL OR id > 2",
            r#"("items"."weight" IS NULL OR ("items"."id" > 2))"#,
            "2",
        ),
    ];
    for (sql, asked, found) in cases {
        let drawn = shop.explain(sql).await;
        assert!(drawn.contains("ConnectorScanExec: PostgreSQL, secret=pg"), "{drawn}");
        assert!(drawn.contains(asked), "{sql} asks\n{drawn}");
        let counted = format!("SELECT count(*) FROM ({sql}) AS q");
        assert_eq!(value(&mut shop.client, &counted).await, found, "{sql}");
    }
    rows(&mut shop.client, cases[0].0).await;
    assert!(shop.postgres.log().contains(cases[0].1), "the server was not asked what EXPLAIN shows");
    // Texts are ordered otherwise there, what is no uuid is an error, and quotes are not passed on.
    let both = r#"SELECT "items"."id", "items"."name" FROM "shop"."items""#;
    for (sql, asked, found) in [
        ("SELECT id FROM items WHERE name = 'it''s \"q\" \\ ü'", both, "1"),
        ("SELECT id FROM items WHERE name < 'x'", both, "2"),
        (
            "SELECT id FROM items WHERE ref = 'x'",
            r#"FROM (SELECT "items"."id", "items"."ref" FROM "shop"."items""#,
            "0",
        ),
    ] {
        let drawn = shop.explain(sql).await;
        assert!(drawn.contains(asked) && !drawn.contains("WHERE"), "{sql}\n{drawn}");
        let counted = format!("SELECT count(*) FROM ({sql}) AS q");
        assert_eq!(value(&mut shop.client, &counted).await, found, "{sql}");
    }
    // Minus zero is no less than zero, and NaN is above all numbers, here and there.
    assert_eq!(value(&mut shop.client, "SELECT count(*) FROM items WHERE weight < 0").await, "0");
    assert_eq!(value(&mut shop.client, "SELECT count(*) FROM items WHERE part > 1000").await, "1");
    shop.postgres.execute("UPDATE shop.items SET weight = 'NaN' WHERE id = 3");
    assert_eq!(value(&mut shop.client, "SELECT count(*) FROM items WHERE weight > 1000").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_postgres_join_with_files_in_sql_and_dataframes() {
    let setup = "CREATE TABLE known (key bigint, note text);
        INSERT INTO known SELECT k, 'customer ' || k FROM generate_series(1, 500) AS k; INSERT INTO known VALUES (NULL, 'none')";
    let mut shop = Shop::open(setup).await;
    shop.create("known", "known").await;
    let folder = tpch().display().to_string();
    rows(&mut shop.client, &format!("CREATE EXTERNAL TABLE orders STORED AS PARQUET LOCATION '{folder}/orders/'"))
        .await;
    let expected = value(&mut shop.client, "SELECT count(*) FROM orders WHERE o_custkey <= 500").await;
    let join = "SELECT count(*) FROM orders JOIN known ON o_custkey = key";
    let drawn = shop.explain(join).await;
    assert!(drawn.contains("rows may differ when repeated"), "another read may give other rows: {drawn}");
    assert_eq!(value(&mut shop.client, join).await, expected);
    let outer = "SELECT count(*) FROM known LEFT JOIN orders ON o_custkey = key WHERE o_custkey IS NULL";
    let none =
        value(&mut shop.client, "SELECT 501 - count(DISTINCT o_custkey) FROM orders WHERE o_custkey <= 500").await;
    assert_eq!(value(&mut shop.client, outer).await, none);
    let twice = "SELECT count(*) FROM known a JOIN known b USING (key) WHERE a.key > (SELECT min(key) FROM known)";
    assert_eq!(value(&mut shop.client, twice).await, "499");
    let recursive = "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r, known WHERE n = key AND n < 3) SELECT * FROM r";
    let refused = shop.client.execute(recursive).await.err().expect("it would ask in each step");
    assert!(refused.message.contains("CREATE TABLE … AS first"), "{refused}");
    // The same table by its name, in a program.
    let session = tidemill::connect(&shop.url).start().await.expect("a session");
    use datafusion::prelude::{col, lit};
    let known = session.table("known").await.expect("a table");
    let few = known.filter(col("key").lt(lit(10_i64))).expect("a filter").select_columns(&["note"]).expect("columns");
    let found: usize = few.collect().await.expect("rows").iter().map(|batch| batch.num_rows()).sum();
    assert_eq!(found, 9);
    let asked = r#"SELECT "known"."note" FROM "known" WHERE ("known"."key" < 10)"#;
    assert!(shop.postgres.log().contains(asked), "what a program asks is not pushed down:\n{}", shop.postgres.log());
    // And into a file.
    let out = tempfile::tempdir().expect("a folder");
    let copy = format!("COPY (SELECT * FROM known) TO '{}/known.parquet'", out.path().display());
    assert_eq!(value(&mut shop.client, &copy).await, "501");
}
