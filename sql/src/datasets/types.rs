//! Columns of new tables: which of Arrow's types a Delta table has, and in which form it has them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use serde_json::{Value, json};
use tidemill_core::{Error, Result};

use super::version::columns_json;

/// Signs that other engines do not read in names of columns.
const NOT_IN_NAMES: &[char] = &[' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='];

/// A table that is to be made.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NewTable {
    pub(super) schema: SchemaRef,
    pub(super) protocol: Value,
    pub(super) metadata: Value,
}

/// A table of these columns.
pub(super) fn new_table(schema: &Schema, partition_by: &[String], id: &str, now: u64) -> Result<NewTable> {
    let schema = stored(schema)?;
    check_partitions(&schema, partition_by)?;
    let has_plain_times = schema.fields().iter().any(|field| contains_plain_time(field.data_type()));
    let protocol = match has_plain_times {
        true => json!({ "minReaderVersion": 3, "minWriterVersion": 7,
                        "readerFeatures": ["timestampNtz"], "writerFeatures": ["timestampNtz"] }),
        false => json!({ "minReaderVersion": 1, "minWriterVersion": 2 }),
    };
    let metadata = json!({
        "id": id,
        "format": { "provider": "parquet", "options": {} },
        "schemaString": columns_json(&schema)?,
        "partitionColumns": partition_by,
        "configuration": {},
        "createdTime": now,
    });
    Ok(NewTable { schema: Arc::new(schema), protocol, metadata })
}

/// The columns as a Delta table has them.
pub(super) fn stored(schema: &Schema) -> Result<Schema> {
    check_names(schema.fields(), "a column")?;
    let stored = |field: &FieldRef| -> Result<Field> {
        Ok(Field::new(field.name(), stored_type(field.data_type(), field.name())?, field.is_nullable()))
    };
    Ok(Schema::new(schema.fields().iter().map(stored).collect::<Result<Vec<_>>>()?))
}

/// Names that all engines read, each once.
fn check_names(fields: &Fields, what: &str) -> Result<()> {
    for (position, field) in fields.iter().enumerate() {
        let name = field.name();
        if name.is_empty() || name.contains(NOT_IN_NAMES) {
            return Err(Error::invalid(format!(
                "`{name}` cannot be the name of {what} of a Delta table: give it one without spaces and without any of ,;{{}}()="
            )));
        }
        if fields.iter().take(position).any(|known| known.name().eq_ignore_ascii_case(name)) {
            return Err(Error::invalid(format!(
                "`{name}` is twice the name of {what}: a Delta table does not tell case apart"
            )));
        }
    }
    Ok(())
}

fn stored_type(kind: &DataType, name: &str) -> Result<DataType> {
    let inner = |field: &FieldRef| -> Result<FieldRef> {
        Ok(Arc::new(Field::new(field.name(), stored_type(field.data_type(), name)?, field.is_nullable())))
    };
    Ok(match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, Some(_)) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Dictionary(_, values) => stored_type(values, name)?,
        DataType::List(field) | DataType::LargeList(field) | DataType::ListView(field) => {
            let element = inner(field)?;
            DataType::List(Arc::new(Field::new("element", element.data_type().clone(), element.is_nullable())))
        }
        DataType::Struct(fields) => {
            check_names(fields, &format!("a part of `{name}`"))?;
            DataType::Struct(fields.iter().map(inner).collect::<Result<_>>()?)
        }
        DataType::Decimal128(_, scale) if *scale >= 0 => kind.clone(),
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32 => kind.clone(),
        other => {
            return Err(Error::invalid(format!(
                "the column `{name}` is of type {other}, which a Delta table does not have: cast it, unsigned numbers to BIGINT, \
                 or others to VARCHAR"
            )));
        }
    })
}

/// A table's columns as its log declares them. What else Arrow takes over from there, such as comments, would make two schemas of the
/// same columns different ones.
pub(super) fn declared(schema: &Schema) -> Schema {
    bare(schema, false)
}

/// The same as queries read them: any part of a column may be missing. Files of other engines say so of all parts, whatever the table
/// declares, and a part that may be missing is not read as one that is always there.
pub(super) fn readable(schema: &Schema) -> Schema {
    bare(schema, true)
}

fn bare(schema: &Schema, opens: bool) -> Schema {
    let column = |field: &FieldRef| Field::new(field.name(), with_parts(field.data_type(), opens), field.is_nullable());
    Schema::new(schema.fields().iter().map(column).collect::<Vec<_>>())
}

