//! Statements that make or drop what is temporary, in words that DataFusion knows.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::TableReference;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::sql::parser::Statement;
use datafusion::sql::planner::object_name_to_table_reference;
use datafusion::sql::sqlparser::ast::{
    Ident, ObjectName, ObjectNamePart, ObjectType, OnCommit, Query, Statement as Sql,
};
use datafusion::sql::sqlparser::tokenizer::Token;
use tidemill_core::record::{CatalogueEntry, Record, TableRows};
use tidemill_core::{Error, Millis, Result, RunId, SessionId};
use tidemill_engine::blob::Blob;
use tidemill_engine::error::from_datafusion;
use tidemill_engine::planner::{Keep, Plan};
use tidemill_engine::runtime::CATALOG;

use super::{Change, Kind, SCHEMA, Temporaries, Temporary, changing, rows_of, session, telling, unchanged};
use crate::session::finish::FinishSpec;
use crate::session::ingest::Present;
use crate::session::keep::{MAX_TABLE_BYTES, encoded};
use crate::session::tokens::{tokens, written};
use crate::session::{Planning, ddl, names, query, redact, statements};

/// A statement that makes something temporary.
pub(in crate::session) struct Making {
    name: String,
    session: SessionId,
    /// Whether there is nothing to do.
    is_there: bool,
    /// What a view reads of the session.
    uses: BTreeSet<String>,
    /// The run whose rows go.
    replaces: Option<RunId>,
}

/// What a statement says of the name that it makes.
struct Named<'a> {
    name: &'a ObjectName,
    if_not_exists: bool,
    or_replace: bool,
    query: Option<&'a Query>,
}

impl Making {
    /// What a statement makes; `None` where nothing temporary. What lasts must not read what does not.
    pub(in crate::session) fn of(planning: &Planning<'_>, statement: &Statement) -> Result<Option<Self>> {
        let named = match statement {
            Statement::CreateExternalTable(table) if table.temporary => {
                let (if_not_exists, or_replace) = (table.if_not_exists, table.or_replace);
                Named { name: &table.name, if_not_exists, or_replace, query: None }
            }
            Statement::Statement(sql) => match sql.as_ref() {
                Sql::CreateView(view) if view.temporary => {
                    let (if_not_exists, or_replace) = (view.if_not_exists, view.or_replace);
                    Named { name: &view.name, if_not_exists, or_replace, query: Some(view.query.as_ref()) }
                }
                Sql::CreateView(view) => return refuse_reading(planning, &view.name, &view.query).map(|()| None),
                Sql::CreateTable(table) if table.temporary => {
                    let (if_not_exists, or_replace) = (table.if_not_exists, table.or_replace);
                    Named { name: &table.name, if_not_exists, or_replace, query: table.query.as_deref() }
                }
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        Self::named(planning, &named).map(Some)
    }

    fn named(planning: &Planning<'_>, named: &Named<'_>) -> Result<Self> {
        let session = session(&planning.request.settings)?;
        let name = own_name(planning, named.name)?;
        let known = planning.settings.temporaries.get(&name);
        let is_there = known.is_some() && named.if_not_exists;
        if known.is_some() && !named.if_not_exists && !named.or_replace {
            return Err(Error::conflict(format!(
                "the temporary `{name}` exists already: drop it, or use OR REPLACE or IF NOT EXISTS"
            )));
        }
        let uses = named.query.map(|query| reads(planning, query)).transpose()?.unwrap_or_default();
        let replaces = known.and_then(Temporary::rows).cloned();
        Ok(Self { name, session, is_there, uses, replaces })
    }

    /// What the statement means, by its plan.
    pub(in crate::session) async fn meaning(self, planning: &Planning<'_>, plan: LogicalPlan) -> Result<Plan> {
        if self.is_there {
            return Ok(unchanged());
        }
        let definition = planning.request.statement.clone();
        match plan {
            LogicalPlan::Ddl(DdlStatement::CreateView(_)) => {
                if planning.settings.temporaries.reached_from(&self.uses).contains(&self.name) {
                    return Err(Error::invalid(format!(
                        "the temporary view `{}` would be made of itself: give it another name",
                        self.name
                    )));
                }
                let kind = Kind::View { uses: self.uses.clone() };
                self.remembered(planning, Temporary { kind, definition })
            }
            LogicalPlan::Ddl(DdlStatement::CreateExternalTable(command)) => {
                let definition = ddl::external_definition(planning, *command).await?;
                self.remembered(planning, Temporary { kind: Kind::ExternalTable, definition })
            }
            LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)) => {
                let kind = Kind::Table { run: planning.request.run.clone() };
                let change = self.change(planning, Temporary { kind, definition: redact(&definition) })?.encode()?;
                let finish = FinishSpec::KeepTemporary { session: self.session, replaces: self.replaces, change };
                query::staged(planning, Arc::unwrap_or_clone(table.input), |_| finish).await
            }
            other => Err(Error::internal(format!("{} makes nothing temporary", other.display()))),
        }
    }

