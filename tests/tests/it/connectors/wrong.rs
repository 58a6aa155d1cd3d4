//! What is said when a database, a table or a secret is not as it should be; and that no password is said.

use tidemill::client::Client;
use tidemill_core::{Error, ErrorKind};
use tidemill_tests::harness::postgres::{PASSWORD, Postgres};
use tidemill_tests::harness::{Process, rows, value};

use super::{Shop, create};

const SETUP: &str =
    "CREATE TABLE t (id int, name text, price numeric(10,2)); INSERT INTO t VALUES (1, 'one', 1.5), (2, 'two', 2.5);
    CREATE TABLE hidden (id int); CREATE ROLE reader LOGIN PASSWORD 'reads'; GRANT SELECT ON t TO reader;
    CREATE TABLE money_of (id int, amount money);";

async fn refused(client: &mut Client, sql: &str) -> Error {
    let error = match client.execute(sql).await {
        Ok(result) => result.collect().await.err().unwrap_or_else(|| panic!("{sql} is right")),
        Err(error) => error,
    };
    assert!(!error.message.contains(PASSWORD) && !error.message.contains('\n'), "{error}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_cannot_be_right_are_refused_with_advice() {
    let mut shop = Shop::open(SETUP).await;
    let cases = [
        (create("a", "missing"), ErrorKind::NotFound, "there is no table missing in PostgreSQL of the secret `pg`"),
        (create("a", "nowhere.t"), ErrorKind::NotFound, "there is no table nowhere.t"),
        (
            create("a", "t").replace("'pg'", "'pond'"),
            ErrorKind::NotFound,
            "knows no secret `pond`: write [secrets.pond]",
        ),
        (create("a", "money_of"), ErrorKind::Invalid, "the column `amount` of money_of"),
        (
            create("a", "t").replace("(secret 'pg')", "(host 'h', password 'hunter2')"),
            ErrorKind::Invalid,
            "OPTIONS (secret 'NAME')",
        ),
        (create("a", "postgres://me:hunter2@h/d"), ErrorKind::Invalid, "holds credentials"),
        (create("a", "host=h pwd=hunter2"), ErrorKind::Invalid, "LOCATION is the name of a table"),
        (create("a", "me:word@h"), ErrorKind::Invalid, "LOCATION is the name of a table"),
        (create("a", "t").replace(" OPTIONS (secret 'pg')", ""), ErrorKind::Invalid, "OPTIONS lacks `secret`"),
        (create("a (x INT)", "t"), ErrorKind::Invalid, "takes no list of columns"),
        (create("a", "t").replace("POSTGRES", "ORACLE"), ErrorKind::Invalid, "POSTGRES, MYSQL or SQLITE"),
    ];
    for (sql, kind, says) in cases {
        let error = refused(&mut shop.client, &sql).await;
        assert!(error.message.contains(says) && !error.message.contains("hunter2"), "{sql}: {error}");
        assert_eq!(error.kind, kind, "{sql}: {error}");
    }
    let statements = rows(&mut shop.client, "SELECT statement, error FROM system.runs").await;
    let told = arrow::util::pretty::pretty_format_batches(&statements).expect("text").to_string();
    assert!(!told.contains("hunter2"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_changed_is_an_error_that_says_how() {
    let mut shop = Shop::open(SETUP).await;
    shop.create("t", "t").await;
    shop.create("u", "t").await;
    shop.postgres.execute("ALTER TABLE t ADD COLUMN more int; ALTER TABLE t ALTER COLUMN name TYPE varchar(30)");
    assert_eq!(value(&mut shop.client, "SELECT max(name) FROM t").await, "two", "columns that nobody reads may come");
    shop.postgres.execute("ALTER TABLE t ALTER COLUMN id TYPE bigint");
    let other = refused(&mut shop.client, "SELECT id FROM t").await;
    assert!(
        other.message.contains("the column `id` of t in PostgreSQL") && other.message.contains("is `bigint` now"),
        "{other}"
    );
    assert_eq!(other.kind, ErrorKind::Conflict);
    shop.postgres.execute("ALTER TABLE t DROP COLUMN price");
    for sql in ["SELECT price FROM t", "SELECT name FROM t WHERE price > 2"] {
        let gone = refused(&mut shop.client, sql).await;
        assert!(gone.message.contains("price") && gone.message.contains("create it again"), "{gone}");
        assert_eq!(gone.kind, ErrorKind::Conflict, "{gone}");
    }
    assert_eq!(value(&mut shop.client, "SELECT max(name) FROM t").await, "two", "what is still there is read");
    rows(&mut shop.client, &create("t", "t").replace("CREATE EXTERNAL", "CREATE OR REPLACE EXTERNAL")).await;
    assert_eq!(value(&mut shop.client, "SELECT sum(id) FROM t").await, "3");
    shop.postgres.execute("DROP TABLE t");
    let gone = refused(&mut shop.client, "SELECT count(*) FROM u").await;
    assert_eq!(
        (gone.kind, gone.message.contains("there is no table t in PostgreSQL")),
        (ErrorKind::NotFound, true),
        "{gone}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_or_refuses_is_named_and_comes_back() {
    let mut shop = Shop::open(SETUP).await;
    shop.create("t", "t").await;
    shop.postgres.stop();
    let down = refused(&mut shop.client, "SELECT count(*) FROM t").await;
    assert_eq!(down.kind, ErrorKind::Unavailable, "{down}");
    assert!(down.message.contains("secret `pg`"), "{down}");
    let down = refused(&mut shop.client, &create("b", "t")).await;
    assert_eq!(down.kind, ErrorKind::Unavailable, "{down}");
    shop.postgres.start_again();
    assert_eq!(value(&mut shop.client, "SELECT count(*) FROM t").await, "2");
    // Another server process, with what is wrong.
    for (user, password, says) in
        [("tidemill", "hunter2", "refused its user and password"), ("reader", "reads", "may not be read")]
    {
        let environment = shop.postgres.environment_of(user, password);
        let server = Process::start_with(&["server", "--bind", "127.0.0.1:0", "--slots", "1"], &environment);
        let mut client = Client::connect(&server.url()).await.expect("a client");
        let table = if user == "reader" { "hidden" } else { "t" };
        let error = match user {
            "reader" => {
                rows(&mut client, &create("hidden", table)).await;
                refused(&mut client, "SELECT * FROM hidden").await
            }
            _ => refused(&mut client, &create("t", table)).await,
        };
        assert!(error.message.contains(says) && !error.message.contains(password), "{error}");
        assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_lacks_a_secret_says_so() {
    let postgres = tokio::task::spawn_blocking(Postgres::start).await.expect("a server");
    postgres.execute(SETUP);
    let coordinator = Process::start_with(&["coordinator", "--bind", "127.0.0.1:0"], &postgres.environment());
    let url = coordinator.url();
    let _executor = Process::start(&["executor", "--connect", &url, "--slots", "1", "--memory", "256MiB"]);
    let mut client = Client::connect(&url).await.expect("a client");
    rows(&mut client, &create("t", "t")).await;
    let error = refused(&mut client, "SELECT count(*) FROM t").await;
    assert!(error.message.contains("this process knows no secret `pg`"), "{error}");
}
