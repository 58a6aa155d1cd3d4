//! Where a job publishes, and which rows of the dataset those of an interval replace.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, SchemaRef};
use chrono::NaiveDate;
use datafusion::common::TableReference;
use tidemill_core::interval::{Interval, JobName, Mode, Spec, State};
use tidemill_core::record::CatalogueKind;
use tidemill_core::schedule::rival;
use tidemill_core::{Error, Result};
use tidemill_engine::error::from_datafusion;

use super::query::{day_of, is_of_days, type_of, value};
use super::settings::Settings;
use super::statement::{At, CreateJob};
use crate::datasets::{DatasetTable, WriteMode};
use crate::session::{Planning, nearest};

/// A dataset that a job publishes into.
pub(super) struct Target {
    /// Its name in the catalogue.
    pub(super) name: String,
    pub(super) columns: SchemaRef,
    partitions: Vec<String>,
}

impl Target {
    /// The dataset that a job names.
    ///
    /// # Errors
    /// There is none of the name, or it is no dataset.
    pub(super) async fn of(planning: &Planning<'_>, create: &CreateJob) -> Result<Self> {
        let (output, place) = (&create.output.value, create.output.place);
        planning.check_table(output).map_err(|e| e.at(place))?;
        let name = planning.qualified(output).map_err(|e| e.at(place))?;
        let entry = planning.request.catalogue.entries.get(&name);
        let what = match entry.map(|entry| &entry.kind) {
            Some(CatalogueKind::ExternalTable) => None,
            Some(CatalogueKind::View) => Some("a view"),
            Some(CatalogueKind::Table { .. }) => Some("a table in memory"),
            Some(CatalogueKind::Schema) | None => Some("no table of the catalogue"),
        };
        if let Some(what) = what {
            let message = format!(
                "`{output}` is {what}, and a job publishes into a dataset: make one with CREATE EXTERNAL TABLE … STORED AS DELTA"
            );
            return Err(Error::invalid(message).at(place));
        }
        let table = planning.context.table_provider(output.clone()).await.map_err(|e| from_datafusion(&e).at(place))?;
        let Some(dataset) = table.downcast_ref::<DatasetTable>() else {
            let message = format!(
                "`{output}` is no dataset, and a job publishes into one: make it with CREATE EXTERNAL TABLE … STORED AS DELTA"
            );
            return Err(Error::invalid(message).at(place));
        };
        Ok(Self { name, columns: table.schema(), partitions: dataset.partition_by().to_vec() })
    }

    /// What publishing an interval does to the rows that are there, and where its own must lie.
    ///
    /// # Errors
    /// It is not clear which rows are the interval's.
    pub(super) fn mode(&self, create: &CreateJob, spec: &Spec, interval: Interval) -> Result<WriteMode> {
        let settings = Settings::of(&create.settings)?;
        let adds = spec.options.mode == Mode::Append;
        if adds && settings.interval_column.is_none() && settings.partition.is_none() {
            return Ok(WriteMode::Append);
        }
        let column = self.column(create, &settings)?;
        let missing = || {
            let alike = nearest(&column.value, self.columns.fields().iter().map(|field| field.name().as_str()));
            let hint = alike.map_or_else(String::new, |alike| format!(": did you mean `{alike}`?"));
            Error::not_found(format!("`{}` has no column `{}`{hint}", self.name, column.value)).at(column.place)
        };
        let kind = type_of(&self.columns, &column.value).ok_or_else(missing)?;
        let wrong = |why: String| Error::invalid(format!("the column `{}` {why}", column.value)).at(column.place);
        let is_only_partition = matches!(self.partitions.as_slice(), [only] if *only == column.value);
        if !matches!(kind, DataType::Date32 | DataType::Timestamp(..)) {
            return Err(wrong(format!("is {kind}, and a DATE or a timestamp tells which interval a row belongs to")));
        }
        let is_whole = is_of_days(spec, interval.start) && is_of_days(spec, interval.end);
        if !adds && is_only_partition && kind == DataType::Date32 && is_whole {
            let days = day_of(interval.start, spec.zone)..day_of(interval.end, spec.zone);
            let partition = |day: i64| -> Result<BTreeMap<String, Option<String>>> {
                let date = i32::try_from(day).ok().and_then(NaiveDate::from_epoch_days);
                // Without a value it would be the partition of NULL.
                let date = date.ok_or_else(|| wrong(format!("is a DATE, which has no day {day} since 1970")))?;
                Ok(BTreeMap::from([(column.value.clone(), Some(date.format("%Y-%m-%d").to_string()))]))
            };
            return Ok(WriteMode::ReplacePartitions(days.map(partition).collect::<Result<_>>()?));
        }
        let bound = |at| value(at, &kind, spec).map_err(&wrong);
        let (from, to) = (bound(interval.start)?, bound(interval.end)?);
        let column = column.value;
        Ok(match adds {
            true => WriteMode::AppendInterval { column, from, to },
            false => WriteMode::ReplaceInterval { column, from, to },
        })
    }

    /// The column that tells which interval a row belongs to.
    fn column(&self, create: &CreateJob, settings: &Settings) -> Result<At<String>> {
        if let Some(partition) = &settings.partition {
            if !self.partitions.contains(&partition.value) {
                let message =
                    format!("`{}` is not partitioned by `{}`: set interval_column", self.name, partition.value);
                return Err(Error::invalid(message).at(partition.place));
            }
            return Ok(partition.clone());
        }
        if let Some(column) = &settings.interval_column {
            return Ok(column.clone());
        }
        let is_time =
            |name: &&String| matches!(type_of(&self.columns, name), Some(DataType::Date32 | DataType::Timestamp(..)));
        match self.partitions.iter().filter(is_time).collect::<Vec<_>>().as_slice() {
            [only] => Ok(At { value: (*only).clone(), place: create.job.place }),
            _ => Err(Error::invalid(format!(
                "it is not clear which rows of `{}` an interval of the job {} replaces: set interval_column = '…' to the column \
                 with their time, or mode = 'append'",
                self.name, create.job.value
            ))
            .at(create.job.place)),
        }
    }
}

/// Refuses a job that would delete what another one publishes, or the other way round. The scheduler looks again when the job is
/// accepted, and has no place to point at.
pub(super) fn check_alone(jobs: &State, job: &JobName, spec: &Spec, output: &At<TableReference>) -> Result<()> {
    match rival(jobs, job, spec) {
        None => Ok(()),
        Some(other) => Err(Error::invalid(format!(
            "the job {other} publishes into `{}` too, and one would delete the other's rows of an interval: set \
             mode = 'append' for both, or give each a dataset of its own",
            output.value
        ))
        .at(output.place)),
    }
}
