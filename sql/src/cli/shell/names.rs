//! Names that can be typed: functions, and what the catalogue has, asked for when it is first needed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::AsArray;
use arrow::record_batch::RecordBatch;
use datafusion::execution::FunctionRegistry;
use datafusion::prelude::SessionContext;

use crate::client::Observer;
use crate::session::temporary;

const COLUMNS: &str = "SELECT table_schema, table_name, column_name FROM information_schema.columns \
                       WHERE table_schema <> 'information_schema'";

/// What the catalogue has.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Tables and their columns. Those of schema `public`, and temporary ones, are known without it, too.
    pub(super) columns: BTreeSet<(String, String)>,
}

pub(super) struct Names {
    observer: Mutex<Observer>,
    functions: Vec<String>,
    /// None until somebody asks.
    tables: Mutex<Option<Arc<Tables>>>,
}

impl Names {
    pub(super) fn new(observer: Observer) -> Self {
        let state = SessionContext::new().state();
        let mut functions: Vec<String> = state.udfs().into_iter().chain(state.udafs()).chain(state.udwfs()).collect();
        functions.sort();
        functions.dedup();
        Self { observer: Mutex::new(observer), functions, tables: Mutex::default() }
    }

    pub(super) fn functions(&self) -> &[String] {
        &self.functions
    }

    /// What the catalogue has; nothing while the coordinator does not answer.
    pub(super) fn tables(&self) -> Arc<Tables> {
        let known = self.tables.lock().unwrap_or_else(PoisonError::into_inner).clone();
        known.unwrap_or_else(|| self.ask())
    }

    /// The next one who needs it asks again, with what the session has by now.
    pub(super) fn forget(&self, observer: Observer) {
        *self.observer.lock().unwrap_or_else(PoisonError::into_inner) = observer;
        *self.tables.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn ask(&self) -> Arc<Tables> {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return Arc::default() };
        let observer = self.observer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Ok(batches) = runtime.block_on(observer.query(COLUMNS)) else { return Arc::default() };
        let tables = Arc::new(Tables { columns: batches.iter().flat_map(columns).collect() });
        *self.tables.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&tables));
        tables
    }
}

fn columns(batch: &RecordBatch) -> Vec<(String, String)> {
    let text = |column: usize| batch.column(column).as_string_opt::<i32>();
    let (Some(schemas), Some(tables), Some(columns)) = (text(0), text(1), text(2)) else { return Vec::new() };
    let rows = schemas.iter().zip(tables).zip(columns);
    let named = rows.filter_map(|((schema, table), column)| Some((schema?, table?, column?)));
    let named = named.map(|(schema, table, column)| match schema {
        tidemill_engine::runtime::SCHEMA | temporary::SCHEMA => (table.to_owned(), column.to_owned()),
        _ => (format!("{schema}.{table}"), column.to_owned()),
    });
    named.collect()
}
