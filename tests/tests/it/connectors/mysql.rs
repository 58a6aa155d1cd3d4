//! MySQL, as MariaDB speaks it.

use tidemill::client::Client;
use tidemill_core::ErrorKind;
use tidemill_tests::harness::mysql::{MariaDb, PASSWORD};
use tidemill_tests::harness::{Process, rows, tpch, value};

const SETUP: &str = r#"CREATE TABLE items (id INT PRIMARY KEY, tiny TINYINT, huge BIGINT UNSIGNED, part FLOAT, weight DOUBLE, price DECIMAL(12,2), name VARCHAR(40), note TEXT, raw VARBINARY(8), born DATE, at DATETIME(6), mood ENUM('sad','fine'), made YEAR);
INSERT INTO items VALUES (1, -128, 18446744073709551615, 1.5, 2.25, -1234567890.12, 'it''s "q" ü', 'Long', x'00ff', '1969-12-31', '1969-12-31 23:59:59.5', 'fine', 1999), (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), (3, 0, 0, 0, 0, 0, 'A', '', '', '2024-02-29', '2024-02-29 12:00:00', 'sad', 2000);
CREATE TABLE known AS SELECT seq AS k, CONCAT('customer ', seq) AS note FROM seq_1_to_9000;
CREATE TABLE shapes (id INT, place POINT);
"#;

fn create(name: &str, table: &str) -> String {
    format!("CREATE EXTERNAL TABLE {name} STORED AS MYSQL LOCATION '{table}' OPTIONS (secret 'mine')")
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_mysql_are_read_exactly_and_join_with_files() {
    let mariadb = tokio::task::spawn_blocking(|| MariaDb::start(SETUP)).await.expect("a server");
    let server = ["server", "--bind", "127.0.0.1:0", "--slots", "2", "--memory", "512MiB"];
    let server = Process::start_with(&server, &mariadb.environment(PASSWORD));
    let mut client = Client::connect(&server.url()).await.expect("a client");
    rows(&mut client, &create("items", "shop.items")).await;
    rows(&mut client, &create("known", "known")).await;
    let all = "concat_ws('|', tiny, huge, part, weight, price, name, note, encode(raw, 'hex'), born, at, mood, made)";
    let first = value(&mut client, &format!("SELECT {all} FROM items WHERE id = 1")).await;
    let expected = "-128|18446744073709551615|1.5|2.25|-1234567890.12|it's \"q\" ü|Long|00ff|1969-12-31|1969-12-31T23:59:59.500|fine|1999";
    assert_eq!(first, expected);
    assert_eq!(value(&mut client, &format!("SELECT {all} FROM items WHERE id = 2")).await, "");
    assert_eq!(value(&mut client, "SELECT count(*) FROM known").await, "9000");
    // Equal there, and not here.
    assert_eq!(value(&mut client, "SELECT count(*) FROM items WHERE name = 'a'").await, "0");
    assert_eq!(value(&mut client, "SELECT count(*) FROM items WHERE name = 'it''s \"q\" ü'").await, "1");
    assert_eq!(
        value(&mut client, "SELECT count(*) FROM items WHERE born < DATE '1970-01-01' AND price < -1").await,
        "1"
    );
    // The year 20 would be 2020 there.
    assert_eq!(value(&mut client, "SELECT count(*) FROM items WHERE made > CAST(20 AS SMALLINT)").await, "2");
    rows(&mut client, "SELECT note FROM known WHERE k > 8990 LIMIT 3").await;
    let asked = "FROM `known` WHERE (`known`.`k` > 8990) LIMIT 3";
    assert!(mariadb.statements().contains(asked), "{}", mariadb.statements());
    let orders = tpch().join("orders");
    rows(&mut client, &format!("CREATE EXTERNAL TABLE orders STORED AS PARQUET LOCATION '{}/'", orders.display()))
        .await;
    let joined = value(&mut client, "SELECT count(*) FROM orders JOIN known ON o_custkey = k WHERE k < 500").await;
    assert_eq!(joined, value(&mut client, "SELECT count(*) FROM orders WHERE o_custkey < 500").await);
    for (table, kind, says) in [
        ("missing", ErrorKind::NotFound, "there is no table missing in MySQL of the secret `mine`"),
        ("shapes", ErrorKind::Invalid, "the column `place` of shapes"),
    ] {
        let error = client.execute(&create("x", table)).await.err().expect("it is wrong");
        assert!(error.message.contains(says) && error.kind == kind, "{error}");
    }
    let wrong =
        Process::start_with(&["server", "--bind", "127.0.0.1:0", "--slots", "1"], &mariadb.environment("hunter2"));
    let mut client = Client::connect(&wrong.url()).await.expect("a client");
    let denied = client.execute(&create("items", "items")).await.err().expect("a wrong password");
    assert!(denied.kind == ErrorKind::Denied && !denied.message.contains("hunter2"), "{denied}");
}
