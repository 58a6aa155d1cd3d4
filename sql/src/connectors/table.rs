//! A table of another database in a plan: its scans become queries for that database.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::TableReference;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::projection::ProjectionExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::sql::unparser::dialect::{Dialect, MySqlDialect, PostgreSqlDialect, SqliteDialect};
use datafusion_table_providers_common::sql::db_connection_pool::dbconnection::DbConnection;
use datafusion_table_providers_common::sql::db_connection_pool::{DbConnectionPool, JoinPushDown};
use datafusion_table_providers_common::sql::sql_provider_datafusion::SqlTable;
use tidemill_core::{Error, Result};
use tidemill_engine::connector::{ConnectorKind, ConnectorScan, ConnectorScanExec, RemoteTable};
use tidemill_engine::error::to_datafusion;

use super::columns::{self, COUNTED, Declared, Passage, RemoteColumn};
use super::pushdown::Judge;

/// A table of another database, with the columns that it had when it was created.
#[derive(Debug)]
pub(crate) struct ConnectorTable {
    table: RemoteTable,
    columns: Vec<RemoteColumn>,
    declared: Vec<Declared>,
    schema: SchemaRef,
    /// Writes queries.
    writer: SqlTable<(), ()>,
}

/// Planning asks no database: queries are written by what is known of it.
#[derive(Debug)]
struct NoConnection;

#[async_trait]
impl DbConnectionPool<(), ()> for NoConnection {
    async fn connect(
        &self,
    ) -> std::result::Result<Box<dyn DbConnection<(), ()>>, Box<dyn std::error::Error + Send + Sync>> {
        Err(Error::internal("a database was asked while a statement was planned").into())
    }

    fn join_push_down(&self) -> JoinPushDown {
        JoinPushDown::Disallow
    }
}

impl ConnectorTable {
    /// # Errors
    /// A column has a type that is not read.
    pub(super) fn new(table: RemoteTable, columns: Vec<RemoteColumn>) -> Result<Self> {
        let declared = columns.iter().map(|column| columns::declared(&table, column)).collect::<Result<Vec<_>>>()?;
        let schema = columns::schema(&table, &columns)?;
        let pool: Arc<dyn DbConnectionPool<(), ()> + Send + Sync> = Arc::new(NoConnection);
        let dialect: Arc<dyn Dialect + Send + Sync> = match table.kind {
            ConnectorKind::Postgres => Arc::new(PostgreSqlDialect {}),
            ConnectorKind::Mysql => Arc::new(MySqlDialect {}),
            ConnectorKind::Sqlite => Arc::new(SqliteDialect {}),
        };
        let reference = reference(&table);
        let writer = SqlTable::new_with_schema(reference.table(), &pool, Arc::clone(&schema), reference.clone());
        let writer = writer.with_dialect(dialect);
        Ok(Self { table, columns, declared, schema, writer })
    }

