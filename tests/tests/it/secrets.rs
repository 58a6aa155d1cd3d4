//! Secrets open stores and databases, and stay where they were given: everything that is written anywhere is searched for them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use arrow::util::pretty::pretty_format_batches;
use object_store::{ObjectStoreExt, PutPayload};
use tidemill::client::Client;
use tidemill_tests::harness::postgres::{PASSWORD, Postgres, USER};
use tidemill_tests::harness::s3::{ACCESS_KEY, S3Server, SECRET_KEY};
use tidemill_tests::harness::{Process, ProcessCluster, Terminal, rows, tpch, value};

/// What somebody writes into statements, though it should stand in a secret.
const TYPED: &str = "t1pped+in/haste=42";

/// A settings file with these contents that only its owner reads.
fn settings(folder: &Path, contents: &str) -> PathBuf {
    let path = folder.join("config.toml");
    std::fs::write(&path, contents).expect("a settings file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its permissions");
    path
}

fn s3_secret(name: &str, endpoint: &str, secret: &str, scope: &str) -> String {
    format!(
        "[secrets.{name}]\ntype = \"s3\"\nscope = \"{scope}\"\nkey_id = \"{ACCESS_KEY}\"\nsecret = \"{secret}\"\n\
         endpoint = \"{endpoint}\"\nallow_http = true\nregion = \"us-east-1\"\n"
    )
}

async fn with_orders() -> S3Server {
    let server = tokio::task::spawn_blocking(S3Server::start).await.expect("a server");
    server.create_bucket("lake");
    let file = std::fs::read(tpch().join("orders/part-000.parquet")).expect("a file");
    for folder in ["raw", "other"] {
        let path = format!("{folder}/part-000.parquet").into();
        server.store("lake").put(&path, PutPayload::from(file.clone())).await.expect("an upload");
    }
    server
}

