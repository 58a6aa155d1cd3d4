//! What DataFrames write: the rows that DataFusion would write, all of them or none.

use std::path::Path;

use datafusion::common::config::CsvOptions;
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::{ParquetReadOptions, SessionContext, col, lit};
use tidemill_tests::harness::{ProcessCluster, tpch};

use super::{embedded, session_of, single};

async fn nations(context: &SessionContext) -> datafusion::dataframe::DataFrame {
    let folder = tpch().join("nation").display().to_string();
    context.read_parquet(folder, ParquetReadOptions::default()).await.expect("a table")
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .map(|entries| entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_folders_hold_all_rows() {
    let cluster = ProcessCluster::start(2, 1).await;
    let session = tidemill::connect(cluster.coordinator.url()).start().await.expect("a session");
    let plain = SessionContext::new();
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let written =
        nations(&session).await.write_parquet(&at("folder/"), Default::default(), None).await.expect("written");
    assert_eq!(arrow::util::display::array_value_to_string(written[0].column(0), 0).expect("a count"), "25");
    assert!(folder.path().join("folder/_SUCCESS").exists());
    plain.register_parquet("folder", at("folder"), ParquetReadOptions::default()).await.expect("a table");
    assert_eq!(single(&plain, "SELECT sum(n_nationkey) FROM folder").await, "300");
    // One file, whatever it is called.
    let one = || DataFrameWriteOptions::new().with_single_file_output(true);
    nations(&session).await.write_parquet(&at("one"), one(), None).await.expect("written");
    assert!(folder.path().join("one").is_file());
    // Options of the format, in the code and in the session.
    let options = CsvOptions { delimiter: b';', ..CsvOptions::default() }.with_has_header(true);
    let sorted = nations(&session).await.sort(vec![col("n_name").sort(false, false)]).expect("a plan");
    sorted.clone().write_csv(&at("sorted.csv"), one(), Some(options)).await.expect("written");
    let text = std::fs::read_to_string(folder.path().join("sorted.csv")).expect("a file");
    assert!(text.starts_with("n_nationkey;n_name;n_regionkey;n_comment\n21;VIETNAM;"), "{text}");
    assert_eq!(text.lines().count(), 26);
    let zipped = CsvOptions::default().with_compression(CompressionTypeVariant::GZIP).with_has_header(false);
    sorted.clone().write_csv(&at("sorted.csv.gz"), one(), Some(zipped)).await.expect("written");
    let bytes = std::fs::read(folder.path().join("sorted.csv.gz")).expect("a file");
    assert_eq!(bytes.get(..2), Some([0x1f, 0x8b].as_slice()));
    sorted.write_json(&at("sorted.json"), one(), None).await.expect("written");
    let text = std::fs::read_to_string(folder.path().join("sorted.json")).expect("a file");
    assert_eq!(text.lines().count(), 25);
    let copied = format!("COPY (SELECT 1 AS a, 2 AS b) TO '{}' OPTIONS ('format.delimiter' '|')", at("copied.csv"));
    session.sql(&copied).await.expect("a plan").collect().await.expect("written");
    assert_eq!(std::fs::read_to_string(folder.path().join("copied.csv")).expect("a file"), "a|b\n1|2\n");
    session.sql("SET datafusion.execution.parquet.compression = 'gzip(4)'").await.expect("a setting");
    nations(&session).await.write_parquet(&at("gzip.parquet"), Default::default(), None).await.expect("written");
    let file = std::fs::File::open(folder.path().join("gzip.parquet")).expect("a file");
    let metadata = datafusion::parquet::file::metadata::ParquetMetaDataReader::new().parse_and_finish(&file);
    let compression = metadata.expect("metadata").row_group(0).column(0).compression();
    assert!(format!("{compression:?}").contains("GZIP"), "{compression:?}");
}

/// Formats that are not given arrived at the executors as empty ones: dates became nothing.
#[tokio::test(flavor = "multi_thread")]
async fn dates_and_times_are_written_as_datafusion_writes_them() {
    let (cluster, _work) = embedded();
    let session = session_of(&cluster).await;
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let times = "SELECT DATE '2026-11-07' AS d, TIMESTAMP '2026-11-07T01:02:03.5' AS t, TIME '01:02:03' AS c, \
                 arrow_cast('2026-11-07T01:02:03', 'Timestamp(Millisecond, Some(\"UTC\"))') AS z, \
                 arrow_cast('2026-11-07', 'Date64') AS e, NULL AS n";
    let written = async |context: &SessionContext, name: &str| {
        let one = DataFrameWriteOptions::new().with_single_file_output(true);
        let frame = context.sql(times).await.expect("a plan");
        frame.write_csv(&at(name), one, None).await.expect("written");
        std::fs::read_to_string(folder.path().join(name)).expect("a file")
    };
    assert_eq!(written(&session, "ours.csv").await, written(&SessionContext::new(), "plain.csv").await);
    let copied = format!("COPY ({times}) TO '{}' OPTIONS ('format.date_format' '%d.%m.%Y')", at("copied.csv"));
    session.sql(&copied).await.expect("a plan").collect().await.expect("written");
    let text = std::fs::read_to_string(folder.path().join("copied.csv")).expect("a file");
    assert!(text.contains("\n07.11.2026,2026-11-07T01:02:03.5"), "{text}");
    let level = CsvOptions { compression_level: Some(3), ..CsvOptions::default() };
    let frame = session.sql(times).await.expect("a plan");
    let refused = frame.write_csv(&at("level.csv"), DataFrameWriteOptions::new(), Some(level)).await;
    assert!(refused.expect_err("it would be lost").to_string().contains("compression_level"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_leaves_nothing() {
    let (cluster, _work) = embedded();
    let session = session_of(&cluster).await;
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let fails = || async {
        let ratio = lit(1i64) / (col("n_nationkey") - lit(24i64));
        nations(&session).await.select(vec![ratio.alias("ratio")]).expect("a plan")
    };
    fails().await.write_parquet(&at("folder/"), Default::default(), None).await.expect_err("a division by zero");
    fails().await.write_csv(&at("file.csv"), Default::default(), None).await.expect_err("a division by zero");
    let start = std::time::Instant::now();
    while !names(folder.path()).iter().all(|name| name == "folder") || !names(&folder.path().join("folder")).is_empty()
    {
        assert!(start.elapsed() < std::time::Duration::from_secs(30), "{:?}", names(folder.path()));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // A complete folder is not written over.
    nations(&session).await.write_json(&at("full/"), Default::default(), None).await.expect("written");
    let again = nations(&session).await.write_json(&at("full/"), Default::default(), None).await;
    assert!(again.expect_err("it is complete").to_string().contains("_SUCCESS"));
}
