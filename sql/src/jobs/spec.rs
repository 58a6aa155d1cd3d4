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