    /// What is read of it.
    fn scan_of(
        &self,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<ConnectorScan> {
        let all: Vec<usize> = (0..self.columns.len()).collect();
        let wanted = projection.unwrap_or(&all);
        // A query without columns is none in most databases.
        let asked = if wanted.is_empty() { vec![0] } else { wanted.clone() };
        let query = self.writer.scan_to_sql(Some(&asked), filters, limit)?;
        if wanted.is_empty() {
            let one = match self.table.kind {
                ConnectorKind::Postgres => "1::int8",
                ConnectorKind::Mysql => "CAST(1 AS SIGNED)",
                ConnectorKind::Sqlite => "1",
            };
            let sql = format!("SELECT {one} AS {} FROM ({query}) AS scanned", self.quoted(COUNTED));
            let schema = Arc::new(Schema::new(vec![Field::new(COUNTED, DataType::Int64, true)]));
            return Ok(ConnectorScan { table: self.table.clone(), sql, wire: Arc::clone(&schema), schema });
        }
        let chosen: Vec<_> = wanted.iter().filter_map(|p| self.columns.get(*p).zip(self.declared.get(*p))).collect();
        let sql = match chosen.iter().all(|(_, declared)| self.passes_plain(declared)) {
            true => query,
            false => {
                let values: Vec<String> =
                    chosen.iter().map(|(column, declared)| self.value(column, declared)).collect();
                format!("SELECT {} FROM ({query}) AS scanned", values.join(", "))
            }
        };
        let wire = chosen.iter().map(|(column, declared)| Field::new(column.name(), declared.wire(), true));
        let wire = Arc::new(Schema::new(wire.collect::<Vec<_>>()));
        let schema = Arc::new(self.schema.project(&asked)?);
        Ok(ConnectorScan { table: self.table.clone(), sql, schema, wire })
    }

    /// Texts of `SQLite` are what they are.
    fn passes_plain(&self, declared: &Declared) -> bool {
        declared.passage == Passage::Plain || self.table.kind == ConnectorKind::Sqlite
    }

    /// A column as it travels.
    fn value(&self, column: &RemoteColumn, declared: &Declared) -> String {
        let name = self.quoted(column.name());
        let passage = if self.passes_plain(declared) { Passage::Plain } else { declared.passage };
        match (passage, self.table.kind) {
            (Passage::Plain, _) => name,
            (Passage::Micros, _) => format!("(extract(epoch FROM {name}) * 1000000)::int8 AS {name}"),
            (Passage::Texts, _) => format!("{name}::text[] AS {name}"),
            (Passage::Text, ConnectorKind::Mysql) => format!("CAST({name} AS CHAR) AS {name}"),
            (Passage::Text, _) => format!("{name}::text AS {name}"),
        }
    }

    fn quoted(&self, name: &str) -> String {
        let quote = if self.table.kind == ConnectorKind::Postgres { "\"" } else { "`" };
        format!("{quote}{}{quote}", name.replace(quote, &quote.repeat(2)))
    }
}

/// The name of a table as its database reads it: only PostgreSQL folds what is not quoted.
pub(super) fn reference(table: &RemoteTable) -> TableReference {
    match table.kind {
        ConnectorKind::Postgres => TableReference::parse_str(&table.table),
        ConnectorKind::Mysql => TableReference::parse_str_normalized(&table.table, true),
        ConnectorKind::Sqlite => TableReference::bare(table.table.as_str()),
    }
}

#[async_trait]
impl TableProvider for ConnectorTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let column = |name: &str| {
            let position = self.columns.iter().position(|column| column.name() == name)?;
            Some((self.declared.get(position)?.clone(), self.columns.get(position)?.source()))
        };
        let judge = Judge { kind: self.table.kind, column };
        Ok(filters.iter().map(|filter| judge.fit(filter).into()).collect())
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        if self.columns.is_empty() {
            return Err(to_datafusion(Error::internal(format!("{} has no columns", self.table))));
        }
        let scan = self.scan_of(projection, filters, limit)?;
        let counts = projection.is_some_and(Vec::is_empty);
        let scan: Arc<dyn ExecutionPlan> = Arc::new(ConnectorScanExec::new(scan));
        // Rows without columns: they are only counted.
        Ok(if counts { Arc::new(ProjectionExec::try_new(Vec::<ProjectionExpr>::new(), scan)?) } else { scan })
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, lit};

    use super::*;

    fn table(kind: ConnectorKind, columns: &[(&str, &str)]) -> Result<ConnectorTable> {
        let name = if kind == ConnectorKind::Sqlite { "Orders" } else { "shop.Orders" };
        let table = RemoteTable { kind, database: "x".to_owned(), table: name.to_owned() };
        let columns = columns.iter().map(|(name, source)| RemoteColumn((*name).to_owned(), (*source).to_owned()));
        ConnectorTable::new(table, columns.collect())
    }

    #[test]
    fn scans_become_queries_of_each_database() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let postgres =
            table(ConnectorKind::Postgres, &[("id", "integer"), ("Total", "numeric(10,2)"), ("note", "text")])?;
        let filters = [col("id").gt(lit(5_i32)), col("note").eq(lit("it's"))];
        assert_eq!(
            postgres.scan_of(Some(&vec![2, 0]), &filters, Some(3))?.sql,
            r#"SELECT "orders"."note", "orders"."id" FROM "shop"."orders" WHERE (("orders"."id" > 5) AND ("orders"."note" = 'it''s')) LIMIT 3"#
        );
        assert_eq!(
            postgres.scan_of(Some(&vec![1]), &[], None)?.sql,
            r#"SELECT "Total"::text AS "Total" FROM (SELECT "orders"."Total" FROM "shop"."orders") AS scanned"#
        );
        assert_eq!(
            postgres.scan_of(Some(&vec![]), &[], None)?.sql,
            r#"SELECT 1::int8 AS "tidemill.rows" FROM (SELECT "orders"."id" FROM "shop"."orders") AS scanned"#
        );
        let mysql = table(ConnectorKind::Mysql, &[("id", "int"), ("at", "datetime(6)")])?;
        assert_eq!(
            mysql.scan_of(None, &[], None)?.sql,
            "SELECT `id`, CAST(`at` AS CHAR) AS `at` FROM (SELECT `Orders`.`id`, `Orders`.`at` FROM `shop`.`Orders`) AS scanned"
        );
        let sqlite = table(ConnectorKind::Sqlite, &[("id", "integer"), ("at", "date")])?;
        assert_eq!(
            sqlite.scan_of(None, &[col("id").eq(lit(1_i64))], None)?.sql,
            "SELECT `Orders`.`id`, `Orders`.`at` FROM `Orders` WHERE (`Orders`.`id` = 1)"
        );
        Ok(())
    }

    #[test]
    fn names_cannot_end_their_quotes() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let postgres = table(ConnectorKind::Postgres, &[("a\" FROM secrets --", "numeric")])?;
        let sql = postgres.scan_of(None, &[], None)?.sql;
        assert_eq!(sql.matches("a\"\" FROM secrets --").count(), sql.matches("FROM secrets").count(), "{sql}");
        Ok(())
    }
}
