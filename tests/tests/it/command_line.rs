//! The binary as a person at a terminal meets it: what it prints, how it ends, and that wrong input gets one clear
//! sentence.

use std::path::Path;
use std::time::Duration;

use tidemill_tests::harness::{Output, Process, lasting_port, tpch};

fn fails_with(args: &[&str], parts: &[&str]) {
    check_failure(args, &Process::run(args), parts);
}

fn check_failure(args: &[&str], output: &Output, parts: &[&str]) {
    assert_ne!(output.code, Some(0), "{args:?} succeeded: {}", output.stdout);
    let lines: Vec<&str> = output.stderr.lines().collect();
    assert!(lines[0].starts_with("error: "), "{args:?} printed {:?}", output.stderr);
    match lines[1..] {
        [] => {}
        // The place in the SQL.
        [line, caret] if line.starts_with("line ") && caret.trim() == "^" => {}
        _ => panic!("{args:?} printed {:?}", output.stderr),
    }
    for part in parts {
        assert!(output.stderr.contains(part), "{args:?} printed {:?}, which lacks {part:?}", output.stderr);
    }
    assert!(output.time < Duration::from_secs(60), "{args:?} took {:?}", output.time);
}

fn nation() -> String {
    format!("CREATE EXTERNAL TABLE nation STORED AS PARQUET LOCATION '{}/nation/';", tpch().display())
}

#[test]
fn formats_are_what_they_say() {
    let query = |format: &str| {
        let output = Process::run(&["sql", "-c", "SELECT 1 AS a, 'x' AS b", "--format", format]);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        output.stdout
    };
    assert_eq!(query("csv"), "a,b\n1,x\n");
    assert_eq!(query("json"), "[{\"a\":1,\"b\":\"x\"}]\n");
    assert_eq!(query("jsonl"), "{\"a\":1,\"b\":\"x\"}\n");
    assert_eq!(query("table"), "+---+---+\n| a | b |\n+---+---+\n| 1 | x |\n+---+---+\n");
    assert_eq!(query("tsv"), "a\tb\n1\tx\n");
    assert_eq!(query("markdown"), "| a | b |\n|--:|---|\n| 1 | x |\n");
    let boxed =
        "┌───────┬──────┐\n│     a │ b    │\n│ Int64 │ Utf8 │\n├───────┼──────┤\n│     1 │ x    │\n└───────┴──────┘\n";
    assert_eq!(query("box"), boxed);
}

#[test]
fn markdown_tables_have_a_line_between_them() {
    let output = Process::run(&[
        "sql",
        "-c",
        "SELECT 1 AS a; CREATE VIEW v AS SELECT 2 AS b; SELECT * FROM v",
        "--format",
        "markdown",
    ]);
    assert_eq!(output.stdout, "| a |\n|--:|\n| 1 |\n\n| b |\n|--:|\n| 2 |\n", "{}", output.stderr);
}

#[test]
fn an_arrow_stream_has_the_rows_and_their_types() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = std::fs::File::create(folder.path().join("rows.arrows")).expect("a file");
    let output = Process::run_into(file, &["sql", "-c", "SELECT 1 AS a, CAST(NULL AS DATE) AS b", "--format", "arrow"]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let file = std::fs::File::open(folder.path().join("rows.arrows")).expect("a file");
    let reader = arrow::ipc::reader::StreamReader::try_new(file, None).expect("a stream");
    let types: Vec<String> = reader.schema().fields().iter().map(|f| f.data_type().to_string()).collect();
    assert_eq!(types, ["Int64", "Date32"]);
    assert_eq!(reader.map(|batch| batch.expect("a batch").num_rows()).sum::<usize>(), 1);
}

