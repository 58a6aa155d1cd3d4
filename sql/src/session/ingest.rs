//! `INGEST INTO …`: rows that come with a statement become a table, or more rows of one.
//!
//! ```text
//! INGEST INTO public.t IF MISSING CREATE IF PRESENT APPEND
//! ```
//!
//! Invariant: a table has all rows of a statement or none, and its columns stay as they were when rows are appended.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use datafusion::common::TableReference;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use tidemill_core::record::{CatalogueEntry, CatalogueKind, Record};
use tidemill_core::{Error, Result};
use tidemill_engine::blob::Blob;
use tidemill_engine::error::from_datafusion;
use tidemill_engine::planner::{Plan, PlanRequest};

use super::keep::MAX_TABLE_BYTES;
use super::{Planning, ddl, memory_table, statements, temporary};

/// What to do where the table does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfMissing {
    /// Make it.
    Create,
    /// Refuse the rows.
    Fail,
}

/// What to do where the table exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfPresent {
    /// Refuse the rows.
    Fail,
    /// Add the rows to it.
    Append,
    /// Put a table of these rows in its place.
    Replace,
}

/// Where the rows that come with a statement go. Its text is what [`fmt::Display`] writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingest {
    /// The table.
    pub table: TableReference,
    /// What to do where it does not exist.
    pub if_missing: IfMissing,
    /// What to do where it does.
    pub if_present: IfPresent,
}

impl fmt::Display for Ingest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let if_missing = match self.if_missing {
            IfMissing::Create => "CREATE",
            IfMissing::Fail => "FAIL",
        };
        let if_present = match self.if_present {
            IfPresent::Fail => "FAIL",
            IfPresent::Append => "APPEND",
            IfPresent::Replace => "REPLACE",
        };
        let table = self.table.to_quoted_string();
        write!(f, "INGEST INTO {table} IF MISSING {if_missing} IF PRESENT {if_present}")
    }
}

/// The statement, if the text is one of these.
pub(super) fn parse(text: &str) -> Result<Option<Ingest>> {
    if !statements::begins_with(text, "ingest") {
        return Ok(None);
    }
    let wrong = || {
        Error::invalid(
            "write INGEST INTO table IF MISSING CREATE|FAIL IF PRESENT FAIL|APPEND|REPLACE, and send rows along",
        )
    };
    let dialect = statements::dialect()?;
    let mut parser = Parser::new(dialect.as_ref()).try_with_sql(text).map_err(|_| wrong())?;
    let has = |parser: &mut Parser<'_>, expected: &[&str]| expected.iter().all(|e| word(parser).as_deref() == Some(*e));
    if !has(&mut parser, &["ingest", "into"]) {
        return Err(wrong());
    }
    let table = parser.parse_object_name(false).map_err(|_| wrong())?;
    let if_missing = match has(&mut parser, &["if", "missing"]).then(|| word(&mut parser)).flatten().as_deref() {
        Some("create") => IfMissing::Create,
        Some("fail") => IfMissing::Fail,
        _ => return Err(wrong()),
    };
    let if_present = match has(&mut parser, &["if", "present"]).then(|| word(&mut parser)).flatten().as_deref() {
        Some("fail") => IfPresent::Fail,
        Some("append") => IfPresent::Append,
        Some("replace") => IfPresent::Replace,
        _ => return Err(wrong()),
    };
    match parser.next_token().token {
        Token::EOF => Ok(Some(Ingest { table: TableReference::parse_str(&table.to_string()), if_missing, if_present })),
        _ => Err(wrong()),
    }
}

/// The next word in lower case.
fn word(parser: &mut Parser<'_>) -> Option<String> {
    match parser.next_token().token {
        Token::Word(word) => Some(word.value.to_lowercase()),
        _ => None,
    }
}

/// The change of the catalogue.
pub(super) fn ingest(planning: &Planning<'_>, ingest: &Ingest) -> Result<Plan> {
    let request = planning.request;
    if request.parameters.is_empty() {
        return Err(Error::invalid(
            "INGEST takes rows that come along with it, from a bulk ingestion over Flight SQL: use CREATE TABLE … AS",
        ));
    }
    if let Some(name) = temporary::own(&ingest.table) {
        return temporary::ingested(planning, name, |present| rows_of(request, ingest, present));
    }
    let name = ddl::qualified(planning, &ingest.table)?;
    let expected = request.catalogue.entries.get(&name).cloned();
    let present = expected.as_ref().map(|entry| match &entry.kind {
        CatalogueKind::View => Present::View,
        CatalogueKind::Table { rows } => Present::Rows(request.blobs.read(rows)),
        CatalogueKind::ExternalTable | CatalogueKind::Schema => Present::Files,
    });
    let blob = rows_of(request, ingest, present)?;
    let kind = CatalogueKind::Table { rows: blob.hash.clone() };
    let entry = CatalogueEntry { kind, definition: request.statement.clone() };
    Ok(Plan::Change { record: Some(Box::new(Record::CatalogueSet { name, entry })), expected, blobs: vec![blob] })
}

