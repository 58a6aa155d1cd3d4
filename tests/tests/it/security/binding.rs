//! Where processes may listen.

use tidemill::client::Client;
use tidemill::security::Access;
use tidemill_core::ErrorKind;
use tidemill_engine::secrets::Secret;
use tidemill_tests::harness::{Process, value};

use super::secured::{Authority, secret_file};

/// Runs a command that is refused; answers what it says.
fn refused(args: &[&str]) -> String {
    let output = Process::run(args);
    assert_eq!(output.code, Some(2), "{args:?}: {}", output.stderr);
    output.stderr
}

#[test]
fn a_port_that_others_reach_needs_tls_and_authentication() {
    for role in ["server", "coordinator"] {
        let said = refused(&[role, "--bind", "0.0.0.0:0"]);
        for word in ["0.0.0.0:0 can be reached by other machines", "--tls-cert", "--users", "--insecure"] {
            assert!(said.contains(word), "{role}: {word}: {said}");
        }
    }
    let executor = ["executor", "--connect", "http://127.0.0.1:1", "--bind", "0.0.0.0:0"];
    let said = refused(&[&executor[..], &["--advertise", "127.0.0.1:1"]].concat());
    assert!(
        said.contains("can be reached") && said.contains("--cluster-token-file") && !said.contains("--users"),
        "{said}"
    );
    // With a part of it, the rest is missed.
    let folder = tempfile::tempdir().expect("a folder");
    let signed = Authority::new(folder.path(), "authority").sign("one", &["127.0.0.1"]);
    let tls = ["--tls-cert", &signed.cert, "--tls-key", &signed.key];
    let said = refused(&[&["server", "--bind", "[::]:0"][..], &tls[..]].concat());
    assert!(said.contains("--users") && !said.contains("no TLS"), "{said}");
    let users = folder.path().join("users.toml").display().to_string();
    assert_eq!(Process::run(&["user", "add", "ann", "--role", "read", "--users", &users]).code, Some(0));
    let said = refused(&["server", "--bind", "0.0.0.0:0", "--users", &users]);
    assert!(said.contains("no TLS") && !said.contains("--users"), "{said}");
    // Executors could not join this one.
    let said = refused(&[&["coordinator", "--users", &users][..], &tls[..]].concat());
    assert!(said.contains("--cluster-token-file"), "{said}");
}