#[test]
fn values_cannot_move_the_cursor() {
    let output = Process::run(&["sql", "-c", "SELECT chr(27) || '[2J' || chr(10) AS a"]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert!(output.stdout.contains("\\u{1b}[2J\\n"), "{}", output.stdout);
}

#[test]
fn errors_point_at_their_place() {
    let caret = |sql: &str, line: &str| {
        let output = Process::run(&["sql", "-c", "CREATE VIEW forest AS SELECT 1 AS trees", "-c", sql]);
        let printed: Vec<&str> = output.stderr.lines().collect();
        assert_eq!((output.code, printed.get(1).copied()), (Some(1), Some(line)), "{}", output.stderr);
        let at = printed.get(2).and_then(|caret| caret.find('^')).unwrap_or_else(|| panic!("{}", output.stderr));
        line[at..].to_owned()
    };
    assert_eq!(caret("SELEKT 1", "line 1: SELEKT 1"), "SELEKT 1");
    assert_eq!(caret("SELECT 1,\n 'open", "line 2:  'open"), "'open");
    assert_eq!(caret("SELECT *\nFROM forrest f", "line 2: FROM forrest f"), "forrest f");
    assert_eq!(caret("SELECT trees, tree FROM forest", "line 1: SELECT trees, tree FROM forest"), "tree FROM forest");
    assert_eq!(
        caret("SELECT nosuch(trees) FROM forest", "line 1: SELECT nosuch(trees) FROM forest"),
        "nosuch(trees) FROM forest"
    );
}

#[test]
fn exit_codes_say_whether_to_try_again() {
    let url = format!("http://127.0.0.1:{}", lasting_port());
    assert_eq!(Process::run(&["sql", "--connect", &url, "-c", "SELECT 1"]).code, Some(75));
    assert_eq!(Process::run(&["sql", "-c", "SELEKT"]).code, Some(1));
    assert_eq!(Process::run(&["sql", "--nonsense"]).code, Some(2));
    assert_eq!(Process::run(&["sql", "-c", "SELECT 1", "--format", "nonsense"]).code, Some(2));
    assert_eq!(Process::run(&["sql", "--connect", "nonsense", "-c", "SELECT 1"]).code, Some(2));
    assert_eq!(Process::run(&["sql", "-f", "/no/such/file"]).code, Some(2));
    for wrong in ["foo=bar", "foo", "datafusion.execution.target_partitions=x"] {
        assert_eq!(Process::run(&["sql", "-c", "SELECT 1", "--set", wrong]).code, Some(2), "{wrong}");
    }
}

#[test]
fn wrong_values_are_blamed_on_what_gave_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.toml").display().to_string();
    std::fs::write(&file, "slots = \"x\"\n").expect("a file");
    let blamed = |args: &[&str], environment: &[(&str, String)], on: &str| {
        let output = Process::run_with(&[&["sql", "-c", "SELECT 1"], args].concat(), environment);
        assert!(output.code == Some(2) && output.stderr.contains(on), "{}", output.stderr);
    };
    let (of_file, variable) = (("TIDEMILL_CONFIG", file.clone()), ("TIDEMILL_SLOTS", "abc".to_owned()));
    blamed(&[], std::slice::from_ref(&of_file), &format!("'x' for 'slots in {file}'"));
    blamed(&[], &[of_file.clone(), variable.clone()], "'abc' for 'TIDEMILL_SLOTS'");
    blamed(&["--slots=y"], &[of_file, variable], "'y' for '--slots <N>'");
}

#[test]
fn a_wrong_setting_of_sessions_in_the_file_is_wrong_use() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.toml").display().to_string();
    std::fs::write(&file, "[set]\n\"datafusion.execution.batch_size\" = \"x\"\n").expect("a file");
    for args in [&["sql", "-c", "SELECT 1"][..], &["config"]] {
        let output = Process::run_with(args, &[("TIDEMILL_CONFIG", file.clone())]);
        assert!(output.code == Some(2) && output.stderr.contains(&file), "{args:?}: {}", output.stderr);
    }
}

