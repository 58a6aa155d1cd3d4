//! Columns as statements declare them: the words of SQL alone say what a dataset's column is, whatever the session's zone is.

use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::TableReference;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::create::{DELTA, check_same};
use super::table::DatasetTable;
use crate::session::tokens::{tokens, written};
use crate::session::{Planning, quoted, sql_type, statements};

/// What `TIMESTAMP WITH TIME ZONE` is in: a dataset keeps the instant, and no zone.
const ZONE: &str = "UTC";
/// How long a table may take to say which columns it has.
const LOOKED_WITHIN: Duration = Duration::from_secs(5);

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

/// A table's definition, and where it declares columns that a dataset has no more, with those that it has: other engines change
/// them, and RESTORE. What cannot be read is as it was made.
pub(crate) async fn redeclared(planning: &Planning<'_>, name: TableReference, definition: &str) -> String {
    changed(planning, name, definition).await.unwrap_or_else(|| definition.to_owned())
}

/// `None` where the definition says what the table is.
async fn changed(planning: &Planning<'_>, name: TableReference, definition: &str) -> Option<String> {
    let statement = statements::parse_one(definition).ok()?;
    let Statement::CreateExternalTable(table) = &statement else { return None };
    if !table.file_type.eq_ignore_ascii_case(DELTA) || table.columns.is_empty() {
        return None;
    }
    let opened = tokio::time::timeout(LOOKED_WITHIN, planning.context.table_provider(name)).await;
    let table = opened.ok()?.ok()?;
    let dataset = table.downcast_ref::<DatasetTable>()?;
    let state = planned_in(planning.context.state(), &statement);
    let plan = state.statement_to_plan(statement).await.ok()?;
    let LogicalPlan::Ddl(DdlStatement::CreateExternalTable(command)) = plan else { return None };
    match check_same(&command, &dataset.version, dataset.location()) {
        Ok(()) => None,
        Err(_) => with_columns(definition, &dataset.version.schema, dataset.partition_by()),
    }
}

/// The text with these columns, and divided by these.
fn with_columns(definition: &str, schema: &Schema, partition_by: &[String]) -> Option<String> {
    let tokens = tokens(definition).ok()?;
    let (open, close) = parentheses(&tokens, 0)?;
    let before = tokens.get(..open)?;
    let is_word = |token: &Token, word: &str| matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word));
    if before.iter().any(|token| is_word(token, "stored")) {
        return None;
    }
    let mut rest = tokens.get(close + 1..)?.to_vec();
    if let Some(start) = rest.iter().position(|token| is_word(token, "partitioned")) {
        let (_, end) = parentheses(&rest, start)?;
        let has_space = matches!(rest.get(end + 1), Some(Token::Whitespace(_)));
        let last = if has_space { end + 1 } else { end };
        rest.drain(start..=last);
    }
    let columns = schema.fields().iter().map(|field| match field.is_nullable() {
        true => declaration(field),
        false => format!("{} NOT NULL", declaration(field)),
    });
    let columns = columns.collect::<Vec<_>>().join(", ");
    let divided = match partition_by {
        [] => String::new(),
        by => format!(" PARTITIONED BY ({})", by.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")),
    };
    Some(format!("{}({columns}){divided}{}", written(before), written(&rest)))
}

/// Where the next parentheses open, and where they close.
fn parentheses(tokens: &[Token], from: usize) -> Option<(usize, usize)> {
    let (mut open, mut depth) = (None, 0_usize);
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token {
            Token::LParen => {
                open = open.or(Some(at));
                depth += 1;
            }
            Token::RParen if depth == 1 => return open.map(|open| (open, at)),
            Token::RParen => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::TimeUnit;
    use datafusion::prelude::{SessionConfig, SessionContext};
    use tidemill_core::{Error, Result};
    use tidemill_engine::error::from_datafusion;

    use super::*;
    use crate::datasets::types::stored;

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

    #[test]
    fn columns_that_a_table_has_take_the_place_of_those_that_are_declared() {
        let schema = Schema::new(vec![
            Field::new("h", DataType::Int64, false),
            Field::new("kk", DataType::Decimal128(10, 2), true),
        ]);
        let none: &[&str] = &[];
        for (definition, by, expected) in [
            (
                "CREATE EXTERNAL TABLE t (h BIGINT, d DECIMAL(10, 2)) STORED AS DELTA PARTITIONED BY (d) LOCATION '/it''s (x)'",
                none,
                "CREATE EXTERNAL TABLE t (h BIGINT NOT NULL, kk DECIMAL(10, 2)) STORED AS DELTA LOCATION '/it''s (x)'",
            ),
            (
                "CREATE EXTERNAL TABLE IF NOT EXISTS s.\"T\"(x INT) STORED AS DELTA LOCATION '/x'",
                &["kk"][..],
                "CREATE EXTERNAL TABLE IF NOT EXISTS s.\"T\"(h BIGINT NOT NULL, kk DECIMAL(10, 2)) PARTITIONED BY (kk) STORED AS DELTA \
                 LOCATION '/x'",
            ),
        ] {
            let by: Vec<String> = by.iter().map(|name: &&str| (*name).to_owned()).collect();
            assert_eq!(with_columns(definition, &schema, &by).as_deref(), Some(expected));
        }
        let alone = "CREATE EXTERNAL TABLE t STORED AS DELTA PARTITIONED BY (d) LOCATION '/x'";
        assert_eq!(with_columns(alone, &schema, &[]), None);
    }
}
