//! A client's own plan: its tables are looked up here and now, then it means what the same statement would.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::catalog::{TableFunctionArgs, TableProvider};
use datafusion::common::TableReference;
use datafusion::datasource::TableType;
use datafusion::datasource::listing::ListingTable;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use tidemill_core::{Error, Result};
use tidemill_engine::codec::logical::{ReceivedPlan, ReceivedTable, TABLE_TYPE, VIEW};
use tidemill_engine::error::from_datafusion;
use tidemill_engine::planner::Plan;
use tidemill_engine::runtime::register_stores;
use url::Url;

use super::{Planning, names};

pub(super) async fn meaning(planning: &Planning<'_>, plan: &[u8]) -> Result<Plan> {
    let plan = ReceivedPlan::read(plan)?;
    if let Some(name) = plan.columns_of() {
        return columns(planning, name).await;
    }
    plan.check_functions(&planning.context.state())?;
    let task = planning.context.task_ctx();
    let mut tables = Vec::new();
    for table in plan.tables(&task)? {
        tables.push(resolved(planning, table).await?);
    }
    let plan = plan.into_plan(tables, &task)?;
    planning.meaning(plan).await
}

/// No rows, with the columns of a table.
async fn columns(planning: &Planning<'_>, name: &str) -> Result<Plan> {
    let table = named(planning, name).await?;
    let schema = table.schema();
    let mut metadata = schema.metadata().clone();
    if table.table_type() == TableType::View {
        metadata.insert(TABLE_TYPE.to_owned(), VIEW.to_owned());
    }
    let schema = Arc::new(Schema::new_with_metadata(schema.fields().clone(), metadata));
    Ok(Plan::Rows(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::empty()))))
}

async fn named(planning: &Planning<'_>, name: &str) -> Result<Arc<dyn TableProvider>> {
    let reference = match name.split_once('.') {
        Some((schema, table)) => TableReference::partial(schema, table),
        None => TableReference::bare(name),
    };
    names::check_table(planning, &reference)?;
    planning.context.table_provider(reference).await.map_err(|e| from_datafusion(&e))
}

async fn resolved(planning: &Planning<'_>, table: ReceivedTable) -> Result<Arc<dyn TableProvider>> {
    match table {
        ReceivedTable::Named(name) => named(planning, &name).await,
        ReceivedTable::Called { function, arguments } => {
            let state = planning.context.state();
            let known = state.table_functions().get(&function);
            let known = known.ok_or_else(|| {
                Error::invalid(format!("the cluster does not know the table function `{function}`: read files instead"))
            })?;
            let called = known.create_table_provider_with_args(TableFunctionArgs::new(&arguments, &state));
            called.map_err(|e| from_datafusion(&e))
        }
        ReceivedTable::Sent(table) => {
            for path in table.downcast_ref::<ListingTable>().map(ListingTable::table_paths).into_iter().flatten() {
                planning.files.check(path.as_str())?;
                if let Ok(store) = Url::parse(path.object_store().as_str()) {
                    register_stores(&planning.context.runtime_env(), [&store])?;
                }
            }
            Ok(table)
        }
    }
}