    fn change(&self, planning: &Planning<'_>, temporary: Temporary) -> Result<Change> {
        planning.settings.temporaries.with(&self.name, temporary.clone())?;
        Ok(Change { name: self.name.clone(), becomes: Some(temporary) })
    }

    fn remembered(self, planning: &Planning<'_>, temporary: Temporary) -> Result<Plan> {
        let change = self.change(planning, temporary)?;
        let session = self.session;
        changing(&change, self.replaces.map(|run| Record::SessionRowsDropped { session, run }))
    }
}

/// What a plan that makes something temporary asks of others: to read what it is made of, where that is a query.
pub(in crate::session) fn reading(plan: &LogicalPlan) -> &LogicalPlan {
    match plan {
        LogicalPlan::Ddl(DdlStatement::CreateView(view)) => &view.input,
        LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)) => &table.input,
        other => other,
    }
}

/// The temporary views and tables that a query names. All that it names is there.
fn reads(planning: &Planning<'_>, query: &Query) -> Result<BTreeSet<String>> {
    let query = Statement::Statement(Box::new(Sql::Query(Box::new(query.clone()))));
    names::check(planning, &query)?;
    let references = planning.context.state().resolve_table_references(&query).map_err(|e| from_datafusion(&e))?;
    let temporaries = &planning.settings.temporaries;
    let named = references.iter().filter_map(|reference| temporaries.named(reference));
    Ok(named.map(|(name, _)| name.to_owned()).collect())
}

/// Refuses a lasting view over temporary names: others would see something else behind them.
fn refuse_reading(planning: &Planning<'_>, view: &ObjectName, query: &Query) -> Result<()> {
    if planning.settings.temporaries.is_empty() {
        return Ok(());
    }
    match reads(planning, query)?.first() {
        Some(name) => Err(Error::invalid(format!(
            "the view `{view}` would outlive the temporary `{name}` that it reads: make it temporary, too, or write \
             `public.{name}`"
        ))),
        None => Ok(()),
    }
}

fn reference(planning: &Planning<'_>, name: &ObjectName) -> Result<TableReference> {
    let normalizes = planning.settings.config.options().sql_parser.enable_ident_normalization;
    object_name_to_table_reference(name.clone(), normalizes).map_err(|e| from_datafusion(&e))
}

/// The name that something temporary gets: it belongs to no schema of the cluster.
fn own_name(planning: &Planning<'_>, name: &ObjectName) -> Result<String> {
    let reference = reference(planning, name)?;
    let is_own = reference.schema().is_none_or(|schema| schema == SCHEMA)
        && reference.catalog().is_none_or(|catalog| catalog == CATALOG);
    match is_own {
        true => Ok(reference.table().to_owned()),
        false => Err(Error::invalid(format!(
            "`{reference}` cannot be temporary: what is temporary belongs to no schema, so write `{}`",
            reference.table()
        ))),
    }
}

/// The change that a statement asks for which drops something temporary; `None` for others.
pub(in crate::session) fn dropped(planning: &Planning<'_>, statement: &Statement) -> Result<Option<Plan>> {
    let Statement::Statement(sql) = statement else { return Ok(None) };
    let Sql::Drop { object_type, if_exists, names, temporary, .. } = sql.as_ref() else { return Ok(None) };
    let (asked, [name]) = (object_type, names.as_slice()) else { return Ok(None) };
    let noun = match asked {
        ObjectType::Table => "table",
        ObjectType::View => "view",
        _ => return Ok(None),
    };
    let reference = reference(planning, name)?;
    let Some((name, known)) = planning.settings.temporaries.named(&reference) else {
        let is_meant = *temporary || reference.schema() == Some(SCHEMA);
        return match (is_meant, *if_exists) {
            (false, _) => Ok(None),
            (true, true) => Ok(Some(unchanged())),
            (true, false) => Err(Error::not_found(format!(
                "there is no temporary {noun} `{}` to drop: SHOW TABLES lists what there is",
                reference.table()
            ))),
        };
    };
    if known.noun() != noun {
        let (actual, is) = (known.noun().to_uppercase(), known.noun());
        return Err(Error::invalid(format!("the temporary `{name}` is a {is}: use DROP {actual}")));
    }
    let session = session(&planning.request.settings)?;
    let record = known.rows().map(|run| Record::SessionRowsDropped { session, run: run.clone() });
    changing(&Change { name: name.to_owned(), becomes: None }, record).map(Some)
}

/// The statement without what DataFusion refuses: that a table is temporary.
pub(in crate::session) fn plain(statement: Statement, temporaries: &Temporaries) -> Statement {
    let Statement::Statement(mut sql) = statement else { return statement };
    match sql.as_mut() {
        Sql::CreateTable(table) if table.temporary => {
            table.temporary = false;
            table.global = table.global.filter(|is_global| *is_global);
            // There are no transactions that would end otherwise.
            table.on_commit = table.on_commit.take().filter(|on_commit| !matches!(on_commit, OnCommit::PreserveRows));
        }
        Sql::CreateView(view) if view.temporary => view.if_not_exists = false,
        Sql::ShowColumns { show_options, .. } => {
            let named = show_options.show_in.as_mut().and_then(|shown| shown.parent_name.as_mut());
            if let Some(name) = named
                && let [ObjectNamePart::Identifier(table)] = name.0.as_slice()
                && temporaries.names().any(|known| known.eq_ignore_ascii_case(&table.value))
            {
                // Without its schema, it would mean all tables of that name.
                name.0.insert(0, ObjectNamePart::Identifier(Ident::new(SCHEMA)));
            }
        }
        _ => {}
    }
    Statement::Statement(sql)
}

