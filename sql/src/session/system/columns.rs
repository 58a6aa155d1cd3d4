//! Columns under construction.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, StringArray, TimestampMillisecondArray, UInt32Array, UInt64Array,
};
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::error::Result;
use tidemill_core::Millis;

/// Named columns of equal length.
#[derive(Default)]
pub(super) struct Columns(Vec<(&'static str, ArrayRef)>);

impl Columns {
    pub(super) fn text<S: Into<String>>(self, name: &'static str, values: impl Iterator<Item = Option<S>>) -> Self {
        self.with(name, Arc::new(values.map(|v| v.map(Into::into)).collect::<StringArray>()))
    }

    pub(super) fn count(self, name: &'static str, values: impl Iterator<Item = Option<u64>>) -> Self {
        self.with(name, Arc::new(values.collect::<UInt64Array>()))
    }

    pub(super) fn number(self, name: &'static str, values: impl Iterator<Item = Option<u32>>) -> Self {
        self.with(name, Arc::new(values.collect::<UInt32Array>()))
    }

    pub(super) fn flag(self, name: &'static str, values: impl Iterator<Item = Option<bool>>) -> Self {
        self.with(name, Arc::new(values.collect::<BooleanArray>()))
    }

    pub(super) fn seconds(self, name: &'static str, values: impl Iterator<Item = Option<f64>>) -> Self {
        self.with(name, Arc::new(values.collect::<Float64Array>()))
    }

    pub(super) fn time(self, name: &'static str, values: impl Iterator<Item = Option<Millis>>) -> Self {
        let millis = values.map(|v| v.and_then(|m| i64::try_from(m.0).ok()));
        self.with(name, Arc::new(millis.collect::<TimestampMillisecondArray>().with_timezone("UTC")))
    }

    fn with(mut self, name: &'static str, column: ArrayRef) -> Self {
        self.0.push((name, column));
        self
    }

    pub(super) fn finish(self) -> Result<RecordBatch> {
        let fields: Vec<Field> = self.0.iter().map(|(n, c)| Field::new(*n, c.data_type().clone(), true)).collect();
        let columns = self.0.into_iter().map(|(_, column)| column).collect();
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
}
