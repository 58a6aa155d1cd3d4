//! What a job's clauses mean to the core.

use datafusion::common::TableReference;
use tidemill_core::interval::{CatchUp, Cron, DatasetName, Local, Spec, Trigger, Zone};
use tidemill_core::{Error, Principal, Result};
use tidemill_engine::runtime::{CATALOG, SCHEMA};

use super::settings::{Settings, length};
use super::statement::{At, CreateJob, TriggerClause};

/// What a job says, in the core's words.
///
/// # Errors
/// A clause is missing or makes no sense; the place is that of the clause.
pub(super) fn spec_of(create: &CreateJob, identity: String, by: Option<Principal>) -> Result<Spec> {
    let settings = Settings::of(&create.settings)?;
    let zone = match &create.zone {
        Some(zone) => Zone::parse(&zone.value).map_err(|e| e.at(zone.place))?,
        None => Zone::UTC,
    };
    let Some(interval) = &create.interval else {
        return Err(missing(create, "INTERVAL, which says for which stretch of time a run computes: INTERVAL '1 day'"));
    };
    let start = create.start.as_ref().map(|start| Local::parse(&start.value).map_err(|e| e.at(start.place)));
    let spec = Spec {
        statement: create.to_string(),
        output: dataset(&create.output),
        trigger: trigger(create)?,
        zone,
        interval: length(&interval.value).map_err(|e| e.at(interval.place))?,
        start: start.transpose()?,
        catch_up: if create.catch_up == Some(true) { CatchUp::All } else { CatchUp::Latest },
        depends_on: create.depends_on.iter().map(dataset).collect(),
        options: settings.options,
        identity,
        by,
    };
    spec.validate().map_err(|e| e.at(create.job.place))?;
    Ok(spec)
}

fn trigger(create: &CreateJob) -> Result<Trigger> {
    match &create.trigger {
        Some(TriggerClause::Cron(text)) => {
            let cron = Cron::parse(&text.value).map_err(|e| e.at(text.place))?;
            Ok(Trigger::Schedule { cron })
        }
        Some(TriggerClause::Update(of)) => Ok(Trigger::Update { of: of.iter().map(dataset).collect() }),
        None => Err(missing(
            create,
            "a reason to run: SCHEDULE CRON '15 2 * * *', or TRIGGER ON UPDATE OF a dataset that another job makes",
        )),
    }
}

fn missing(create: &CreateJob, what: &str) -> Error {
    Error::invalid(format!("the job {} lacks {what}", create.job.value)).at(create.job.place)
}

/// A dataset by its name in the catalogue.
pub(super) fn dataset(table: &At<TableReference>) -> DatasetName {
    let resolved = table.value.clone().resolve(CATALOG, SCHEMA);
    DatasetName(format!("{}.{}", resolved.schema, resolved.table))
}

#[cfg(test)]
#[expect(clippy::panic, clippy::unwrap_used, reason = "a test that meets the unexpected should say so and end")]
mod tests {
    use super::*;
    use crate::jobs::parser::parse;
    use crate::jobs::statement::JobStatement;

    fn read(settings: &str) -> Result<Spec> {
        let statement = format!(
            "CREATE JOB counts INTO sums SCHEDULE CRON '@hourly' INTERVAL '1 hour' START '2026-03-01' WITH ({settings}) AS SELECT 1"
        );
        match parse(&statement).unwrap() {
            Some(JobStatement::Create(create)) => spec_of(&create, "id".to_owned(), None),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lateness_is_kept_with_the_statement_and_refused_where_rows_are_added() {
        let spec = read("allowed_lateness = '7d'").unwrap();
        assert_eq!(spec.options.allowed_lateness_ms, Some(7 * 24 * 3_600_000));
        assert!(spec.statement.contains("WITH (allowed_lateness = '7d')"), "{}", spec.statement);
        for (settings, expected) in [
            ("mode = 'append', allowed_lateness = '7d'", "mode = 'append' would add their rows twice"),
            ("allowed_lateness = '11 years'", "write how long that is"),
            ("allowed_lateness = '4000 days'", "must be between '0 milliseconds' and '3660 days'"),
        ] {
            let error = read(settings).unwrap_err();
            assert!(error.message.contains(expected) && error.place.is_some(), "{settings}: {error}");
        }
        assert!(read("mode = 'append', allowed_lateness = '0s'").is_ok(), "that is none");
    }
}