/// `CREATE TEMPORARY EXTERNAL TABLE` as DataFusion's parser knows it, `CREATE EXTERNAL TEMPORARY TABLE`.
pub(in crate::session) fn in_datafusions_order(text: &str) -> Cow<'_, str> {
    let words: Vec<String> = statements::words(text).take(5).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (["create", "temporary" | "temp", "external", ..]
    | ["create", "or", "replace", "temporary" | "temp", "external"]) = words.as_slice()
    else {
        return Cow::Borrowed(text);
    };
    let Ok(mut tokens) = tokens(text) else {
        return Cow::Borrowed(text);
    };
    let position = |tokens: &[Token], words: &[&str]| {
        let is_one = |word: &str| words.iter().any(|known| word.eq_ignore_ascii_case(known));
        tokens.iter().position(|token| matches!(token, Token::Word(word) if is_one(&word.value)))
    };
    let (temporary, external) = (position(&tokens, &["temporary", "temp"]), position(&tokens, &["external"]));
    if let (Some(temporary), Some(external)) = (temporary, external) {
        tokens.swap(temporary, external);
    }
    Cow::Owned(written(&tokens))
}

/// The name in the session that rows which come along go to, if it is one.
pub(in crate::session) fn own(table: &TableReference) -> Option<&str> {
    let is_ours = table.catalog().is_none_or(|catalog| catalog == CATALOG);
    (is_ours && table.schema() == Some(SCHEMA)).then(|| table.table())
}

/// A temporary table of rows that come along; `rows` are those that it has then.
pub(in crate::session) fn ingested(
    planning: &Planning<'_>,
    name: &str,
    rows: impl FnOnce(Option<Present>) -> Result<Blob>,
) -> Result<Plan> {
    let request = planning.request;
    let session = session(&request.settings)?;
    let known = planning.settings.temporaries.get(name);
    let blob = rows(known.map(|known| match &known.kind {
        Kind::View { .. } => Present::View,
        Kind::ExternalTable => Present::Files,
        Kind::Table { run } => Present::Rows(rows_of(request, run)),
    }))?;
    let run = request.run.clone();
    let temporary = Temporary { kind: Kind::Table { run: run.clone() }, definition: request.statement.clone() };
    planning.settings.temporaries.with(name, temporary.clone())?;
    let change = Change { name: name.to_owned(), becomes: Some(temporary) }.encode()?;
    let replaces = known.and_then(Temporary::rows).cloned();
    let record = kept(session, run, replaces, &blob);
    let answer = telling(&Schema::empty(), &change);
    Ok(Plan::Session { answer, record: Some(Box::new(record)), blobs: vec![blob] })
}

/// That rows are kept for a session. When that is, whoever takes it says.
fn kept(session: SessionId, run: RunId, replaces: Option<RunId>, blob: &Blob) -> Record {
    let rows = TableRows { blob: blob.hash.clone(), bytes: blob.bytes.len() as u64 };
    Record::SessionRowsKept { session, run, rows, replaces, at: Millis::default() }
}

/// A result that becomes a temporary table.
pub(in crate::session) struct KeepTemporary {
    pub(in crate::session) session: SessionId,
    pub(in crate::session) run: RunId,
    pub(in crate::session) replaces: Option<RunId>,
    /// What the client is told.
    pub(in crate::session) change: String,
}

impl Keep for KeepTemporary {
    fn expected(&self) -> Option<CatalogueEntry> {
        None
    }

    fn limit(&self) -> usize {
        MAX_TABLE_BYTES
    }

    fn told(&self) -> SchemaRef {
        telling(&Schema::empty(), &self.change)
    }

    fn keep(&self, schema: SchemaRef, batches: &[RecordBatch]) -> Result<(Record, Blob)> {
        let blob = encoded(&schema, batches)?;
        Ok((kept(self.session.clone(), self.run.clone(), self.replaces.clone(), &blob), blob))
    }
}

#[cfg(test)]
mod tests {
    use super::in_datafusions_order;

    #[test]
    fn temporary_stands_where_datafusion_looks_for_it_and_nothing_else_moves() {
        assert_eq!(
            in_datafusions_order("create or replace Temp External TABLE \"external\" LOCATION 'temp external'"),
            "create or replace External Temp TABLE \"external\" LOCATION 'temp external'"
        );
        for unchanged in ["CREATE TEMPORARY VIEW external AS SELECT 1", "CREATE EXTERNAL TEMPORARY TABLE t", "SELECT 1"]
        {
            assert_eq!(in_datafusions_order(unchanged), unchanged);
        }
    }
}