fn orders(name: &str, location: &str, options: &str) -> String {
    format!("CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION '{location}'{options}")
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_written_anywhere_holds_a_secret() {
    let s3 = with_orders().await;
    let postgres = tokio::task::spawn_blocking(Postgres::start).await.expect("a server");
    postgres.execute(
        "CREATE TABLE known AS SELECT k::bigint AS key, 'customer ' || k AS note FROM generate_series(1, 500) AS k",
    );
    let (config, written) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let contents = format!(
        "{}[secrets.pg]\ntype = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"{USER}\"\ndatabase = \"postgres\"\n\
         sslmode = \"disable\"\npassword = \"{PASSWORD}\"\n",
        s3_secret("lake", &s3.endpoint, SECRET_KEY, "s3://lake"),
        postgres.port
    );
    let config = settings(config.path(), &contents).display().to_string();
    let state = format!("file://{}", written.path().join("state").display());
    let environment = [("TIDEMILL_CONFIG", config), ("TIDEMILL_LOG", "debug,h2=info,hyper=info".to_owned())];
    let mut cluster = ProcessCluster::with(2, 1, &state, &environment).await;
    let mut client = cluster.client().await;
    rows(&mut client, &orders("orders", "s3://lake/raw/", " OPTIONS (secret 'lake')")).await;
    rows(&mut client, "CREATE EXTERNAL TABLE known STORED AS POSTGRES LOCATION 'known' OPTIONS (secret 'pg')").await;
    let join = "SELECT note, count(*) AS n FROM orders JOIN known ON o_custkey = key GROUP BY note";
    let expected = value(&mut client, "SELECT count(*) FROM orders WHERE o_custkey <= 500").await;
    assert_eq!(value(&mut client, &format!("SELECT sum(n) FROM ({join}) AS q")).await, expected);
    rows(&mut client, &format!("COPY ({join}) TO 's3://lake/out/' STORED AS PARQUET")).await;
    rows(&mut client, &format!("CREATE TABLE kept AS {join}")).await;
    let url = cluster.coordinator.url();
    let typed = typed_statements();
    let home = written.path().to_owned();
    let mut shown = tokio::task::spawn_blocking(move || at_the_shell(&home, &url, &typed)).await.expect("a shell");
    for sql in typed_statements() {
        let error = client.execute(&sql).await.err().unwrap_or_else(|| panic!("{sql} is right"));
        shown.push(error.to_string());
    }
    // Errors of the servers themselves.
    postgres.execute("ALTER ROLE tidemill PASSWORD 'another'");
    cluster.add_executor(1);
    let denied = client.query("SELECT count(*) FROM known").await.expect("a run").collect().await;
    shown.push(format!("{denied:?}"));
    for table in ["executors", "intervals", "jobs", "runs", "secrets", "stages", "tasks"] {
        shown.push(shown_by(&mut client, &format!("SELECT * FROM system.{table}")).await);
    }
    for sql in ["SHOW CREATE TABLE known", "SHOW CREATE TABLE orders", "SHOW TABLES"] {
        shown.push(shown_by(&mut client, sql).await);
    }
    for explain in ["EXPLAIN VERBOSE", "EXPLAIN (FORMAT JSON)", "EXPLAIN ANALYZE"] {
        let sql = if explain.ends_with("ANALYZE") { "SELECT count(*) FROM orders" } else { join };
        shown.push(shown_by(&mut client, &format!("{explain} {sql}")).await);
    }
    shown.extend(cluster.executors.iter().chain([&cluster.coordinator]).map(Process::said));
    let logged: usize = cluster.executors.iter().map(|executor| executor.said().len()).sum();
    assert!(logged > 1_000, "executors at the level debug said {logged} bytes: what was searched?");
    let mut searched = 0;
    for folder in [written.path(), cluster.work_dir()] {
        for file in files(folder) {
            // The cluster lives: some files are gone by the time they would be read.
            let Ok(bytes) = std::fs::read(&file) else { continue };
            searched += bytes.len();
            assert_holds_none(&bytes, &file.display().to_string());
        }
    }
    assert!(searched > 10_000, "the state has {searched} bytes: what was searched?");
    for (position, text) in shown.iter().enumerate() {
        assert_holds_none(text.as_bytes(), &format!("text {position}: {}", text.chars().take(80).collect::<String>()));
    }
    // The search finds what is there.
    assert!(shown.iter().any(|text| text.contains("***")), "nothing was hidden");
    let listed = shown_by(&mut client, "SELECT name, type, scope FROM system.secrets ORDER BY name").await;
    assert!(listed.contains("| lake | s3       | s3://lake |") && listed.contains("| pg   | postgres |"), "{listed}");
}

/// Statements with secrets in them, which are refused.
fn typed_statements() -> Vec<String> {
    vec![
        format!(
            "CREATE EXTERNAL TABLE a STORED AS POSTGRES LOCATION 'postgres://me:{TYPED}@127.0.0.1/x' OPTIONS (secret 'pg')"
        ),
        format!("CREATE EXTERNAL TABLE a STORED AS POSTGRES LOCATION 'known' OPTIONS (password '{TYPED}')"),
        orders("a", "s3://lake/raw/", &format!(" OPTIONS ('aws.secret_access_key' '{TYPED}')")),
        orders("a", &format!("s3://key:{TYPED}@lake/raw/"), ""),
        format!("COPY (SELECT 1) TO 's3://key:{TYPED}@lake/x.csv'"),
        format!("CREATE EXTERNAL TABLE a STORED AS POSTGRES LOCATION 'known' OPTIONS (password E'{TYPED}')"),
        format!("CREATE EXTERNAL TABLE a STORED AS POSTGRES LOCATION 'host=h password={TYPED}' OPTIONS (secret 'pg')"),
    ]
}

/// Types statements into the shell, which keeps a history in `home`: that, and each error that it shows.
fn at_the_shell(home: &Path, url: &str, statements: &[String]) -> Vec<String> {
    let mut terminal = Terminal::start(home, &["sql", "--connect", url]);
    terminal.sees("Ctrl-D leaves");
    let mut shown = Vec::new();
    for statement in statements {
        terminal.types(&format!("{statement};"));
        // Before it is what was typed.
        terminal.sees("error: ");
        shown.push(terminal.sees("tidemill>"));
    }
    terminal.types("SELECT 'remembered' AS x;");
    terminal.sees("1 row");
    terminal.presses_control('d');
    let ended = terminal.ends();
    let history = std::fs::read_to_string(home.join("history")).expect("a history");
    assert!(ended == 0 && history.contains("remembered"), "{history}");
    assert!(shown.iter().all(|error| error.len() > 40), "{shown:?}");
    shown.push(history);
    shown
}

async fn shown_by(client: &mut Client, sql: &str) -> String {
    pretty_format_batches(&rows(client, sql).await).expect("text").to_string()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn assert_holds_none(bytes: &[u8], place: &str) {
    for secret in [PASSWORD, SECRET_KEY, TYPED] {
        for form in forms(secret) {
            let found = bytes.windows(form.len()).any(|window| window == form.as_bytes());
            assert!(!found, "{place} holds a secret, as {} bytes of another form", form.len());
        }
    }
}

/// A text as it is, percent-encoded, in base64 at any place of another text, in hexadecimal, and between quotes of SQL or JSON.
fn forms(secret: &str) -> Vec<String> {
    let percent: String = secret
        .bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect();
    let hex: String = secret.bytes().map(|b| format!("{b:02x}")).collect();
    let mut forms = vec![secret.to_owned(), percent.replace("%20", "+"), percent, hex];
    for before in 0..3 {
        let encoded = base64(&[vec![0; before], secret.as_bytes().to_vec()].concat());
        // Digits that neighbours have no part in.
        let inner: String = encoded.chars().skip(before * 2).take(secret.len() * 4 / 3 - 4).collect();
        forms.extend([inner.replace('+', "-").replace('/', "_"), inner]);
    }
    forms
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = bytes.chunks(3).flat_map(|chunk| {
        let word = (0..3).fold(0_usize, |word, i| word << 8 | usize::from(chunk.get(i).copied().unwrap_or(0)));
        (0..4).map(move |digit| char::from(DIGITS[word >> (18 - 6 * digit) & 63])).take(chunk.len() + 1)
    });
    digits.collect()
}

#[test]
fn the_search_knows_a_secret_in_any_form() {
    assert_eq!(base64(b"any carnal pleas"), "YW55IGNhcm5hbCBwbGVhcw");
    for before in ["", "a", "ab"] {
        let text = base64(format!("{before}{PASSWORD}tail").as_bytes());
        assert!(forms(PASSWORD).iter().any(|form| text.contains(form.as_str())), "{before:?}: {text}");
    }
    assert!(forms("a b/c").contains(&"a%20b%2Fc".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_scope_opens_a_location_unnamed() {
    let s3 = with_orders().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (right, wrong) = (SECRET_KEY, "wrong");
    let contents =
        s3_secret("all", &s3.endpoint, wrong, "s3://") + &s3_secret("raw", &s3.endpoint, right, "s3://lake/raw");
    let environment = [("TIDEMILL_CONFIG", settings(folder.path(), &contents).display().to_string())];
    let server = Process::start_with(&["server", "--bind", "127.0.0.1:0", "--slots", "1"], &environment);
    let mut client = Client::connect(&server.url()).await.expect("a client");
    rows(&mut client, &orders("raw", "s3://lake/raw/", "")).await;
    assert_ne!(value(&mut client, "SELECT count(*) FROM raw").await, "0");
    let other = client.execute(&orders("other", "s3://lake/other/", "")).await.err().expect("another's key");
    assert!(other.message.contains("403 Forbidden"), "{other}");
    let named = client.execute(&orders("named", "s3://lake/raw/", " OPTIONS (secret 'all')")).await.err();
    let named = named.expect("another secret is nearer");
    assert!(named.message.contains("is opened with the secret `raw`"), "{named}");
    let unknown = client.execute(&orders("named", "gs://lake/raw/", " OPTIONS (secret 'mine')")).await.err();
    assert!(unknown.expect("no such secret").message.contains("no secret `mine` of this server opens gs://lake/raw/"));
}

/// A folder may be called what a secret's name is.
#[tokio::test(flavor = "multi_thread")]
async fn folders_that_sound_like_secrets_are_read_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data/token=5");
    std::fs::create_dir_all(&data).expect("a folder");
    std::fs::copy(tpch().join("orders/part-000.parquet"), data.join("part-000.parquet")).expect("a file");
    let state = format!("file://{}", folder.path().join("state").display());
    let start = || Process::start(&["server", "--bind", "127.0.0.1:0", "--slots", "1", "--state", &state]);
    let server = start();
    let mut client = Client::connect(&server.url()).await.expect("a client");
    rows(&mut client, &orders("orders", &format!("{}/", data.display()), "")).await;
    let expected = value(&mut client, "SELECT count(*) FROM orders").await;
    assert_ne!(expected, "0");
    drop(server);
    let server = start();
    let mut client = Client::connect(&server.url()).await.expect("a client");
    assert_eq!(value(&mut client, "SELECT count(*) FROM orders").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_of_aws_open_buckets() {
    let s3 = with_orders().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, contents: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, contents).expect("a file");
        path.display().to_string()
    };
    let keys = format!(
        "[default]\naws_access_key_id=none\naws_secret_access_key=none\n\n[tide]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    );
    let config = format!("[profile tide]\nregion = us-east-1\nendpoint_url = {}\n", s3.endpoint);
    let files =
        [("AWS_SHARED_CREDENTIALS_FILE", file("credentials", keys)), ("AWS_CONFIG_FILE", file("config", config))];
    let with_profile = |name: &str| {
        let own = [("AWS_PROFILE", name.to_owned()), ("AWS_ALLOW_HTTP", "true".to_owned())];
        Process::start_with(&["server", "--bind", "127.0.0.1:0", "--slots", "1"], &[files.as_slice(), &own].concat())
    };
    let server = with_profile("tide");
    let mut client = Client::connect(&server.url()).await.expect("a client");
    rows(&mut client, &orders("raw", "s3://lake/raw/", "")).await;
    assert_ne!(value(&mut client, "SELECT count(*) FROM raw").await, "0");
    let server = with_profile("pond");
    let mut client = Client::connect(&server.url()).await.expect("a client");
    let missing = client.execute(&orders("raw", "s3://lake/raw/", "")).await.err().expect("there is no such profile");
    assert!(missing.message.contains("there is no AWS profile `pond`"), "{missing}");
}

#[test]
fn files_that_everybody_reads_and_secrets_that_are_none_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = |contents: &str, mode: u32| {
        let path = settings(folder.path(), contents);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("its permissions");
        let environment = [("TIDEMILL_CONFIG", path.display().to_string())];
        Process::run_with(&["sql", "-c", "SELECT name FROM system.secrets"], &environment)
    };
    let given = "[secrets.pg]\ntype = \"postgres\"\nhost = \"h\"\npassword = \"hunter2\"\n";
    let elsewhere = given.replace("\"hunter2\"", "{ env = \"NOWHERE\" }");
    assert_eq!(start(given, 0o600).code, Some(0));
    assert_eq!(start(&elsewhere, 0o644).code, Some(0), "there is no secret in it");
    let cases = [
        (given.to_owned(), 0o644, "everybody may read it"),
        (given.replace("postgres", "oracle"), 0o600, "`oracle` is no type of secret"),
        (given.replace("secrets.pg", "secrets.PG"), 0o600, "`PG` is no name of a secret"),
        (given.replace("\"hunter2\"", "[\"hunter2\"]"), 0o600, "`password` of secrets.pg is no value"),
        (given.replace("type = \"postgres\"", ""), 0o600, "secrets.pg has no type"),
        (given.replace("type = \"postgres\"", "type = \"s3\"\nscope = \"gs://b\""), 0o600, "none of s3"),
    ];
    for (contents, mode, says) in cases {
        let refused = start(&contents, mode);
        assert_eq!(refused.code, Some(2), "{contents}: {refused:?}");
        assert!(refused.stderr.contains(says) && !refused.stderr.contains("hunter2"), "{contents}: {}", refused.stderr);
    }
    let open = folder.path().join("password");
    std::fs::write(&open, "hunter2").expect("a file");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).expect("its permissions");
    let contents = given.replace("\"hunter2\"", &format!("{{ file = \"{}\" }}", open.display()));
    let environment = [("TIDEMILL_CONFIG", settings(folder.path(), &contents).display().to_string())];
    let sql = "CREATE EXTERNAL TABLE t STORED AS POSTGRES LOCATION 't' OPTIONS (secret 'pg')";
    let refused = Process::run_with(&["sql", "-c", sql], &environment);
    assert!(
        refused.stderr.contains("everybody may read it") && !refused.stderr.contains("hunter2"),
        "{}",
        refused.stderr
    );
}
