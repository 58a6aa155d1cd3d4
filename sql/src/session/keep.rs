//! `CREATE TABLE … AS`: a small result kept as a table.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::logical_expr::CreateMemoryTable;
use tidemill_core::Result;
use tidemill_core::record::{CatalogueEntry, CatalogueKind, Record};
use tidemill_engine::blob::Blob;
use tidemill_engine::error::from_datafusion;
use tidemill_engine::planner::{Keep, Plan};

use super::finish::FinishSpec;
use super::{Planning, ddl, memory_table, query, redact};

/// Bytes of rows that a table may have: they travel with plans.
pub(crate) const MAX_TABLE_BYTES: usize = 64 << 20;

pub(super) async fn create_table(planning: &Planning<'_>, table: CreateMemoryTable) -> Result<Plan> {
    let name = ddl::qualified(planning, &table.name)?;
    if let Some(done) = ddl::check_new(planning, &name, table.if_not_exists, table.or_replace)? {
        return Ok(done);
    }
    let definition = redact(&planning.request.statement);
    let expected = planning.request.catalogue.entries.get(&name).cloned();
    let finish = FinishSpec::Keep { name, definition, expected };
    query::staged(planning, Arc::unwrap_or_clone(table.input), |_| finish).await
}

/// Rows as they are kept.
pub(super) fn encoded(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Blob> {
    Ok(Blob::new(memory_table::encode(schema, batches).map_err(|e| from_datafusion(&e))?))
}

pub(super) struct KeepTable {
    pub(super) name: String,
    pub(super) definition: String,
    pub(super) expected: Option<CatalogueEntry>,
}

impl Keep for KeepTable {
    fn expected(&self) -> Option<CatalogueEntry> {
        self.expected.clone()
    }

    fn limit(&self) -> usize {
        MAX_TABLE_BYTES
    }

    fn keep(&self, schema: SchemaRef, batches: &[RecordBatch]) -> Result<(Record, Blob)> {
        let blob = encoded(&schema, batches)?;
        let kind = CatalogueKind::Table { rows: blob.hash.clone() };
        let entry = CatalogueEntry { kind, definition: self.definition.clone() };
        Ok((Record::CatalogueSet { name: self.name.clone(), entry }, blob))
    }
}
