//! What a table asks of its readers and writers, and whether we do it: the narrow part of Delta Lake that every engine has.
//!
//! Invariant: a feature that is not known here is refused by name, when rows would depend on it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_core::{Error, Result};

/// Features that change nothing for us, or that we do: values of old files are read in the types that columns have now.
const READ: &[&str] = &["timestampNtz", "typeWidening", "typeWidening-preview", "v2Checkpoint", "vacuumProtocolCheck"];
/// The same of writers, beside those that are only asked for where they are used.
const WRITTEN: &[&str] = &["appendOnly", "timestampNtz", "vacuumProtocolCheck"];
/// Features that a table may list without using them: what its use would be is looked for.
const IF_USED: &[&str] =
    &["changeDataFeed", "checkConstraints", "columnMapping", "generatedColumns", "identityColumns", "invariants"];
/// Of what versions of the protocol before the lists of features are made.
const OF_VERSIONS: &[(i64, &str)] = &[
    (2, "invariants"),
    (3, "checkConstraints"),
    (4, "changeDataFeed"),
    (4, "generatedColumns"),
    (5, "columnMapping"),
    (6, "identityColumns"),
];

/// A table's protocol and metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Profile {
    pub(super) protocol: serde_json::Value,
    pub(super) id: String,
    /// The columns, as the log has them.
    pub(super) columns: String,
    pub(super) partition_by: Vec<String>,
    pub(super) properties: BTreeMap<String, String>,
}

impl Profile {
    /// From the two entries of the log.
    pub(super) fn new(protocol: serde_json::Value, metadata: &serde_json::Value) -> Result<Self> {
        let text = |key: &str| metadata.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        let read = |key: &str| metadata.get(key).cloned().unwrap_or_default();
        let damaged = |e: serde_json::Error| Error::invalid(format!("the table's metadata cannot be read: {e}"));
        let partition_by: Option<Vec<String>> = serde_json::from_value(read("partitionColumns")).map_err(damaged)?;
        let properties: Option<BTreeMap<String, Option<String>>> =
            serde_json::from_value(read("configuration")).map_err(damaged)?;
        let properties = properties.unwrap_or_default();
        Ok(Self {
            protocol,
            id: text("id"),
            columns: text("schemaString"),
            partition_by: partition_by.unwrap_or_default(),
            properties: properties.into_iter().filter_map(|(key, value)| Some((key, value?))).collect(),
        })
    }

    fn version(&self, key: &str) -> i64 {
        self.protocol.get(key).and_then(serde_json::Value::as_i64).unwrap_or_default()
    }

    fn listed(&self, key: &str) -> Vec<String> {
        let features = self.protocol.get(key).and_then(|v| v.as_array()).map(Vec::as_slice).unwrap_or_default();
        features.iter().filter_map(|feature| feature.as_str().map(str::to_owned)).collect()
    }