#[test]
fn what_does_not_fit_together_is_said_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let signed = Authority::new(folder.path(), "authority").sign("one", &["127.0.0.1"]);
    let (other, short) = (secret_file(folder.path(), "other", "xyzzy"), secret_file(folder.path(), "short", "xyzzy"));
    for (args, said) in [
        (vec!["--tls-cert", &signed.cert], "--tls-key"),
        (vec!["--tls-key", &signed.key], "--tls-cert"),
        (vec!["--tls-cert", &other, "--tls-key", &signed.key], "is not in PEM"),
        (vec!["--tls-cert", &signed.cert, "--tls-key", &signed.cert], "cannot be used"),
        (vec!["--tls-cert", "/nowhere", "--tls-key", &signed.key], "/nowhere cannot be read"),
        (vec!["--tls-client-ca", &signed.cert], "--tls-client-ca needs TLS"),
        (vec!["--cluster-token-file", &short], "16 or more"),
        (vec!["--cluster-token", "0123456789abcdef", "--cluster-token-file", &short], "are both given"),
        (vec!["--users", &other], "the users' file"),
        (vec!["--allow-url", "bucket"], "s3://BUCKET/FOLDER"),
    ] {
        let output = refused(&[vec!["server", "--bind", "127.0.0.1:0"], args.clone()].concat());
        assert!(output.contains(said) && !output.contains("xyzzy"), "{args:?}: {output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn insecure_says_so_and_files_stay_closed_beyond_loopback() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = ["server", "--insecure", "--slots", "1", "--memory", "128MiB", "--bind"];
    let open = Process::start(&[&server[..], &["0.0.0.0:0"]].concat());
    let mut client = Client::connect(&open.url().replace("0.0.0.0", "127.0.0.1")).await.expect("a client");
    assert_eq!(value(&mut client, "SELECT count(*) FROM generate_series(1, 10)").await, "10");
    let copy = format!("COPY (SELECT 1 AS x) TO '{}'", folder.path().join("x.csv").display());
    let refused = client.query(&copy).await.err().expect("a refusal");
    assert_eq!(refused.kind, ErrorKind::Denied);
    assert!(refused.message.contains("--allow-path") && refused.message.contains("as yet none"), "{refused}");
    // Also on loopback, where there are users: they are not the one whose process it is.
    let users = folder.path().join("users.toml").display().to_string();
    let token = Process::run(&["user", "add", "ann", "--role", "write", "--users", &users]).stdout.trim().to_owned();
    let asks = ["server", "--slots", "1", "--memory", "128MiB", "--bind", "127.0.0.1:0", "--users", &users];
    let asks = Process::start(&asks);
    let access = Access { token: Some(Secret::new(token)), ..Access::default() };
    let ann = Client::connect_with(&asks.url(), &access).await.expect("a client");
    assert!(ann.query(&copy).await.is_err_and(|e| e.kind == ErrorKind::Denied && e.message.contains("as yet none")));
    // Nor is whoever asks an executor that asks back, also where its coordinator would let them.
    let token = secret_file(folder.path(), "cluster.token", "a-token-of-this-cluster-0123456789");
    let (data, work) = (folder.path().display().to_string(), folder.path().join("work").display().to_string());
    let known = ["--cluster-token-file", &token];
    let leads = ["coordinator", "--bind", "127.0.0.1:0", "--users", &users, "--allow-path", &data];
    let leads = Process::start(&[&leads[..], &known].concat());
    let url = leads.url();
    let works = ["executor", "--connect", &url, "--slots", "1", "--memory", "128MiB", "--work-dir", &work];
    let _works = Process::start(&[&works[..], &known].concat());
    let ann = Client::connect_with(&url, &access).await.expect("a client");
    let refused = ann.query(&copy).await.expect("a run").collect().await.expect_err("a refusal");
    assert!(refused.kind == ErrorKind::Denied && refused.message.contains("as yet none"), "{refused}");
    // Without any flag on loopback all is as it was.
    let near = Process::start(&["server", "--slots", "1", "--memory", "128MiB", "--bind", "127.0.0.1:0"]);
    let mut client = Client::connect(&near.url()).await.expect("a client");
    assert_eq!(value(&mut client, &copy).await, "1");
}

#[test]
fn settings_may_stand_in_the_file_and_secrets_are_not_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = "insecure = true\nallow-path = [\"/a\", \"/b\"]\ncluster-token = \"xyzzy-xyzzy-xyzzy\"\n\
                    [sql]\nconnect = \"https://ann:xyzzy@h:1\"\ntoken = \"xyzzy\"\n";
    let file = [("TIDEMILL_CONFIG", secret_file(folder.path(), "config.toml", settings))];
    let shown = Process::run_with(&["config", "--format", "csv"], &file).stdout;
    for line in ["server,insecure,true,", "executor,allow-path,\"/a,/b\",", "sql,connect,https://h:1,"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    for hidden in ["coordinator,cluster-token,(hidden),", "sql,token,(hidden),"] {
        assert!(shown.contains(hidden), "{hidden}: {shown}");
    }
    let helps = ["server", "executor", "sql"].map(|of| Process::run_with(&[of, "--help"], &file).stdout);
    assert!(helps.iter().all(|help| help.contains("--insecure") && !help.contains("xyzzy")), "{helps:?}");
    assert!(!shown.contains("xyzzy"), "{shown}");
    let server = ["server", "--bind", "0.0.0.0:0", "--slots", "1", "--memory", "128MiB"];
    Process::start_with(&server, &file);
}

#[test]
fn users_are_added_once_and_not_without_a_password() {
    let folder = tempfile::tempdir().expect("a folder");
    let users = folder.path().join("users.toml").display().to_string();
    let add = |more: &[&str]| Process::run(&[&["user", "add", "--users", &users][..], more].concat());
    let added = add(&["ann", "--role", "admin"]);
    assert!(added.code == Some(0) && added.stdout.starts_with("tmu_"), "{added:?}");
    for (more, code, said) in [
        (vec!["ann", "--role", "read"], 1, "there is a user `ann`"),
        (vec!["bob", "--role", "king"], 2, "there is no role `king`"),
        (vec!["a b", "--role", "read"], 1, "a name has"),
        (vec!["bob", "--role", "read", "--password"], 1, "0 characters"),
    ] {
        let refused = add(&more);
        assert!(refused.code == Some(code) && refused.stderr.contains(said), "{more:?}: {refused:?}");
    }
    let text = std::fs::read_to_string(&users).expect("a file");
    assert!(text.contains("blake3:") && !text.contains(added.stdout.trim()), "{text}");
}
