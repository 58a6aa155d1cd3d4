//! What the endings of files say of what is in them, where a statement does not say it.

use datafusion::logical_expr::CreateExternalTable;
use datafusion::sql::parser::{CopyToStatement, Statement};
use datafusion::sql::sqlparser::ast::Value;
use tidemill_core::{Error, Result};

/// How a file is compressed as a whole.
const COMPRESSION: &str = "format.compression";
/// What stands between the values of a line.
const DELIMITER: &str = "format.delimiter";

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Ending {
    /// As in `STORED AS`.
    format: Option<&'static str>,
    /// As a whole.
    compression: Option<&'static str>,
    /// Whether there are tabs between values.
    has_tabs: bool,
}

impl Ending {
    fn of(location: &str) -> Self {
        let name = location.rsplit('/').next().unwrap_or_default().to_lowercase();
        let known = [(".gz", "GZIP"), (".bz2", "BZIP2"), (".xz", "XZ"), (".zst", "ZSTD")];
        let compressed = known.iter().find_map(|&(ending, how)| Some((name.strip_suffix(ending)?, how)));
        let (inner, compression) = compressed.map_or((name.as_str(), None), |(inner, how)| (inner, Some(how)));
        let last = inner.rsplit_once('.').map(|(_, last)| last);
        let format = match last {
            Some("parquet") => Some("PARQUET"),
            Some("csv" | "tsv") => Some("CSV"),
            Some("json" | "ndjson" | "jsonl") => Some("JSON"),
            Some("arrow") => Some("ARROW"),
            _ => None,
        };
        Self { format, compression, has_tabs: last == Some("tsv") }
    }

    /// The options of a format, with their values.
    fn options(self, format: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
        let compression = self.compression.filter(|_| matches!(format, "CSV" | "JSON"));
        let delimiter = (self.has_tabs && format == "CSV").then_some("\t");
        compression.map(|how| (COMPRESSION, how)).into_iter().chain(delimiter.map(|tab| (DELIMITER, tab)))
    }
}

/// A format by the name that DataFusion knows.
fn known(format: &str) -> String {
    match format.to_uppercase().as_str() {
        "NDJSON" | "JSONL" => "JSON".to_owned(),
        other => other.to_owned(),
    }
}

/// A table of files with what their endings say of all of them.
pub(super) fn completed(command: &CreateExternalTable) -> Result<CreateExternalTable> {
    let mut completed = command.clone();
    completed.file_type = known(&command.file_type);
    let mut endings = command.locations.iter().map(|location| Ending::of(location));
    let first = endings.next().unwrap_or_default();
    let of_all = if endings.all(|ending| ending == first) { first } else { Ending::default() };
    if of_all.compression.is_some() && matches!(completed.file_type.as_str(), "PARQUET" | "ARROW") {
        return Err(Error::invalid(format!(
            "{} is compressed as a whole, where {} is read in parts: unpack it first",
            command.locations.join(", "),
            completed.file_type
        )));
    }
    for (key, value) in of_all.options(&completed.file_type) {
        completed.options.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
    Ok(completed)
}

/// `COPY … TO` a file with what its ending says of it.
pub(super) fn completed_copy(statement: Statement) -> Statement {
    match statement {
        Statement::CopyTo(copy) => Statement::CopyTo(as_named(copy)),
        Statement::Explain(mut explain) => {
            explain.statement = Box::new(completed_copy(*explain.statement));
            Statement::Explain(explain)
        }
        other => other,
    }
}

fn as_named(mut copy: CopyToStatement) -> CopyToStatement {
    let ending = Ending::of(&copy.target);
    let named = ending.format.filter(|format| ending.compression.is_none() || matches!(*format, "CSV" | "JSON"));
    let Some(format) = copy.stored_as.as_deref().map(known).or_else(|| named.map(str::to_owned)) else { return copy };
    for (key, value) in ending.options(&format) {
        let short = key.trim_start_matches("format.");
        let is_given =
            |(given, _): &(String, Value)| given.eq_ignore_ascii_case(key) || given.eq_ignore_ascii_case(short);
        if !copy.options.iter().any(is_given) {
            copy.options.push((key.to_owned(), Value::SingleQuotedString(value.to_owned())));
        }
    }
    copy.stored_as = Some(format);
    copy
}

/// How a file is read whose name stands where a table's should; none where the name is like no file's.
pub(super) fn as_table(name: &str) -> Option<String> {
    let format = Ending::of(name).format?;
    let location = name.replace('\'', "''");
    Some(format!("a file is read as a table, CREATE EXTERNAL TABLE t STORED AS {format} LOCATION '{location}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_say_what_files_are() {
        let told = |location: &str| {
            let Ending { format, compression, has_tabs } = Ending::of(location);
            (format.unwrap_or("-"), compression.unwrap_or("-"), has_tabs)
        };
        assert_eq!(told("/a/b.CSV.gz"), ("CSV", "GZIP", false));
        assert_eq!(told("s3://lake/a/*.tsv"), ("CSV", "-", true));
        assert_eq!(told("x.jsonl.zst"), ("JSON", "ZSTD", false));
        assert_eq!(told("x.parquet"), ("PARQUET", "-", false));
        for none in ["", "/a.csv/", "csv", "x.txt", "x.gz.txt"] {
            assert_eq!(told(none), ("-", "-", false), "{none}");
        }
    }

    #[test]
    fn what_a_statement_says_comes_first() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let copy = |text: &str| -> Result<String> {
            Ok(completed_copy(super::super::statements::parse_one(text)?).to_string())
        };
        let told = copy("COPY t TO 'x.tsv.gz'")?;
        assert!(
            told.contains("STORED AS CSV") && told.contains("'GZIP'") && told.contains("format.delimiter"),
            "{told}"
        );
        let told = copy("COPY t TO 'x.csv.gz' STORED AS CSV OPTIONS (compression 'uncompressed')")?;
        assert!(!told.contains("GZIP"), "{told}");
        let told = copy("EXPLAIN COPY t TO 'x.ndjson' STORED AS NDJSON")?;
        assert!(told.contains("STORED AS JSON"), "{told}");
        assert_eq!(copy("COPY t TO 'x.parquet.gz'")?, "COPY t TO x.parquet.gz");
        Ok(())
    }
}
