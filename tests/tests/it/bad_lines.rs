//! Files of text with something in them that is not as their columns say: the error names the file, and where.

use std::path::Path;

use tidemill::client::Client;
use tidemill_core::ErrorKind;
use tidemill_tests::harness::{LocalCluster, Shape, rows};

async fn error_of(client: &mut Client, sql: &str) -> String {
    let answered = match client.execute(sql).await {
        Ok(result) => result.collect().await.map(|_| ()),
        Err(error) => Err(error),
    };
    let error = answered.err().unwrap_or_else(|| panic!("{sql}\nwas answered"));
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    error.message
}

fn write(folder: &Path, name: &str, content: &str) {
    std::fs::create_dir_all(folder).expect("a folder");
    std::fs::write(folder.join(name), content).expect("a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_of_json_is_named_with_its_file() {
    let cluster = LocalCluster::start(Shape { executors: 2, slots: 2 }).await;
    let mut client = cluster.client().await;
    let folder = tempfile::tempdir().expect("a folder");
    let good = "{\"a\": 1, \"b\": \"x\"}\n".repeat(20_000);
    for (name, bad) in [("value", "{\"a\": \"many\", \"b\": \"x\"}\n"), ("syntax", "{\"a\": 1, \"b\": \"x\"\n")] {
        let at = folder.path().join(name);
        write(&at, "good.json", &good);
        write(&at, "bad.json", &format!("{good}{bad}{good}"));
        let create =
            format!("CREATE EXTERNAL TABLE {name} (a BIGINT, b VARCHAR) STORED AS JSON LOCATION '{}/'", at.display());
        rows(&mut client, &create).await;
        let message = error_of(&mut client, &format!("SELECT sum(a), count(b) FROM {name}")).await;
        let file = at.join("bad.json").display().to_string();
        assert!(message.contains(&format!("{file}, line 20001: ")), "{message}");
        assert!(message.contains("mend the file"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_of_csv_is_named_with_its_file() {
    let cluster = LocalCluster::start(Shape { executors: 2, slots: 2 }).await;
    let mut client = cluster.client().await;
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "good.csv", "a,b\n1,x\n");
    write(folder.path(), "bad.csv", "a,b\n1,x\nmany,y\n");
    let create = format!(
        "CREATE EXTERNAL TABLE t (a BIGINT, b VARCHAR) STORED AS CSV LOCATION '{}/' OPTIONS ('format.has_header' 'true')",
        folder.path().display()
    );
    rows(&mut client, &create).await;
    let message = error_of(&mut client, "SELECT sum(a) FROM t").await;
    assert!(message.contains(&folder.path().join("bad.csv").display().to_string()), "{message}");
    assert!(message.contains("many") && message.contains("at line"), "{message}");
}