#[test]
fn what_no_other_try_helps_is_not_to_be_tried_again() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
    let output = Process::run_into(full, &["sql", "-c", "SELECT 1"]);
    assert!(output.code == Some(1) && output.stderr.contains("No space left"), "{}", output.stderr);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.csv");
    std::fs::write(&file, "x").expect("a file");
    let output = Process::run(&["sql", "-c", &format!("COPY (SELECT 1 AS a) TO '{}/'", file.display())]);
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    for part in ["a.csv", "Not a directory"] {
        assert!(output.stderr.contains(part), "{}", output.stderr);
    }
}

#[test]
fn settings_come_from_flags_variables_and_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.toml").display().to_string();
    let write = |text: &str| std::fs::write(&file, text).expect("a file");
    let config = |environment: &[(&str, String)]| {
        let environment = [&[("TIDEMILL_CONFIG", file.clone())], environment].concat();
        let output = Process::run_with(&["config", "--format", "csv"], &environment);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        output.stdout
    };
    write("slots = 3\n[sql]\nformat = \"csv\"\n[set]\n\"datafusion.execution.batch_size\" = 1000\n");
    let shown = config(&[("TIDEMILL_MEMORY", "2GiB".to_owned())]);
    for line in [
        format!("sql,slots,3,{file}"),
        format!("executor,slots,3,{file}"),
        format!("sql,format,csv,{file}"),
        "sql,memory,2GiB,TIDEMILL_MEMORY".to_owned(),
        "server,bind,127.0.0.1:7878,default".to_owned(),
        "SET,tidemill.durability,always,default".to_owned(),
        format!("SET,datafusion.execution.batch_size,1000,{file}"),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
    }
    let sql = |args: &[&str]| {
        let args = [&["sql", "-c", "SELECT 1 AS one"], args].concat();
        Process::run_with(&args, &[("TIDEMILL_CONFIG", file.clone())])
    };
    assert_eq!(sql(&[]).stdout, "one\n1\n");
    assert_eq!(sql(&["--format", "jsonl"]).stdout, "{\"one\":1}\n");
    for wrong in ["nonsense = 1", "[sql]\nnonsense = 1", "[nonsense]\nslots = 1", "slots = [1]", "= 1"] {
        write(wrong);
        let output = sql(&[]);
        assert!(output.code == Some(2) && output.stderr.contains(&file), "{wrong}: {}", output.stderr);
    }
}

#[test]
fn logs_in_files_have_no_colours() {
    let output = Process::run_with(&["sql", "-c", "SELECT 1"], &[("TIDEMILL_LOG", "trace".to_owned())]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert!(!output.stderr.is_empty() && !output.stderr.contains('\u{1b}'), "{}", output.stderr);
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output = Process::run(&["completions", shell]);
        assert!(output.code == Some(0) && output.stdout.contains("connect"), "{}", output.stderr);
    }
}

#[test]
fn statements_without_a_result_print_nothing() {
    let output = Process::run(&[
        "sql",
        "-c",
        &nation(),
        "-c",
        "CREATE VIEW v AS SELECT 1 AS one; DROP VIEW v; SET datafusion.execution.batch_size = 1000",
    ]);
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (Some(0), "", ""));
}

#[test]
fn several_statements_and_files_run_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("q.sql");
    std::fs::write(&file, "SELECT ';' AS a; -- a comment; with a semicolon\nSELECT 2 AS b").expect("a file");
    let file = file.display().to_string();
    let output = Process::run(&["sql", "-c", "SELECT 0 AS z;", "-f", &file, "--format", "csv"]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(0), "z\n0\na\n;\nb\n2\n"), "{}", output.stderr);
    let output = Process::run(&["sql", "-f", &file, "-c", "SELECT 0 AS z", "--format", "csv"]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(0), "a\n;\nb\n2\nz\n0\n"), "{}", output.stderr);
}

#[test]
fn relative_locations_start_at_the_client() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("t.csv"), "a,b\n1,2\n3,4\n").expect("a file");
    let create = "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 't.csv' OPTIONS ('format.has_header' 'true')";
    let output =
        Process::run_in(folder.path(), &["sql", "-c", create, "-c", "SELECT sum(b) AS s FROM t", "--format", "csv"]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(0), "s\n6\n"), "{}", output.stderr);
}

