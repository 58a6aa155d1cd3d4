//! Rows as CSV and JSON have them: what has parts is JSON text, and keys are texts.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, LargeStringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::error::ArrowError;
use arrow::json::writer::{EncoderOptions, make_encoder};
use arrow::record_batch::RecordBatch;

/// The batch with lists, structures and maps as JSON text.
pub(super) fn flat(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let batch = &with_text_keys(batch)?;
    let (mut fields, mut columns): (Vec<FieldRef>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if column.data_type().is_nested() {
            fields.push(Arc::new(Field::new(field.name(), DataType::LargeUtf8, true)));
            columns.push(texts(field, column, &options)?);
        } else {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// The batch with texts as keys of its maps: JSON has no others.
pub(super) fn with_text_keys(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    if batch.columns().iter().all(|column| keyed_by_text(column.data_type()) == *column.data_type()) {
        return Ok(batch.clone());
    }
    let (mut fields, mut columns): (Vec<FieldRef>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let kind = keyed_by_text(field.data_type());
        if kind == *field.data_type() {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
        } else {
            columns.push(cast(column, &kind)?);
            fields.push(Arc::new(Field::new(field.name(), kind, field.is_nullable())));
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn keyed_by_text(kind: &DataType) -> DataType {
    let part = |field: &FieldRef| Arc::new(field.as_ref().clone().with_data_type(keyed_by_text(field.data_type())));
    match kind {
        DataType::List(element) => DataType::List(part(element)),
        DataType::LargeList(element) => DataType::LargeList(part(element)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(part).collect()),
        DataType::Map(entries, is_sorted) => {
            let DataType::Struct(pair) = entries.data_type() else { return kind.clone() };
            let of_pair = |(position, field): (usize, &FieldRef)| match position {
                // What has parts itself has no text.
                0 if !field.data_type().is_nested() => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)),
                _ => part(field),
            };
            let pair = pair.iter().enumerate().map(of_pair).collect();
            DataType::Map(Arc::new(entries.as_ref().clone().with_data_type(DataType::Struct(pair))), *is_sorted)
        }
        other => other.clone(),
    }
}

fn texts(field: &FieldRef, column: &ArrayRef, options: &EncoderOptions) -> Result<ArrayRef, ArrowError> {
    let mut encoder = make_encoder(field, column.as_ref(), options)?;
    let (mut texts, mut bytes) = (LargeStringBuilder::new(), Vec::new());
    for row in 0..column.len() {
        if encoder.is_null(row) {
            texts.append_null();
            continue;
        }
        bytes.clear();
        encoder.encode(row, &mut bytes);
        texts.append_value(std::str::from_utf8(&bytes).map_err(|e| ArrowError::JsonError(e.to_string()))?);
    }
    Ok(Arc::new(texts.finish()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Builder, MapBuilder, StringBuilder};

    use super::*;

    #[test]
    fn keys_of_maps_are_texts() -> Result<(), ArrowError> {
        let mut maps = MapBuilder::new(None, Int64Builder::new(), StringBuilder::new());
        maps.keys().append_value(-7);
        maps.values().append_value("x");
        maps.append(true)?;
        maps.append(false)?;
        let numbers: ArrayRef = Arc::new(Int64Builder::new().finish());
        let batch = RecordBatch::try_from_iter([("m", Arc::new(maps.finish()) as ArrayRef)])?;
        let texts = flat(&batch)?;
        let texts: Vec<Option<&str>> = texts.column(0).as_string::<i64>().iter().collect();
        assert_eq!(texts, [Some("{\"-7\":\"x\"}"), None]);
        let plain = RecordBatch::try_from_iter([("n", numbers)])?;
        assert_eq!(with_text_keys(&plain)?, plain);
        Ok(())
    }
}
