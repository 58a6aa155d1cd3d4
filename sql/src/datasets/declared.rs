//! Columns as statements declare them: the words of SQL alone say what a dataset's column is, whatever the session's zone is.

use arrow::datatypes::{DataType, Field};
use datafusion::execution::SessionState;
use datafusion::sql::parser::Statement;

use super::create::DELTA;
use crate::session::{quoted, sql_type};

/// What `TIMESTAMP WITH TIME ZONE` is in: a dataset keeps the instant, and no zone.
const ZONE: &str = "UTC";

/// The state in which a statement is planned. DataFusion gives `TIMESTAMP WITH TIME ZONE` the session's zone, and none where the
/// session has none; a dataset's column would have none either, silently.
pub(crate) fn planned_in(mut state: SessionState, statement: &Statement) -> SessionState {
    if let Statement::CreateExternalTable(table) = statement
        && table.file_type.eq_ignore_ascii_case(DELTA)
    {
        state.config_mut().options_mut().execution.time_zone = Some(ZONE.to_owned());
    }
    state
}

/// What declares a column that a table has.
pub(super) fn declaration(field: &Field) -> String {
    format!("{} {}", quoted(field.name()), type_name(field.data_type()))
}

fn type_name(kind: &DataType) -> String {
    match kind {
        DataType::Timestamp(_, None) => "TIMESTAMP".to_owned(),
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE".to_owned(),
        DataType::List(element) => format!("ARRAY<{}>", type_name(element.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields.iter().map(|field| declaration(field)).collect();
            format!("STRUCT<{}>", fields.join(", "))
        }
        // Maps, which only other engines make, have no name here.
        other => sql_type(other).unwrap_or_else(|| other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Schema, TimeUnit};
    use datafusion::logical_expr::{DdlStatement, LogicalPlan};
    use datafusion::prelude::{SessionConfig, SessionContext};
    use tidemill_core::{Error, Result};
    use tidemill_engine::error::from_datafusion;

    use super::*;
    use crate::datasets::types::stored;
    use crate::session::statements;

    const PLAIN: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

    fn instant() -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, Some(ZONE.into()))
    }

    fn list(element: DataType) -> DataType {
        DataType::List(Arc::new(Field::new("element", element, true)))
    }

    fn structure(fields: Vec<(&str, DataType)>) -> DataType {
        DataType::Struct(fields.into_iter().map(|(name, kind)| Field::new(name, kind, true)).collect())
    }

    /// The columns that a statement declares, in a session of some zone; of a dataset, as it has them.
    async fn declared(columns: &str, format: &str, zone: Option<&str>) -> Result<Schema> {
        let mut config = SessionConfig::new();
        config.options_mut().execution.time_zone = zone.map(str::to_owned);
        let text = format!("CREATE EXTERNAL TABLE t ({columns}) STORED AS {format} LOCATION '/t'");
        let statement = statements::parse_one(&text)?;
        let state = planned_in(SessionContext::new_with_config(config).state(), &statement);
        match state.statement_to_plan(statement).await.map_err(|e| from_datafusion(&e))? {
            LogicalPlan::Ddl(DdlStatement::CreateExternalTable(command)) => Ok(command.schema.as_arrow().clone()),
            other => Err(Error::invalid(other.display().to_string())),
        }
    }

    #[tokio::test]
    async fn the_words_decide_whatever_the_sessions_zone_is() -> Result<()> {
        let cases = [
            ("TIMESTAMP WITH TIME ZONE", instant()),
            ("TIMESTAMP(0) WITH TIME ZONE", instant()),
            ("TIMESTAMP(9) WITH TIME ZONE", instant()),
            ("TIMESTAMPTZ", instant()),
            ("TIMESTAMPTZ(3)", instant()),
            ("timestamptz(6)", instant()),
            ("TIMESTAMP", PLAIN),
            ("TIMESTAMP(3)", PLAIN),
            ("TIMESTAMP WITHOUT TIME ZONE", PLAIN),
            ("TIMESTAMPTZ[]", list(instant())),
            ("TIMESTAMP[]", list(PLAIN)),
            ("ARRAY<TIMESTAMP WITH TIME ZONE>", list(instant())),
            ("STRUCT<a TIMESTAMPTZ, b TIMESTAMP>", structure(vec![("a", instant()), ("b", PLAIN)])),
            ("ARRAY<STRUCT<a TIMESTAMPTZ[]>>", list(structure(vec![("a", list(instant()))]))),
        ];
        for zone in [None, Some("+05:00"), Some("UTC")] {
            for (words, expected) in &cases {
                for format in ["DELTA", "delta"] {
                    let schema = stored(&declared(&format!("h {words}"), format, zone).await?)?;
                    assert_eq!(schema.field(0).data_type(), expected, "{words} in {zone:?}");
                }
            }
        }
        Ok(())
    }

    #[tokio::test]
    async fn what_is_no_dataset_is_as_datafusion_has_it() -> Result<()> {
        for (zone, expected) in [(None, None), (Some("+05:00"), Some("+05:00".into()))] {
            let schema = declared("h TIMESTAMPTZ", "CSV", zone).await?;
            assert_eq!(*schema.field(0).data_type(), DataType::Timestamp(TimeUnit::Nanosecond, expected));
        }
        Ok(())
    }

    #[tokio::test]
    async fn what_a_table_has_can_be_declared() -> Result<()> {
        let kinds = [
            ("h", instant()),
            ("primary", PLAIN),
            ("Name", DataType::Utf8),
            ("cost", DataType::Decimal128(18, 4)),
            ("all", list(structure(vec![("from", instant()), ("n", list(DataType::Int64))]))),
        ];
        let schema = Schema::new(kinds.map(|(name, kind)| Field::new(name, kind, true)).to_vec());
        let columns: Vec<String> = schema.fields().iter().map(|field| declaration(field)).collect();
        assert_eq!(columns.first().map(String::as_str), Some("h TIMESTAMP WITH TIME ZONE"));
        assert_eq!(stored(&declared(&columns.join(", "), "DELTA", None).await?)?, schema);
        Ok(())
    }
}