#[test]
fn wrong_sql_is_one_clear_sentence() {
    fails_with(&["sql", "-c", "SELEKT 1"], &["SELEKT"]);
    fails_with(&["sql", "-c", "SELECT * FROM natoin"], &["natoin"]);
    let with_table = nation();
    fails_with(&["sql", "-c", &with_table, "-c", "SELECT * FROM natoin"], &["natoin", "did you mean `nation`?"]);
    fails_with(&["sql", "-c", &with_table, "-c", "SELECT n_nam FROM nation"], &["n_nam", "n_name"]);
    fails_with(&["sql", "-c", "SELECT 'unfinished"], &["Unterminated"]);
    fails_with(&["sql", "-c", "SELECT 1", "--set", "datafusion.no.such=1"], &["no.such"]);
    fails_with(&["sql", "-c", "SELECT 1", "--set", "tidemill.nonsense=1"], &["tidemill.nonsense"]);
    fails_with(&["sql", "-c", "SELECT 1/0"], &["Divide by zero", "NULLIF(divisor, 0)"]);
    fails_with(&["sql", "-c", "SELECT CAST('x' || column1 AS INT) FROM (VALUES ('y'))"], &["'xy'", "TRY_CAST"]);
    fails_with(&["sql", "-c", "INSERT INTO t VALUES (1)"], &["t"]);
}

#[test]
fn wrong_files_are_one_clear_sentence() {
    let folder = tempfile::tempdir().expect("a folder");
    let corrupt = folder.path().join("corrupt.parquet");
    std::fs::write(&corrupt, "this is no Parquet file").expect("a file");
    let create = |path: &str| format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{path}'");
    let missing = folder.path().join("missing.parquet").display().to_string();
    fails_with(&["sql", "-c", &create(&missing)], &["missing.parquet", "does not exist"]);
    fails_with(&["sql", "-c", &create(&corrupt.display().to_string())], &["corrupt.parquet"]);
    fails_with(&["sql", "-f", &missing], &["missing.parquet", "does not exist"]);
    fails_with(&["sql", "-c", &create("ftp://host/x")], &["ftp"]);
}

#[test]
fn a_file_that_must_not_be_read_is_one_clear_sentence() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let open = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("a mode");
    open(folder.path(), 0o777);
    let secret = folder.path().join("secret.parquet");
    std::fs::copy(tpch().join("nation/part-000.parquet"), &secret).expect("a copy");
    open(&secret, 0o000);
    let create = format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{}'", secret.display());
    let output = Process::run_as_nobody(folder.path(), &["sql", "-c", &create, "-c", "SELECT * FROM t"]);
    check_failure(&["sql", "-c", &create], &output, &["secret.parquet", "ermission denied"]);
}

#[test]
fn a_file_that_vanishes_after_its_table_was_made_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = tpch().join("nation/part-000.parquet");
    let table = folder.path().join("n.parquet");
    std::fs::copy(&source, &table).expect("a copy");
    let server = Process::start(&["server", "--bind", "127.0.0.1:0", "--slots", "1"]);
    let url = server.url();
    let create = format!("CREATE EXTERNAL TABLE n STORED AS PARQUET LOCATION '{}'", table.display());
    assert_eq!(Process::run(&["sql", "--connect", &url, "-c", &create]).code, Some(0));
    std::fs::write(&table, "damaged").expect("a write");
    fails_with(&["sql", "--connect", &url, "-c", "SELECT sum(n_nationkey) FROM n"], &[]);
    std::fs::remove_file(&table).expect("a removal");
    fails_with(&["sql", "--connect", &url, "-c", "SELECT sum(n_nationkey) FROM n"], &["n.parquet"]);
    std::fs::copy(&source, &table).expect("a copy");
    let output = Process::run(&["sql", "--connect", &url, "-c", "SELECT count(*) AS c FROM n", "--format", "csv"]);
    assert_eq!(output.stdout, "c\n25\n", "{}", output.stderr);
}

