//! The processes of a cluster among themselves.

use std::time::{Duration, Instant};

use tidemill::client::Client;
use tidemill::security::Access;
use tidemill_core::ErrorKind;
use tidemill_engine::secrets::Secret;
use tidemill_tests::harness::{Process, value};

use super::secured::{Authority, EXCHANGES, Secured, secret_file};

/// Starts a process that is not let in; what it says at its end.
fn turned_away(args: &[&str]) -> String {
    let output = Process::run(args);
    assert_eq!(output.code, Some(1), "{args:?}: {}", output.stderr);
    output.stderr
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_tls_and_a_token_works_and_survives_its_coordinator() {
    let mut cluster = Secured::start(2).await;
    let mut ann = cluster.client("ann").await;
    assert_eq!(value(&mut ann, EXCHANGES).await, "100000");
    // Files, and a result that is read from executors.
    let copy = format!("COPY (SELECT * FROM generate_series(1, 1000) AS t(x)) TO '{}/numbers/'", cluster.path("data"));
    assert_eq!(value(&mut ann, &format!("{copy} STORED AS PARQUET")).await, "1000");
    let view = format!("CREATE EXTERNAL TABLE numbers STORED AS PARQUET LOCATION '{}/numbers/'", cluster.path("data"));
    ann.query(&view).await.expect("a table").collect().await.expect("a table");
    // Executors register again, and their tickets stay good.
    cluster.restart_coordinator();
    cluster.wait_for_executors(2).await;
    assert_eq!(value(&mut ann, "SELECT sum(x) FROM numbers").await, "500500");
    assert_eq!(value(&mut ann, EXCHANGES).await, "100000");
    // The command line, with the token in a file, in a variable, and with a password in the URL.
    let file = secret_file(cluster.folder.path(), "ann.token", cluster.token("ann"));
    let ca = cluster.authority.path();
    let url = cluster.url();
    let statement = ["--tls-ca", &ca, "--format", "csv", "-c", "SELECT 40 + 2 AS x"];
    let by_file = Process::run(&[&["sql", "--connect", &url, "--token-file", &file][..], &statement[..]].concat());
    assert_eq!((by_file.code, by_file.stdout.as_str()), (Some(0), "x\n42\n"), "{}", by_file.stderr);
    let variable = [("TIDEMILL_TOKEN", cluster.token("bob").to_owned())];
    let by_variable = Process::run_with(&[&["sql", "--connect", &url][..], &statement[..]].concat(), &variable);
    assert_eq!(by_variable.code, Some(0), "{}", by_variable.stderr);
    let carl = url.replace("https://", "https://carl:correct%20horse%20battery@");
    let by_password = Process::run(&[&["sql", "--connect", &carl][..], &statement[..]].concat());
    assert_eq!(by_password.code, Some(0), "{}", by_password.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_belong_to_the_cluster_is_turned_away() {
    let cluster = Secured::start(0).await;
    let (url, ca, work) = (cluster.url(), cluster.authority.path(), cluster.path("work"));
    let executor = ["executor", "--connect", &url, "--slots", "1", "--memory", "128MiB", "--work-dir", &work];
    let said = turned_away(&[&executor[..], &["--tls-ca", &ca]].concat());
    assert!(said.contains("only processes of the cluster"), "{said}");
    let wrong = secret_file(cluster.folder.path(), "wrong.token", "another-token-of-another-cluster");
    let said = turned_away(&[&executor[..], &["--tls-ca", &ca, "--cluster-token-file", &wrong]].concat());
    assert!(said.contains("only processes of the cluster") && !said.contains("another-token"), "{said}");
    // Its users are no processes of the cluster.
    let users = secret_file(cluster.folder.path(), "ann.token", cluster.token("ann"));
    let said = turned_away(&[&executor[..], &["--tls-ca", &ca, "--cluster-token-file", &users]].concat());
    assert!(said.contains("only processes of the cluster"), "{said}");
    // And a coordinator whose certificate another signed is none.
    let other = Authority::new(cluster.folder.path(), "other");
    let token = cluster.path("cluster.token");
    let said = turned_away(&[&executor[..], &["--tls-ca", &other.path(), "--cluster-token-file", &token]].concat());
    assert!(said.contains("do not fit together") && said.contains("--tls-ca"), "{said}");
    let access =
        Access { tls_ca: Some(other.pem.clone()), token: Some(Secret::new(cluster.token("ann"))), ..Access::default() };
    let refused = Client::connect_with(&url, &access).await.err().expect("a refusal");
    assert_eq!(refused.kind, ErrorKind::Denied);
    assert!(refused.message.contains("UnknownIssuer"), "{refused}");
    // A name that the certificate has not.
    let access = Access { tls_name: Some("elsewhere.example".to_owned()), ..cluster.access(None) };
    assert!(Client::connect_with(&url, &access).await.is_err_and(|e| e.kind == ErrorKind::Denied));
    // Whoever speaks without TLS hears so, and does not wait.
    let start = Instant::now();
    let plain = Client::connect(&url.replace("https://", "http://")).await.err().expect("nothing answers");
    assert!(plain.kind == ErrorKind::Unavailable && plain.message.contains("has TLS: write https://"), "{plain}");
    assert!(start.elapsed() < Duration::from_secs(12), "it took {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_enough_where_both_sides_show_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let authority = Authority::new(folder.path(), "authority");
    let (ca, signed) = (authority.path(), authority.sign("one", &["the-cluster"]));
    let users = at("users.toml");
    let token = Process::run(&["user", "add", "ann", "--role", "write", "--users", &users]).stdout.trim().to_owned();
    let tls = ["--tls-cert", &signed.cert, "--tls-key", &signed.key, "--tls-ca", &ca];
    let tls = [&tls[..], &["--tls-client-ca", &ca, "--tls-name", "the-cluster"]].concat();
    let coordinator = [&["coordinator", "--bind", "127.0.0.1:0", "--users", &users][..], &tls[..]].concat();
    let coordinator = Process::start_saying(&coordinator, &[], "is ready at https://");
    let (url, work) = (coordinator.url(), at("work"));
    let executor = ["executor", "--connect", &url, "--slots", "1", "--memory", "128MiB", "--work-dir", &work];
    let joined = [&executor[..], &tls[..]].concat();
    let executors = [&joined, &joined].map(|args| Process::start_saying(args, &[], "is ready at https://"));
    let access = Access {
        tls_ca: Some(authority.pem.clone()),
        tls_name: Some("the-cluster".to_owned()),
        token: Some(Secret::new(token)),
        ..Access::default()
    };
    let mut ann = Client::connect_with(&url, &access).await.expect("a client");
    let start = Instant::now();
    while value(&mut ann, "SELECT count(*) FROM system.executors").await != "2" {
        assert!(start.elapsed() < Duration::from_secs(60), "the executors do not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(value(&mut ann, EXCHANGES).await, "100000");
    // Without a certificate, and with one that another signed.
    let said = turned_away(&[&executor[..], &["--tls-ca", &ca, "--tls-name", "the-cluster"]].concat());
    assert!(said.contains("only processes of the cluster"), "{said}");
    let stranger = Authority::new(folder.path(), "stranger").sign("stranger", &["the-cluster"]);
    let strange =
        ["--tls-cert", &stranger.cert, "--tls-key", &stranger.key, "--tls-ca", &ca, "--tls-name", "the-cluster"];
    // Its connection just ends, perhaps before it is told why: then it tries again.
    let mut stranger = Process::begin(&[&executor[..], &strange[..]].concat());
    stranger.until_said(&url).await;
    assert_ne!(stranger.exit_code(), Some(Some(0)), "{}", stranger.said());
    let said = stranger.said();
    assert!(said.contains("do not fit together") || said.contains("does not answer"), "{said}");
    assert_eq!(value(&mut ann, "SELECT count(*) FROM system.executors").await, "2");
    drop(executors);
}
