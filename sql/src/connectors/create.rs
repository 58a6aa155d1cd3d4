//! `CREATE EXTERNAL TABLE … STORED AS POSTGRES`: the table's columns are asked for once, and kept in its definition.
//!
//! ```sql
//! CREATE EXTERNAL TABLE orders STORED AS POSTGRES LOCATION 'shop.orders' OPTIONS (secret 'pg');
//! CREATE EXTERNAL TABLE notes STORED AS SQLITE LOCATION '/srv/notes.db' OPTIONS (table 'notes');
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::logical_expr::CreateExternalTable;
use tidemill_core::{Error, Result};
use tidemill_engine::connector::{ConnectorKind, RemoteTable};
use tidemill_engine::files::FileAccess;
use tidemill_engine::secrets::Secrets;

use super::columns::RemoteColumn;
use super::databases;
use super::table::ConnectorTable;
use crate::session::text_literal;

/// The option that names a secret.
pub(crate) const SECRET: &str = "secret";
/// The option that names the table of a file.
const TABLE: &str = "table";
/// The option in which a definition keeps the columns.
const COLUMNS: &str = "columns";
/// What DataFusion puts before options of no namespace.
const NAMESPACE: &str = "format.";

/// Whether a table is of another database.
pub(crate) fn is_connector(command: &CreateExternalTable) -> bool {
    command.file_type.parse::<ConnectorKind>().is_ok()
}

/// The definition of a table of another database, which is asked for its columns. Relative paths start at `directory`.
///
/// # Errors
/// The statement says too little or too much, or the database does not answer.
pub(crate) async fn definition(
    command: &CreateExternalTable,
    directory: Option<&Path>,
    files: &FileAccess,
) -> Result<String> {
    let (table, _) = remote(command, directory)?;
    check_plain(command)?;
    match table.kind.secret() {
        Some(_) if is_address(&table.table) => return Err(no_name(table.kind)),
        Some(of) => Secrets::installed().named(&table.database, of).map(|_| ())?,
        None => files.check(&table.database)?,
    }
    let described = databases().describe(&table).await?;
    // What is not read is refused now, and not by the first query.
    ConnectorTable::new(table.clone(), described.clone())?;
    let columns =
        serde_json::to_string(&described).map_err(|e| Error::internal(format!("the columns of {table}: {e}")))?;
    Ok(statement(command, &table, &columns))
}

/// The table of a definition.
///
/// # Errors
/// The definition was changed by hand.
pub(crate) fn table_of(command: &CreateExternalTable) -> Result<Arc<dyn TableProvider>> {
    let (table, columns) = remote(command, None)?;
    let Some(columns) = columns else {
        return Err(Error::internal(format!("the definition of {table} has lost its columns: create it again")));
    };
    let columns: Vec<RemoteColumn> = serde_json::from_str(&columns)
        .map_err(|e| Error::internal(format!("the columns of {table} cannot be read ({e}): create it again")))?;
    Ok(Arc::new(ConnectorTable::new(table, columns)?))
}

/// The table that a statement means, and its columns if it is a definition.
fn remote(command: &CreateExternalTable, directory: Option<&Path>) -> Result<(RemoteTable, Option<String>)> {
    let kind: ConnectorKind = command.file_type.parse()?;
    let mut options: BTreeMap<&str, &str> = BTreeMap::new();
    for (key, value) in &command.options {
        options.insert(key.strip_prefix(NAMESPACE).unwrap_or(key), value);
    }
    let known: &[&str] = if kind.secret().is_some() { &[SECRET, COLUMNS] } else { &[TABLE, COLUMNS] };
    if let Some(unknown) = options.keys().find(|key| !known.contains(key)) {
        return Err(Error::invalid(format!(
            "a table of {} has no option `{unknown}`: what opens the database stands in a secret of the server \
             (docs/connectors.md), and OPTIONS names it: {}",
            kind.title(),
            example(kind)
        )));
    }
    let [location] = command.locations.as_slice() else {
        return Err(Error::invalid(format!("a table of {} has one LOCATION: {}", kind.title(), example(kind))));
    };
    let columns = options.get(COLUMNS).map(|columns| (*columns).to_owned());
    let required = |key: &str| {
        let found = options.get(key).filter(|value| !value.is_empty()).map(|value| (*value).to_owned());
        found.ok_or_else(|| Error::invalid(format!("OPTIONS lacks `{key}`: {}", example(kind))))
    };
    let (database, table) = match kind.secret() {
        Some(_) => (required(SECRET)?, location.clone()),
        None => {
            let path = location.strip_prefix("file://").unwrap_or(location);
            let path = directory.map_or_else(|| Path::new(path).to_owned(), |directory| directory.join(path));
            (path.display().to_string(), required(TABLE)?)
        }
    };
    if table.contains("://") || table.is_empty() {
        return Err(no_name(kind));
    }
    Ok((RemoteTable { kind, database, table }, columns))
}

/// Whether a text opens a database instead of naming a table: such a text may hold a password. Names may have anything
/// between quotes.
fn is_address(table: &str) -> bool {
    table.split('"').step_by(2).any(|unquoted| unquoted.contains(['=', ';', '@']))
}

fn no_name(kind: ConnectorKind) -> Error {
    Error::invalid(format!(
        "LOCATION is the name of a table in the database, and not of the database: {}",
        example(kind)
    ))
}

fn example(kind: ConnectorKind) -> String {
    match kind.secret() {
        Some(_) => format!("write STORED AS {} LOCATION 'schema.table' OPTIONS (secret 'NAME')", kind.name()),
        None => format!("write STORED AS {} LOCATION '/path/to/file' OPTIONS (table 'NAME')", kind.name()),
    }
}

/// Refuses what means something for files only.
fn check_plain(command: &CreateExternalTable) -> Result<()> {
    let wrong = [
        (!command.schema.fields().is_empty(), "list of columns", "they are those of the table there"),
        (!command.table_partition_cols.is_empty(), "PARTITIONED BY", "leave it out"),
        (!command.order_exprs.is_empty(), "WITH ORDER", "rows come in no order"),
        (command.unbounded, "UNBOUNDED", "leave it out"),
    ];
    match wrong.into_iter().find(|(is_wrong, ..)| *is_wrong) {
        Some((_, what, why)) => Err(Error::invalid(format!("a table of another database takes no {what}: {why}"))),
        None => Ok(()),
    }
}

/// The statement that makes the same table of the same columns.
fn statement(command: &CreateExternalTable, table: &RemoteTable, columns: &str) -> String {
    let (location, option, value) = match table.kind.secret() {
        Some(_) => (&table.table, SECRET, &table.database),
        None => (&table.database, TABLE, &table.table),
    };
    format!(
        "CREATE EXTERNAL TABLE {} STORED AS {} LOCATION {} OPTIONS ({option} {}, {COLUMNS} {})",
        command.name.to_quoted_string(),
        table.kind.name(),
        text_literal(location),
        text_literal(value),
        text_literal(columns)
    )
}

#[cfg(test)]
mod tests {
    use super::is_address;

    #[test]
    fn names_are_told_from_addresses() {
        for address in ["host=h password=x", "me:x@h", "Server=h;Pwd=x", "password=\"x\""] {
            assert!(is_address(address), "{address}");
        }
        for name in ["shop.orders", "\"a@b\"", "shop.\"x = y;\""] {
            assert!(!is_address(name), "{name}");
        }
    }
}