#[test]
fn a_failed_copy_leaves_nothing_when_its_process_has_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let kept = folder.path().join("kept");
    std::fs::create_dir(&kept).expect("a folder");
    for to in ["1.csv", "2.csv", "3.csv", "4.csv", "made/", "kept/"] {
        let copy = format!("COPY (SELECT 1/0 AS a) TO '{}/{to}' STORED AS CSV", folder.path().display());
        let args = ["sql", "--format", "csv", "-c", &copy];
        let output = Process::run(&args);
        check_failure(&args, &output, &["ivide"]);
        assert_eq!(output.stdout, "", "no header of a count that there is not");
    }
    let left = std::fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry").path());
    assert_eq!(left.collect::<Vec<_>>(), std::slice::from_ref(&kept));
    assert_eq!(std::fs::read_dir(&kept).expect("a folder").count(), 0);
}

#[test]
fn a_wrong_connect_is_one_clear_sentence() {
    let url = format!("http://127.0.0.1:{}", lasting_port());
    fails_with(&["sql", "--connect", &url, "-c", "SELECT 1"], &[&url, "is it running"]);
    fails_with(&["sql", "--connect", "nonsense", "-c", "SELECT 1"], &["nonsense", "http://HOST:PORT"]);
}

#[test]
fn a_wrong_run_id_is_one_clear_sentence() {
    let server = Process::start(&["server", "--bind", "127.0.0.1:0", "--slots", "1"]);
    for run in ["../../etc/passwd", "a/b", &"x".repeat(65)] {
        fails_with(&["sql", "--connect", &server.url(), "--run", run], &[run, "no run id"]);
    }
}

/// Of five: what else the machine does takes its time from some.
fn fastest(start: impl Fn() -> Process) -> Process {
    std::iter::repeat_with(start).take(5).min_by_key(|process| process.ready_after).expect("five")
}

#[test]
fn servers_are_ready_within_a_second_and_stop_on_sigterm() {
    let server = fastest(|| Process::start(&["server", "--bind", "127.0.0.1:0", "--slots", "1"]));
    assert!(server.ready.contains("nothing survives a restart"), "{}", server.ready);
    let folders = tempfile::tempdir().expect("a folder");
    let coordinator = fastest(|| {
        // On one that another leads it would stand by.
        let folder = tempfile::tempdir_in(folders.path()).expect("a folder").keep();
        let state = format!("file://{}", folder.display());
        let coordinator = Process::start(&["coordinator", "--bind", "127.0.0.1:0", "--state", &state]);
        assert!(coordinator.ready.contains(&state), "{}", coordinator.ready);
        coordinator
    });
    let url = coordinator.url();
    let executor = fastest(|| Process::start(&["executor", "--connect", &url, "--slots", "1"]));
    for process in [server, executor, coordinator] {
        assert!(process.ready_after < Duration::from_secs(1), "{:?}: {}", process.ready_after, process.ready);
        process.signal("TERM");
        assert_eq!(process.wait(), Some(0));
    }
}

#[test]
fn a_busy_port_is_one_clear_sentence() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    fails_with(&["coordinator", "--bind", &address], &[&address, "--bind"]);
}

#[test]
fn secrets_are_refused_and_not_shown() {
    let create =
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://b/t' OPTIONS ('aws.secret_access_key' 'hunter2')";
    let output = Process::run(&["sql", "-c", create]);
    assert_ne!(output.code, Some(0));
    assert!(!output.stderr.contains("hunter2"), "{}", output.stderr);
    let server = Process::start(&["server", "--bind", "127.0.0.1:0", "--slots", "1"]);
    let url = server.url();
    let _ = Process::run(&["sql", "--connect", &url, "-c", create]);
    let history = Process::run(&["sql", "--connect", &url, "-c", "SELECT * FROM system.runs", "--format", "jsonl"]);
    assert!(history.stdout.contains("aws.secret_access_key"), "{}", history.stdout);
    assert!(!history.stdout.contains("hunter2"), "{}", history.stdout);
}