    fn is_set(&self, property: &str) -> bool {
        self.properties.get(property).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Whether a feature is used, of those that can be told.
    fn uses(&self, feature: &str) -> bool {
        match feature {
            "changeDataFeed" => self.is_set("delta.enableChangeDataFeed"),
            "checkConstraints" => self.properties.keys().any(|key| key.starts_with("delta.constraints.")),
            "columnMapping" => {
                self.properties.get("delta.columnMapping.mode").is_some_and(|mode| !mode.eq_ignore_ascii_case("none"))
            }
            "generatedColumns" => self.columns.contains("\"delta.generationExpression\""),
            "identityColumns" => self.columns.contains("\"delta.identity."),
            "invariants" => self.columns.contains("\"delta.invariants\""),
            _ => true,
        }
    }

    /// Refuses a table whose rows depend on what is not known here. Whether files have deletion vectors is seen at the files.
    pub(super) fn check_read(&self, location: &str) -> Result<()> {
        let refused = |feature: &str| {
            Error::invalid(format!(
                "the Delta table {location} needs `{feature}`, which is not read here: rewrite it without, or read it with \
                 another engine"
            ))
        };
        if self.uses("columnMapping") {
            return Err(refused("columnMapping"));
        }
        let listed = self.listed("readerFeatures");
        let unknown = listed.iter().find(|feature| {
            let feature = feature.as_str();
            !READ.contains(&feature)
                && feature != "deletionVectors"
                && (!IF_USED.contains(&feature) || self.uses(feature))
        });
        match unknown {
            Some(feature) => Err(refused(feature)),
            None if self.version("minReaderVersion") > 3 => {
                Err(refused(&format!("reader version {}", self.version("minReaderVersion"))))
            }
            None => Ok(()),
        }
    }

    /// Refuses to write a table that asks for more than our profile.
    pub(super) fn check_write(&self, location: &str) -> Result<()> {
        self.check_read(location)?;
        let refused = |feature: &str| {
            Error::invalid(format!(
                "the Delta table {location} asks its writers for `{feature}`, which is not written here: write it with another \
                 engine, or write a table without it"
            ))
        };
        let version = self.version("minWriterVersion");
        let asked: Vec<String> = match version {
            ..=6 => OF_VERSIONS.iter().filter(|(from, _)| version >= *from).map(|(_, f)| (*f).to_owned()).collect(),
            7 => self.listed("writerFeatures"),
            _ => return Err(refused(&format!("writer version {version}"))),
        };
        if has_type(&self.columns, "void") {
            return Err(refused("a column of type void"));
        }
        if let Some(column) = self.partition_by.iter().find(|column| is_binary(&self.columns, column)) {
            return Err(refused(&format!("partitions by `{column}`, which is binary")));
        }
        let is_fine = |feature: &str| WRITTEN.contains(&feature) || (IF_USED.contains(&feature) && !self.uses(feature));
        match asked.iter().find(|feature| !is_fine(feature)) {
            Some(feature) => Err(refused(feature)),
            None => Ok(()),
        }
    }

    /// Refuses to take rows away where the table lets none go.
    pub(super) fn check_removal(&self, location: &str) -> Result<()> {
        match self.is_set("delta.appendOnly") {
            true => Err(Error::invalid(format!(
                "the Delta table {location} is appendOnly: only INSERT INTO changes it, or set delta.appendOnly to false"
            ))),
            false => Ok(()),
        }
    }

    /// How long files are kept that no version needs any more, where the table says so.
    ///
    /// # Errors
    /// It says so in words that are not read.
    pub(super) fn retention(&self) -> Result<Option<Duration>> {
        const PROPERTY: &str = "delta.deletedFileRetentionDuration";
        let Some(text) = self.properties.get(PROPERTY) else { return Ok(None) };
        duration(text).map(Some).ok_or_else(|| {
            Error::invalid(format!(
                "the table's property {PROPERTY} is `{text}`, which is not understood: write VACUUM … RETAIN n HOURS, or set it to a time \
                 such as `interval 7 days`"
            ))
        })
    }

    /// After how many versions there is a checkpoint.
    pub(super) fn checkpoint_interval(&self) -> u64 {
        let set = self.properties.get("delta.checkpointInterval").and_then(|value| value.parse().ok());
        set.filter(|interval| *interval > 0).unwrap_or(100)
    }

    /// The size to which files grow.
    pub(super) fn file_bytes(&self) -> u64 {
        /// Where the table says nothing.
        const USUAL: u64 = 128 << 20;
        let set = self.properties.get("delta.targetFileSize").and_then(|value| value.parse().ok());
        set.filter(|bytes| *bytes > 0).unwrap_or(USUAL)
    }
}

/// A duration as Spark writes it: `interval 1 week 2 days`, with or without the first word.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim().to_ascii_lowercase();
    let mut words = text.strip_prefix("interval ").unwrap_or(&text).split_whitespace();
    let mut micros: Option<u64> = None;
    while let Some(number) = words.next() {
        let of_unit: u64 = match words.next()?.trim_end_matches('s') {
            "microsecond" => 1,
            "millisecond" => 1_000,
            "second" => 1_000_000,
            "minute" => 60_000_000,
            "hour" => 3_600_000_000,
            "day" => 86_400_000_000,
            "week" => 7 * 86_400_000_000,
            _ => return None,
        };
        let more = number.parse::<u64>().ok()?.checked_mul(of_unit)?;
        micros = Some(micros.unwrap_or_default().checked_add(more)?);
    }
    micros.map(Duration::from_micros)
}

/// Whether some column, or a part of one, is of this type.
fn has_type(columns: &str, name: &str) -> bool {
    fn found(value: &serde_json::Value, name: &str) -> bool {
        const TYPES: [&str; 4] = ["type", "elementType", "keyType", "valueType"];
        match value {
            serde_json::Value::Object(fields) => fields.iter().any(|(key, value)| match value.as_str() {
                Some(text) => text == name && TYPES.contains(&key.as_str()),
                None => key != "metadata" && found(value, name),
            }),
            serde_json::Value::Array(values) => values.iter().any(|value| found(value, name)),
            _ => false,
        }
    }
    serde_json::from_str::<serde_json::Value>(columns).is_ok_and(|columns| found(&columns, name))
}

