//! What is wrong before a command begins: it ends with 2.

use tidemill_tests::harness::Process;

#[test]
fn what_servers_are_told_wrongly_is_wrong_use() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file").display().to_string();
    std::fs::write(&file, "x").expect("a file");
    let here = ["--bind", "127.0.0.1:0"];
    let executor = ["executor", "--connect", "http://127.0.0.1:1"];
    for (args, named) in [
        (vec!["executor", "--connect", "nonsense"], "nonsense"),
        ([&executor[..], &["--bind", "0.0.0.0:0", "--insecure"]].concat(), "--advertise"),
        ([&executor[..], &["--work-dir", &file]].concat(), "file"),
        ([&["server"][..], &here, &["--state", "nonsense"]].concat(), "--state nonsense"),
        ([&["server"][..], &here, &["--work-dir", &file]].concat(), "file"),
        ([&["coordinator"][..], &here, &["--state", "hdfs://host/x"]].concat(), "hdfs"),
        ([&["coordinator"][..], &here, &["--users", "/no/such/file"]].concat(), "/no/such/file"),
    ] {
        let output = Process::run(&args);
        assert!(output.code == Some(2) && output.stderr.contains(named), "{args:?}: {output:?}");
    }
}

#[test]
fn files_of_other_editors_are_read_or_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("q.sql");
    let run = |bytes: &[u8]| {
        std::fs::write(&file, bytes).expect("a file");
        Process::run(&["sql", "-f", &file.display().to_string(), "--format", "csv"])
    };
    let marked = run(b"\xEF\xBB\xBFSELECT 1 AS a;\r\n");
    assert_eq!((marked.code, marked.stdout.as_str()), (Some(0), "a\n1\n"), "{}", marked.stderr);
    let utf_16 = run(b"\xFF\xFES\0E\0L\0");
    assert_eq!(utf_16.code, Some(2), "{}", utf_16.stderr);
    assert!(utf_16.stderr.contains("q.sql cannot be read: it is UTF-16"), "{}", utf_16.stderr);
}