/// What the name stands for that rows go to.
pub(super) enum Present {
    /// A query.
    View,
    /// Files somewhere else.
    Files,
    /// Rows, unless they are gone.
    Rows(Option<Bytes>),
}

/// The rows that the table has then.
fn rows_of(request: &PlanRequest, ingest: &Ingest, present: Option<Present>) -> Result<Blob> {
    let (schema, rows) = memory_table::read(&request.parameters).map_err(|e| from_datafusion(&e))?;
    let (schema, rows) = match (present, ingest.if_missing, ingest.if_present) {
        (None, IfMissing::Create, _) => created(&schema, &rows)?,
        (None, IfMissing::Fail, _) => {
            return Err(Error::not_found(format!("there is no table `{}`: create it first", ingest.table)));
        }
        (Some(_), _, IfPresent::Fail) => {
            return Err(Error::conflict(format!("`{}` exists already: append to it, or replace it", ingest.table)));
        }
        (Some(Present::View), _, _) => {
            return Err(Error::invalid(format!("`{}` is a view, which takes no rows: drop it first", ingest.table)));
        }
        (Some(_), _, IfPresent::Replace) => created(&schema, &rows)?,
        (Some(present), _, IfPresent::Append) => appended(present, ingest, (schema.as_ref(), rows))?,
    };
    let bytes = memory_table::encode(&schema, &rows).map_err(|e| from_datafusion(&e))?;
    if bytes.len() > MAX_TABLE_BYTES {
        return Err(Error::resources_exhausted(format!(
            "the rows of `{}` take more than {} MiB, the most that is kept in memory: write them to files and create an \
             external table",
            ingest.table,
            MAX_TABLE_BYTES >> 20
        )));
    }
    Ok(Blob::new(bytes))
}

type Rows = (SchemaRef, Vec<RecordBatch>);

/// A table of these rows.
fn created(schema: &Schema, rows: &[RecordBatch]) -> Result<Rows> {
    let mut names = BTreeSet::new();
    if let Some(twice) = schema.fields().iter().find(|field| !names.insert(field.name())) {
        return Err(Error::invalid(format!("two columns are called `{}`: name them apart", twice.name())));
    }
    if names.is_empty() {
        return Err(Error::invalid("a table needs a column: send rows that have one"));
    }
    // What the client noted there of its own would come back with every result.
    let schema = Arc::new(Schema::new(schema.fields().clone()));
    let rows = rows.iter().map(|batch| RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec()));
    let rows = rows.collect::<Result<_, ArrowError>>().map_err(|e| from_datafusion(&e.into()))?;
    Ok((schema, rows))
}

/// A table's rows and these, which are brought into its columns by their names.
fn appended(present: Present, ingest: &Ingest, (schema, rows): (&Schema, Vec<RecordBatch>)) -> Result<Rows> {
    let table = &ingest.table;
    let Present::Rows(kept) = present else {
        return Err(Error::invalid(format!("`{table}` is made of files: write more of them there with COPY")));
    };
    let kept = kept.ok_or_else(|| Error::not_found(format!("the rows of `{table}` are gone: create it again")))?;
    let (columns, mut all) = memory_table::read(&kept).map_err(|e| from_datafusion(&e))?;
    if let Some(unknown) = schema.fields().iter().find(|field| columns.index_of(field.name()).is_err()) {
        return Err(Error::invalid(format!("`{table}` has no column `{}`: leave it out of the rows", unknown.name())));
    }
    for batch in rows {
        all.push(in_columns(&columns, &batch, table)?);
    }
    Ok((columns, all))
}

fn in_columns(columns: &SchemaRef, batch: &RecordBatch, table: &TableReference) -> Result<RecordBatch> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(columns.fields().len());
    for field in columns.fields() {
        let name = field.name();
        let Some(column) = batch.column_by_name(name) else {
            return Err(Error::invalid(format!("the rows have no column `{name}`, which `{table}` has: add it")));
        };
        let cast = cast_with_options(column, field.data_type(), &options);
        arrays.push(cast.map_err(|e| Error::invalid(format!("`{name}` does not fit into `{table}`: {e}")))?);
    }
    RecordBatch::try_new(Arc::clone(columns), arrays)
        .map_err(|e| Error::invalid(format!("the rows do not fit into `{table}`: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        for (if_missing, if_present) in [
            (IfMissing::Create, IfPresent::Fail),
            (IfMissing::Fail, IfPresent::Append),
            (IfMissing::Create, IfPresent::Replace),
        ] {
            let table = TableReference::full("tidemill", "public", "My \"table\" IF");
            let ingest = Ingest { table, if_missing, if_present };
            assert_eq!(parse(&ingest.to_string()), Ok(Some(ingest)));
        }
    }

    #[test]
    fn other_statements_are_left_alone_and_wrong_ones_are_refused() {
        assert_eq!(parse("SELECT 1 AS ingest"), Ok(None));
        for wrong in ["INGEST", "INGEST INTO t", "INGEST INTO t IF MISSING APPEND IF PRESENT FAIL", "INGEST INTO t; x"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