/// Whether a column has bytes.
fn is_binary(columns: &str, column: &str) -> bool {
    let columns: serde_json::Value = serde_json::from_str(columns).unwrap_or_default();
    let fields = columns.get("fields").and_then(|fields| fields.as_array()).map(Vec::as_slice).unwrap_or_default();
    let is_it = |field: &&serde_json::Value| field.get("name").and_then(|name| name.as_str()) == Some(column);
    fields.iter().find(is_it).and_then(|field| field.get("type")?.as_str()) == Some("binary")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn profile(protocol: serde_json::Value, properties: serde_json::Value) -> Result<Profile> {
        let columns = r#"{"type":"struct","fields":[]}"#;
        Profile::new(
            protocol,
            &json!({ "id": "x", "schemaString": columns, "partitionColumns": [], "configuration": properties }),
        )
    }

    #[test]
    fn features_are_refused_by_name() -> Result<()> {
        let lists = |readers: &[&str], writers: &[&str]| json!({ "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": readers, "writerFeatures": writers });
        let named = |result: Result<()>| result.err().map(|e| e.message).unwrap_or_default();
        let plain = profile(json!({ "minReaderVersion": 1, "minWriterVersion": 2 }), json!({}))?;
        assert_eq!((plain.check_read("t"), plain.check_write("t")), (Ok(()), Ok(())));
        for feature in ["variantType", "somethingNew"] {
            let table = profile(lists(&[feature], &[feature]), json!({}))?;
            assert!(named(table.check_read("t")).contains(&format!("`{feature}`")));
        }
        let widened = profile(lists(&["typeWidening"], &["typeWidening"]), json!({}))?;
        assert_eq!(widened.check_read("t"), Ok(()));
        assert!(named(widened.check_write("t")).contains("`typeWidening`"));
        for feature in ["deletionVectors", "rowTracking", "inCommitTimestamp", "domainMetadata"] {
            let table = profile(lists(&[], &["appendOnly", feature]), json!({}))?;
            assert_eq!(table.check_read("t"), Ok(()));
            assert!(named(table.check_write("t")).contains(&format!("`{feature}`")));
        }
        let mapped = json!({ "delta.columnMapping.mode": "name" });
        let mapped = profile(json!({ "minReaderVersion": 2, "minWriterVersion": 5 }), mapped)?;
        assert!(named(mapped.check_read("t")).contains("`columnMapping`"));
        let old = json!({ "minReaderVersion": 1, "minWriterVersion": 4 });
        let fed = profile(old.clone(), json!({ "delta.enableChangeDataFeed": "true" }))?;
        assert!(fed.check_read("t").is_ok() && named(fed.check_write("t")).contains("`changeDataFeed`"));
        assert_eq!(profile(old, json!({}))?.check_write("t"), Ok(()));
        Ok(())
    }

    #[test]
    fn how_long_files_are_kept_is_what_the_table_says() -> Result<()> {
        const HOUR: u64 = 3600;
        let plain = json!({ "minReaderVersion": 1, "minWriterVersion": 2 });
        let of = |text: &str| profile(plain.clone(), json!({ "delta.deletedFileRetentionDuration": text }));
        for (text, seconds) in [
            ("interval 30 days", 30 * 24 * HOUR),
            ("INTERVAL 1 WEEK", 168 * HOUR),
            ("168 hours", 168 * HOUR),
            ("interval 1 day 12 hours 30 minutes", 36 * HOUR + 1800),
            ("interval 0 seconds", 0),
        ] {
            assert_eq!(of(text)?.retention()?, Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "interval", "7", "interval 1 month", "-1 days", "interval 99999999999999999999 days"] {
            let told = of(text)?.retention().err().map(|error| error.message).unwrap_or_default();
            assert!(told.contains("deletedFileRetentionDuration is `") && told.contains("RETAIN"), "{text}: {told}");
        }
        assert_eq!(profile(plain, json!({}))?.retention()?, None);
        Ok(())
    }

    #[test]
    fn types_that_are_read_and_not_written_are_refused_by_name() -> Result<()> {
        let protocol = json!({ "minReaderVersion": 1, "minWriterVersion": 2 });
        let of = |columns: &str, by: &[&str]| {
            let metadata = json!({ "id": "x", "schemaString": columns, "partitionColumns": by, "configuration": {} });
            let told = Profile::new(protocol.clone(), &metadata)?.check_write("t").err().map(|error| error.message);
            Ok::<_, Error>(told.unwrap_or_default())
        };
        let field = |name: &str, kind: serde_json::Value| json!({ "name": name, "type": kind, "nullable": true, "metadata": { "type": "void" } });
        let columns = |fields: &[serde_json::Value]| json!({ "type": "struct", "fields": fields }).to_string();
        let list = json!({ "type": "array", "elementType": "void", "containsNull": true });
        for kind in [json!("void"), list, json!({ "type": "struct", "fields": [field("a", json!("void"))] })] {
            assert!(of(&columns(&[field("x", kind)]), &[])?.contains("type void"));
        }
        let fields = [field("void", json!("long")), field("b", json!("binary"))];
        assert_eq!(of(&columns(&fields), &["void"])?, "");
        assert!(of(&columns(&fields), &["b"])?.contains("partitions by `b`, which is binary"));
        Ok(())
    }
}
