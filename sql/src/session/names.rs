//! Unknown table names, with the nearest known one.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::common::utils::datafusion_strsim::normalized_levenshtein;
use datafusion::common::{ResolvedTableReference, TableReference};
use datafusion::sql::parser::{CopyToSource, Statement};
use datafusion::sql::sqlparser::ast::{ObjectName, ObjectNamePart, visit_relations};
use tidemill_core::record::CatalogueKind;
use tidemill_core::{Error, Place, Result};
use tidemill_engine::error::from_datafusion;
use tidemill_engine::runtime::{CATALOG, SCHEMA};

use super::{Planning, statements, system};
use crate::datasets::table_name;

/// Names less alike than this are no suggestion.
const LEAST_LIKENESS: f64 = 0.5;

/// The name that is most like another, if one is much like it.
pub(crate) fn nearest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |known: &str| normalized_levenshtein(&known.to_lowercase(), &wanted.to_lowercase());
    let alike = known.map(|known| (likeness(known), known)).filter(|(likeness, _)| *likeness >= LEAST_LIKENESS);
    alike.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

/// Checks that every table the statement reads exists.
pub(crate) fn check(planning: &Planning<'_>, statement: &Statement) -> Result<()> {
    if !matches!(statement, Statement::Statement(_) | Statement::Explain(_) | Statement::CopyTo(_))
        || creates_or_drops(statement)
    {
        return Ok(());
    }
    let references = planning.context.state().resolve_table_references(statement).map_err(|e| from_datafusion(&e))?;
    let functions = planning.context.state();
    let is_function = |name: &str| functions.table_functions().contains_key(name);
    let mut tables = references.iter().filter(|r| r.schema().is_some() || !is_function(r.table()));
    tables.try_for_each(|reference| {
        check_table(planning, reference).map_err(|e| e.at(place_of(statement, reference.table())))
    })
}

/// Whether a query reads something of the catalogue, itself or through views. What cannot be read as SQL reads nothing.
pub(crate) fn reads(planning: &Planning<'_>, query: &str, name: &str) -> bool {
    let (mut open, mut seen) = (vec![query.to_owned()], BTreeSet::new());
    while let Some(text) = open.pop() {
        let Ok(statement) = statements::parse_one(&text) else { continue };
        let references = planning.context.state().resolve_table_references(&statement).unwrap_or_default();
        for read in references.iter().filter_map(|reference| planning.qualified(reference).ok()) {
            if read == name {
                return true;
            }
            let entry = planning.request.catalogue.entries.get(&read);
            if let Some(view) = entry.filter(|entry| entry.kind == CatalogueKind::View)
                && seen.insert(read)
            {
                open.push(view.definition.clone());
            }
        }
    }
    false
}

/// Checks that a table exists.
pub(crate) fn check_table(planning: &Planning<'_>, reference: &TableReference) -> Result<()> {
    let name = reference.clone().resolve(CATALOG, SCHEMA);
    let is_known = planning.settings.temporaries.named(reference).is_some() || is_known(planning, &name);
    if is_known { Ok(()) } else { Err(unknown(planning, reference, &name)) }
}

/// The words that made what a name means: the session's own, or what all see.
pub(crate) fn definition_of<'a>(planning: &'a Planning<'_>, reference: &TableReference) -> Option<&'a str> {
    if let Some((_, temporary)) = planning.settings.temporaries.named(reference) {
        return Some(&temporary.definition);
    }
    let name = reference.clone().resolve(CATALOG, SCHEMA);
    let entry = planning.request.catalogue.entries.get(&format!("{}.{}", name.schema, name.table))?;
    Some(&entry.definition)
}

/// Where a statement first names a table.
fn place_of(statement: &Statement, table: &str) -> Option<Place> {
    let named = |name: &ObjectName| {
        let last = name.0.last().and_then(ObjectNamePart::as_ident);
        let found = last.filter(|ident| ident.value.eq_ignore_ascii_case(table));
        let first = name.0.first().and_then(ObjectNamePart::as_ident).filter(|_| found.is_some());
        match first.map(|ident| ident.span.start) {
            Some(start) => ControlFlow::Break(statements::place(start.line, start.column)),
            None => ControlFlow::Continue(()),
        }
    };
    let found = match statement {
        Statement::Statement(sql) => visit_relations(sql, named),
        Statement::Explain(explain) => return place_of(&explain.statement, table),
        Statement::CopyTo(copy) => match &copy.source {
            CopyToSource::Relation(name) => named(name),
            CopyToSource::Query(query) => visit_relations(query, named),
        },
        _ => return None,
    };
    found.break_value().flatten()
}

fn creates_or_drops(statement: &Statement) -> bool {
    use datafusion::sql::sqlparser::ast::Statement as Sql;
    let Statement::Statement(sql) = statement else { return false };
    matches!(**sql, Sql::Drop { .. } | Sql::CreateView { .. } | Sql::CreateTable { .. })
}

fn is_known(planning: &Planning<'_>, name: &ResolvedTableReference) -> bool {
    match (&*name.catalog, &*name.schema) {
        (CATALOG, "information_schema") => true,
        (CATALOG, system::SCHEMA) => system::TABLES.contains(&&*name.table),
        (CATALOG, schema) => {
            let has = |table: &str| planning.request.catalogue.entries.contains_key(&format!("{schema}.{table}"));
            has(&name.table) || has(table_name(&name.table))
        }
        _ => false,
    }
}

fn unknown(planning: &Planning<'_>, reference: &TableReference, name: &ResolvedTableReference) -> Error {
    let system = system::TABLES.iter().map(|t| format!("{}.{t}", system::SCHEMA));
    let temporary = planning.settings.temporaries.names().cloned();
    let known = planning.request.catalogue.entries.keys().cloned().chain(temporary).chain(system);
    let wanted = format!("{}.{}", name.schema, name.table);
    // What all names have in common makes none of them more alike.
    let own = |name: &str| name.trim_start_matches(&format!("{SCHEMA}.")).to_owned();
    let known: Vec<String> = known.map(|name| own(&name)).collect();
    let written = reference.to_string();
    let is_free = reference.schema().is_none_or(|schema| !planning.request.catalogue.has_schema(schema));
    if let Some(hint) = super::endings::as_table(&written).filter(|_| is_free) {
        return Error::not_found(format!("there is no table `{written}`: {hint}"));
    }
    let hint = match nearest(&own(&wanted), known.iter().map(String::as_str)) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => "SHOW TABLES lists what there is".to_owned(),
    };
    Error::not_found(format!("there is no table `{reference}`: {hint}"))
}
