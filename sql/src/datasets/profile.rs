//! What a table asks of its readers and writers, and whether we do it: the narrow part of Delta Lake that every engine has.
//!
//! Invariant: a feature that is not known here is refused by name, when rows would depend on it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
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
    (2, "appendOnly"),
    (2, "invariants"),
    (3, "checkConstraints"),
    (4, "changeDataFeed"),
    (4, "generatedColumns"),
    (5, "columnMapping"),
    (6, "identityColumns"),
];

/// Where a protocol has its versions.
const READER: &str = "minReaderVersion";
const WRITER: &str = "minWriterVersion";

/// A table's protocol and metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Profile {
    pub(super) protocol: Value,
    /// All that the log says of the table, of which the rest is taken.
    pub(super) metadata: Value,
    pub(super) id: String,
    /// The columns, as the log has them.
    pub(super) columns: String,
    pub(super) partition_by: Vec<String>,
    pub(super) properties: BTreeMap<String, String>,
}

impl Profile {
    /// From the two entries of the log.
    pub(super) fn new(protocol: Value, metadata: Value) -> Result<Self> {
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
            metadata: said(metadata),
        })
    }

    /// This table with the columns and properties of an older version of it. Its protocol is never lowered: what readers and writers
    /// were told to know stays, and what the older version needs beside that is added.
    pub(super) fn restored(&self, old: &Self) -> Self {
        let added = |asked: &[String], of_old: Vec<String>| -> Vec<String> {
            of_old.into_iter().filter(|feature| !asked.contains(feature) && old.uses(feature)).collect()
        };
        let (mut readers, mut writers) = (self.asked_of_readers(), self.asked_of_writers());
        let of_readers = added(&readers, old.asked_of_readers());
        let of_writers = added(&writers, old.asked_of_writers());
        if of_readers.is_empty() && of_writers.is_empty() {
            return Self { protocol: self.protocol.clone(), ..old.clone() };
        }
        readers.extend(of_readers);
        writers.extend(of_writers);
        let lists_readers = self.version(READER) == 3 || !readers.is_empty();
        let protocol = match lists_readers {
            true => json!({ READER: 3, WRITER: 7, "readerFeatures": readers, "writerFeatures": writers }),
            false => json!({ READER: 1, WRITER: 7, "writerFeatures": writers }),
        };
        Self { protocol, ..old.clone() }
    }

    /// What readers must know, whether it is listed or comes with the protocol's version.
    fn asked_of_readers(&self) -> Vec<String> {
        match self.version(READER) {
            2 => vec!["columnMapping".to_owned()],
            _ => self.listed("readerFeatures"),
        }
    }

    /// The same of writers.
    fn asked_of_writers(&self) -> Vec<String> {
        let (reader, version) = (self.version(READER), self.version(WRITER));
        if version > 6 {
            return self.listed("writerFeatures");
        }
        // Who writes names of columns that are mapped has to read them.
        let is_asked = |(from, feature): &&(i64, &str)| version >= *from && (*feature != "columnMapping" || reader > 1);
        OF_VERSIONS.iter().filter(is_asked).map(|(_, feature)| (*feature).to_owned()).collect()
    }

    fn version(&self, key: &str) -> i64 {
        self.protocol.get(key).and_then(Value::as_i64).unwrap_or_default()
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
            "appendOnly" => self.is_set("delta.appendOnly"),
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
            None if self.version(READER) > 3 => Err(refused(&format!("reader version {}", self.version(READER)))),
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
        let version = self.version(WRITER);
        if version > 7 {
            return Err(refused(&format!("writer version {version}")));
        }
        if has_type(&self.columns, "void") {
            return Err(refused("a column of type void"));
        }
        if let Some(column) = self.partition_by.iter().find(|column| is_binary(&self.columns, column)) {
            return Err(refused(&format!("partitions by `{column}`, which is binary")));
        }
        let is_fine = |feature: &str| WRITTEN.contains(&feature) || (IF_USED.contains(&feature) && !self.uses(feature));
        match self.asked_of_writers().iter().find(|feature| !is_fine(feature)) {
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

/// Without what is left open: not all engines read a name that is null.
fn said(mut metadata: Value) -> Value {
    if let Value::Object(said) = &mut metadata {
        said.retain(|_, value| !value.is_null());
    }
    metadata
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
    fn found(value: &Value, name: &str) -> bool {
        const TYPES: [&str; 4] = ["type", "elementType", "keyType", "valueType"];
        match value {
            Value::Object(fields) => fields.iter().any(|(key, value)| match value.as_str() {
                Some(text) => text == name && TYPES.contains(&key.as_str()),
                None => key != "metadata" && found(value, name),
            }),
            Value::Array(values) => values.iter().any(|value| found(value, name)),
            _ => false,
        }
    }
    serde_json::from_str::<Value>(columns).is_ok_and(|columns| found(&columns, name))
}

/// Whether a column has bytes.
fn is_binary(columns: &str, column: &str) -> bool {
    let columns: Value = serde_json::from_str(columns).unwrap_or_default();
    let fields = columns.get("fields").and_then(|fields| fields.as_array()).map(Vec::as_slice).unwrap_or_default();
    let is_it = |field: &&Value| field.get("name").and_then(|name| name.as_str()) == Some(column);
    fields.iter().find(is_it).and_then(|field| field.get("type")?.as_str()) == Some("binary")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(protocol: Value, properties: Value) -> Result<Profile> {
        let columns = r#"{"type":"struct","fields":[]}"#;
        Profile::new(
            protocol,
            json!({ "id": "x", "schemaString": columns, "partitionColumns": [], "configuration": properties }),
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
    fn a_protocol_is_raised_to_what_an_older_version_needs_and_never_lowered() -> Result<()> {
        let of = |reader: i64, writer: i64| json!({ READER: reader, WRITER: writer });
        let lists = |readers: &[&str], writers: &[&str]| json!({ READER: 3, WRITER: 7, "readerFeatures": readers, "writerFeatures": writers });
        let plain = || lists(&["timestampNtz"], &["timestampNtz"]);
        let (nothing, kept) = (json!({}), json!({ "delta.appendOnly": "true" }));
        let legacy = ["appendOnly", "invariants"];
        let more = ["checkConstraints", "changeDataFeed", "generatedColumns", "columnMapping"];
        let raised = [&legacy[..], &more[..], &["timestampNtz"][..]].concat();
        for (new, old, properties, expected) in [
            (of(1, 2), of(1, 2), &nothing, of(1, 2)),
            (plain(), of(1, 2), &nothing, plain()),
            (of(2, 5), of(1, 2), &kept, of(2, 5)),
            // What it lists and does not use.
            (of(1, 2), lists(&[], &["checkConstraints"]), &nothing, of(1, 2)),
            (plain(), of(1, 2), &kept, lists(&["timestampNtz"], &["timestampNtz", "appendOnly"])),
            (of(1, 2), plain(), &nothing, lists(&["timestampNtz"], &[&legacy[..], &["timestampNtz"][..]].concat())),
            (of(2, 5), plain(), &nothing, lists(&["columnMapping", "timestampNtz"], &raised)),
            (of(1, 1), of(1, 2), &kept, json!({ READER: 1, WRITER: 7, "writerFeatures": ["appendOnly"] })),
        ] {
            let shown = format!("{new} back to {old} with {properties}");
            let old = profile(old, properties.clone())?;
            let restored = profile(new, json!({ "delta.enableChangeDataFeed": "true" }))?.restored(&old);
            assert_eq!(restored.protocol, expected, "{shown}");
            assert_eq!((restored.metadata, restored.properties), (old.metadata, old.properties), "{shown}");
        }
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
            let told = Profile::new(protocol.clone(), metadata)?.check_write("t").err().map(|error| error.message);
            Ok::<_, Error>(told.unwrap_or_default())
        };
        let field = |name: &str, kind: Value| json!({ "name": name, "type": kind, "nullable": true, "metadata": { "type": "void" } });
        let columns = |fields: &[Value]| json!({ "type": "struct", "fields": fields }).to_string();
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
