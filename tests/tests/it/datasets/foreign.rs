//! Tables as other engines leave them, made by hand: what the protocol allows is read, or refused by name.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Decimal128Array, Int8Array, Int16Array, Int32Array, Int64Array, ListArray, RecordBatch,
    StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use tidemill::client::Client;
use tidemill_core::ErrorKind;
use tidemill_tests::harness::{rows, value};

use super::{cluster, count, refused, text};

/// A column of a table's log, with a comment, as people give it one.
fn field(name: &str, kind: Value) -> Value {
    json!({ "name": name, "type": kind, "nullable": true, "metadata": { "comment": "what it is" } })
}

/// A table to be made.
struct Foreign<'a> {
    at: &'a Path,
    fields: Vec<Value>,
    partition_by: &'a [&'a str],
    configuration: Value,
    protocol: Value,
    lines: Vec<Value>,
}

impl<'a> Foreign<'a> {
    fn new(at: &'a Path, fields: Vec<Value>) -> Self {
        let protocol = json!({ "minReaderVersion": 1, "minWriterVersion": 2 });
        Self { at, fields, partition_by: &[], configuration: json!({}), protocol, lines: Vec::new() }
    }

    /// A file of it: its path as the log has it, and its name on the disk.
    fn file(&mut self, path: &str, name: &str, columns: Vec<(&str, ArrayRef)>, add: Value) {
        let file = self.at.join(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        let batch = RecordBatch::try_from_iter(columns).expect("columns");
        let opened = std::fs::File::create(&file).expect("a file");
        let mut writer = ArrowWriter::try_new(opened, batch.schema(), None).expect("a writer");
        writer.write(&batch).expect("rows");
        writer.close().expect("a file");
        let size = std::fs::metadata(&file).expect("a file").len();
        let mut line =
            json!({ "path": path, "partitionValues": {}, "size": size, "modificationTime": 0, "dataChange": true });
        line.as_object_mut().expect("an object").extend(add.as_object().expect("an object").clone());
        self.lines.push(json!({ "add": line }));
    }

    /// Its first entry, and its name in the catalogue.
    async fn make(self, client: &mut Client, name: &str) {
        let schema = json!({ "type": "struct", "fields": self.fields }).to_string();
        let metadata = json!({ "id": "x", "format": { "provider": "parquet", "options": {} }, "schemaString": schema,
            "partitionColumns": self.partition_by, "configuration": self.configuration, "createdTime": 0 });
        let mut lines = vec![
            json!({ "commitInfo": { "timestamp": 0, "operation": "WRITE", "engineInfo": "Apache-Spark/4.0.0 Delta-Lake/4.0.0" } }),
            json!({ "protocol": self.protocol }),
            json!({ "metaData": metadata }),
        ];
        lines.extend(self.lines);
        let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
        std::fs::create_dir_all(self.at.join("_delta_log")).expect("a folder");
        std::fs::write(self.at.join("_delta_log/00000000000000000000.json"), lines.join("\n")).expect("an entry");
        let create = format!("CREATE EXTERNAL TABLE {name} STORED AS DELTA LOCATION '{}'", self.at.display());
        rows(client, &create).await;
    }
}

fn numbers(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_partitions_are_read_however_they_are_written() {
    let (_cluster, mut client, folder) = cluster().await;
    let at = folder.path().join("p");
    let kinds = [
        ("Day", "date"),
        ("t", "timestamp"),
        ("c", "decimal(18,8)"),
        ("b", "boolean"),
        ("i", "integer"),
        ("a.s", "string"),
        ("f", "double"),
    ];
    let fields = std::iter::once(("v", "long")).chain(kinds).map(|(name, kind)| field(name, json!(kind)));
    let by = kinds.map(|(name, _)| name);
    let mut table = Foreign::new(&at, fields.collect());
    table.partition_by = &by;
    let of = |values: [Value; 7]| {
        let values: serde_json::Map<String, Value> = by.iter().map(|name| (*name).to_owned()).zip(values).collect();
        json!({ "partitionValues": values })
    };
    let first = ["2026-03-01", "2026-03-01 01:02:03.5", "0E-8", "true", "-7", "a b/ü=%20", "1.5E1"].map(Value::from);
    // As the name on the disk has signs that are encoded, they are encoded twice in the log.
    table.file("a.s=a%2520b%252F%C3%BC/1.parquet", "a.s=a%20b%2Fü/1.parquet", vec![("v", numbers(&[1]))], of(first));
    let second = ["1969-12-31", "2026-03-01T01:02:03.500000Z", "-1.5E-7", "false", "7", "", "NaN"].map(Value::from);
    table.file("2.parquet", "2.parquet", vec![("v", numbers(&[2]))], of(second));
    table.file("3.parquet", "3.parquet", vec![("v", numbers(&[3]))], of([const { Value::Null }; 7]));
    table.make(&mut client, "p").await;
    assert_eq!(
        text(&mut client, "SELECT * FROM p ORDER BY v").await,
        "1 2026-03-01 2026-03-01T01:02:03.500Z 0.00000000 true -7 a b/ü=%20 15.0; \
         2 1969-12-31 2026-03-01T01:02:03.500Z -0.00000015 false 7  NaN; 3       "
    );
    for (filter, expected) in [
        ("t = '2026-03-01T01:02:03.5Z'", 2),
        ("c = 0", 1),
        ("c < 0", 1),
        ("\"Day\" < DATE '1970-01-01'", 1),
        ("\"a.s\" = 'a b/ü=%20'", 1),
        ("\"a.s\" IS NULL", 2),
        ("NOT b", 1),
        ("i > -8 AND f > 1", 2),
    ] {
        assert_eq!(count(&mut client, &format!("SELECT count(*) FROM p WHERE {filter}")).await, expected, "{filter}");
    }
    let grouped = "SELECT \"Day\", count(*) FROM (SELECT \"Day\", t FROM p UNION ALL SELECT \"Day\", t FROM p) GROUP BY 1 ORDER BY 1";
    assert_eq!(text(&mut client, grouped).await, "1969-12-31 2; 2026-03-01 2;  2");
    // What is written says which instant is meant, wherever it is read.
    let insert = "INSERT INTO p (v, t) VALUES (4, TIMESTAMP '2026-03-01 01:02:03.5')";
    assert_eq!(value(&mut client, insert).await, "1");
    let entry = std::fs::read_to_string(at.join("_delta_log/00000000000000000001.json")).expect("an entry");
    assert!(entry.contains("\"t\":\"2026-03-01T01:02:03.500000Z\""), "{entry}");
    assert_eq!(count(&mut client, "SELECT count(*) FROM p WHERE t = '2026-03-01T01:02:03.5Z'").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_are_not_null_are_read_from_files_that_do_not_say_so() {
    let (_cluster, mut client, folder) = cluster().await;
    let at = folder.path().join("n");
    let part = json!({ "type": "struct", "fields": [{ "name": "a", "type": "long", "nullable": false, "metadata": { "comment": "x" } }] });
    let list = json!({ "type": "array", "elementType": "long", "containsNull": false });
    let fields = vec![field("v", json!("long")), field("s", part), field("l", list), field("nothing", json!("void"))];
    let mut table = Foreign::new(&at, fields.get(..3).expect("three").to_vec());
    let a = (Arc::new(Field::new("a", DataType::Int64, true)), numbers(&[10, 20]));
    let lists: ListArray = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1)]), None]);
    let columns: Vec<(&str, ArrayRef)> =
        vec![("v", numbers(&[1, 2])), ("s", Arc::new(StructArray::from(vec![a]))), ("l", Arc::new(lists))];
    table.file("1.parquet", "1.parquet", columns.clone(), json!({}));
    table.make(&mut client, "n").await;
    let all = "SELECT v, s['a'] AS a, l FROM n ORDER BY v";
    assert_eq!(text(&mut client, all).await, "1 10 [1]; 2 20 ");
    let insert =
        |value: &str| format!("INSERT INTO n SELECT 3, named_struct('a', {value}), make_array(arrow_cast(5, 'Int64'))");
    assert_eq!(value(&mut client, &insert("arrow_cast(30, 'Int64')")).await, "1");
    refused(&mut client, &insert("arrow_cast(NULL, 'Int64')"), ErrorKind::Invalid, &["`s`", "NOT NULL"]).await;
    // What is missing as a whole has no parts that are.
    assert_eq!(value(&mut client, "INSERT INTO n (v) VALUES (4)").await, "1");
    assert_eq!(value(&mut client, "OPTIMIZE n").await, "4");
    assert_eq!(text(&mut client, all).await, "1 10 [1]; 2 20 ; 3 30 [5]; 4  ");
    // Nothing is ever stored of a column of type void.
    let void = folder.path().join("void");
    let mut table = Foreign::new(&void, fields);
    table.file("1.parquet", "1.parquet", columns, json!({}));
    table.make(&mut client, "void").await;
    assert_eq!(text(&mut client, "SELECT v, nothing FROM void ORDER BY v").await, "1 ; 2 ");
    refused(&mut client, "INSERT INTO void (v) VALUES (3)", ErrorKind::Invalid, &["type void"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_that_were_cut_or_say_little_pass_over_no_row() {
    let (_cluster, mut client, folder) = cluster().await;
    let at = folder.path().join("s");
    let fields = vec![field("id", json!("long")), field("Text", json!("string")), field("t", json!("timestamp"))];
    let mut table = Foreign::new(&at, fields);
    let long = "x".repeat(40);
    let times =
        TimestampMicrosecondArray::from(vec![1_767_225_600_123_456, 1_767_225_600_123_999]).with_timezone("UTC");
    let columns = |ids: &[i64]| -> Vec<(&'static str, ArrayRef)> {
        let texts = StringArray::from(vec![long.as_str(), long.as_str()]);
        vec![("id", numbers(ids)), ("Text", Arc::new(texts)), ("t", Arc::new(times.clone()))]
    };
    let cut = "x".repeat(32);
    // Spark's: milliseconds in the zone of its session, and a sign behind the text that is greater than all.
    let spark = json!({ "numRecords": 2, "nullCount": { "id": 0, "Text": 0, "t": 0 },
        "minValues": { "id": 1, "Text": cut, "t": "2025-12-31T16:00:00.123-08:00" },
        "maxValues": { "id": 2, "Text": format!("{cut}\u{10FFFF}"), "t": "2025-12-31T16:00:00.123-08:00" } });
    table.file("1.parquet", "1.parquet", columns(&[1, 2]), json!({ "stats": spark.to_string() }));
    table.file("2.parquet", "2.parquet", columns(&[3, 4]), json!({ "stats": "{\"numRecords\":2}" }));
    table.file("3.parquet", "3.parquet", columns(&[5, 6]), json!({ "stats": null, "tags": { "k": "v" } }));
    table.make(&mut client, "s").await;
    for (filter, expected) in [
        ("t >= '2026-01-01T00:00:00.123999Z'", 3),
        ("t > '2026-01-01T00:00:00.123456Z'", 3),
        ("t <= '2026-01-01T00:00:00.123456Z'", 3),
        ("t <> '2026-01-01T00:00:00.123Z'", 6),
        ("\"Text\" > 'x'", 6),
        ("\"Text\" <> repeat('x', 32)", 6),
        ("\"Text\" = repeat('x', 40)", 6),
        ("\"Text\" NOT LIKE 'x%'", 0),
        ("id > 2", 4),
        ("id IS NULL", 0),
    ] {
        assert_eq!(count(&mut client, &format!("SELECT count(*) FROM s WHERE {filter}")).await, expected, "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_kept_as_long_as_the_table_says() {
    let (_cluster, mut client, folder) = cluster().await;
    for (name, kept, expected) in [("k", "interval 30 days", "0"), ("g", "interval 0 seconds", "1")] {
        let at = folder.path().join(name);
        let mut table = Foreign::new(&at, vec![field("v", json!("long"))]);
        table.configuration = json!({ "delta.deletedFileRetentionDuration": kept });
        table.file("1.parquet", "1.parquet", vec![("v", numbers(&[1]))], json!({}));
        table.make(&mut client, name).await;
        assert_eq!(value(&mut client, &format!("INSERT OVERWRITE {name} VALUES (2)")).await, "1");
        tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
        assert_eq!(value(&mut client, &format!("VACUUM {name} DRY RUN")).await, expected, "{kept}");
    }
    assert_eq!(value(&mut client, "VACUUM k RETAIN 0 HOURS DRY RUN").await, "1");
    let at = folder.path().join("w");
    let mut table = Foreign::new(&at, vec![field("v", json!("long"))]);
    table.configuration = json!({ "delta.deletedFileRetentionDuration": "a fortnight" });
    table.make(&mut client, "w").await;
    refused(&mut client, "VACUUM w", ErrorKind::Invalid, &["`a fortnight`", "RETAIN"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_narrower_types_are_read_in_the_types_that_columns_have_now() {
    let (_cluster, mut client, folder) = cluster().await;
    let at = folder.path().join("w");
    let part = json!({ "type": "struct", "fields": [field("x", json!("long"))] });
    let fields = [
        ("p", json!("long")),
        ("a", json!("long")),
        ("b", json!("timestamp_ntz")),
        ("c", json!("double")),
        ("d", json!("decimal(12,2)")),
        ("e", json!("decimal(12,4)")),
        ("s", part),
    ];
    let fields = fields.map(|(name, kind)| {
        let mut field = field(name, kind);
        field["metadata"] = json!({ "delta.typeChanges": [{ "fromType": "integer", "toType": "long" }] });
        field
    });
    let mut table = Foreign::new(&at, fields.to_vec());
    table.partition_by = &["p"];
    let features = ["timestampNtz", "typeWidening"];
    table.protocol =
        json!({ "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features });
    let x = (Arc::new(Field::new("x", DataType::Int8, true)), Arc::new(Int8Array::from(vec![1, 2])) as ArrayRef);
    let decimals = Decimal128Array::from(vec![Some(125), None]).with_precision_and_scale(5, 2).expect("decimals");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("a", Arc::new(Int32Array::from(vec![7, -7]))),
        ("b", Arc::new(Date32Array::from(vec![20_454, -1]))),
        ("c", Arc::new(Int16Array::from(vec![Some(3), None]))),
        ("d", Arc::new(Int32Array::from(vec![4, 5]))),
        ("e", Arc::new(decimals)),
        ("s", Arc::new(StructArray::from(vec![x]))),
    ];
    let told = json!({ "numRecords": 2, "nullCount": { "a": 0, "b": 0, "c": 1, "d": 0, "e": 1 },
        "minValues": { "a": -7, "b": "1969-12-31", "c": 3, "d": 4, "e": 1.25 },
        "maxValues": { "a": 7, "b": "2026-01-01", "c": 3, "d": 5, "e": 1.25 } });
    table.file(
        "1.parquet",
        "1.parquet",
        columns,
        json!({ "stats": told.to_string(), "partitionValues": { "p": "1" } }),
    );
    table.make(&mut client, "w").await;
    assert_eq!(
        text(&mut client, "SELECT p, a, b, c, d, e, s['x'] AS x FROM w ORDER BY a").await,
        "1 -7 1969-12-31T00:00:00  5.00  2; 1 7 2026-01-01T00:00:00 3.0 4.00 1.2500 1"
    );
    for (filter, expected) in [
        ("p = 1", 2),
        ("a > 6", 1),
        ("a > 3000000000", 0),
        ("b >= TIMESTAMP '2026-01-01 00:00:00'", 1),
        ("b > TIMESTAMP '2026-01-01 00:00:00'", 0),
        ("b < TIMESTAMP '1970-01-01 00:00:00'", 1),
        ("c > 2.5", 1),
        ("d < 4.5", 1),
        ("e = 1.25", 1),
        ("s['x'] > 1", 1),
    ] {
        assert_eq!(count(&mut client, &format!("SELECT count(*) FROM w WHERE {filter}")).await, expected, "{filter}");
    }
    refused(&mut client, "INSERT INTO w (p) VALUES (1)", ErrorKind::Invalid, &["`typeWidening`"]).await;
}