/// The type with its parts alone, which are opened to be missing or stay as they are.
fn with_parts(kind: &DataType, opens: bool) -> DataType {
    let part = |field: &FieldRef, opens_it: bool| -> FieldRef {
        Arc::new(Field::new(field.name(), with_parts(field.data_type(), opens), field.is_nullable() || opens_it))
    };
    match kind {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| part(field, opens)).collect()),
        DataType::List(element) => DataType::List(part(element, opens)),
        DataType::Map(entries, is_sorted) => {
            let pair = match entries.data_type() {
                // A key is always there.
                DataType::Struct(pair) => {
                    pair.iter().zip([false, opens]).map(|(field, opens)| part(field, opens)).collect()
                }
                _ => return kind.clone(),
            };
            DataType::Map(Arc::new(Field::new(entries.name(), DataType::Struct(pair), false)), *is_sorted)
        }
        other => other.clone(),
    }
}

fn contains_plain_time(kind: &DataType) -> bool {
    match kind {
        DataType::Timestamp(_, None) => true,
        DataType::List(field) => contains_plain_time(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| contains_plain_time(field.data_type())),
        _ => false,
    }
}

fn check_partitions(schema: &Schema, partition_by: &[String]) -> Result<()> {
    for (position, column) in partition_by.iter().enumerate() {
        let Ok(field) = schema.field_with_name(column) else {
            return Err(Error::invalid(format!("PARTITIONED BY names `{column}`, which is no column of the table")));
        };
        if partition_by.iter().take(position).any(|other| other == column) {
            return Err(Error::invalid(format!("PARTITIONED BY names `{column}` twice")));
        }
        let kind = field.data_type();
        let divides = kind.is_integer()
            || matches!(kind, DataType::Utf8 | DataType::Date32 | DataType::Boolean | DataType::Decimal128(..));
        if !divides {
            return Err(Error::invalid(format!(
                "the table cannot be divided by `{column}`, which is {kind}: divide it by a DATE, text, whole number, DECIMAL or BOOLEAN"
            )));
        }
    }
    match partition_by.len() == schema.fields().len() {
        true => Err(Error::invalid("a table needs a column beside those that divide it")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_at_in_structures_too() {
        let column = |fields: Vec<&str>| {
            let fields: Fields = fields.into_iter().map(|name| Field::new(name, DataType::Int64, true)).collect();
            let list = DataType::new_list(DataType::Struct(fields), true);
            stored(&Schema::new(vec![Field::new("all", list, true)])).map(|_| ()).map_err(|error| error.message)
        };
        assert_eq!(column(vec!["a", "b"]), Ok(()));
        assert!(
            column(vec!["a", "b c"]).is_err_and(|error| error.contains("`b c`") && error.contains("a part of `all`"))
        );
        assert!(column(vec!["a", "A"]).is_err_and(|error| error.contains("twice the name of a part of `all`")));
        let twice = Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("A", DataType::Utf8, true)]);
        assert!(stored(&twice).is_err_and(|error| error.message.contains("twice the name of a column")));
    }

    #[test]
    fn parts_of_columns_may_be_missing_when_they_are_read_and_comments_are_not() {
        let note = || std::collections::HashMap::from([("comment".to_owned(), "why".to_owned())]);
        let kinds = |may_be_null: bool, has_note: bool| {
            let field = |name: &str, kind: DataType, may_be_null: bool| {
                let field = Field::new(name, kind, may_be_null);
                if has_note { field.with_metadata(note()) } else { field }
            };
            let part = DataType::Struct(vec![field("a", DataType::Int64, may_be_null)].into());
            let element = Arc::new(Field::new("element", part.clone(), may_be_null));
            let value = Field::new("value", part, may_be_null);
            let pair = DataType::Struct(vec![Field::new("key", DataType::Utf8, false), value].into());
            let map = DataType::Map(Arc::new(Field::new("key_value", pair, false)), false);
            Schema::new(vec![
                field("id", DataType::Int64, false),
                field("list", DataType::List(element), false),
                field("map", map, true),
            ])
        };
        let theirs = kinds(false, true);
        assert_eq!(declared(&theirs), kinds(false, false));
        assert_eq!(readable(&theirs), kinds(true, false));
    }
}
