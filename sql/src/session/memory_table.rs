//! Small tables kept as one blob in Arrow IPC format.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::error::Result;

/// The table of a blob.
pub(super) fn decode(bytes: &[u8]) -> Result<Arc<dyn TableProvider>> {
    let (schema, batches) = read(bytes)?;
    Ok(Arc::new(MemTable::try_new(schema, vec![batches])?))
}

/// The rows of a blob.
pub(super) fn read(bytes: &[u8]) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let reader = StreamReader::try_new(bytes, None)?;
    Ok((reader.schema(), reader.collect::<Result<Vec<_>, _>>()?))
}

/// The blob of a table.
pub(crate) fn encode(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, schema)?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}
