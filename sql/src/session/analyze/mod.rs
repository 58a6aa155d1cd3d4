//! `EXPLAIN ANALYZE`: the query runs as any other, its rows are counted, and its stages are drawn with what they cost.
//!
//! ```text
//! stage 1 · 1 task · result
//! • 24 rows in · 4 rows out · 1.1 KiB out · 0 B spilled
//! • 0.012 s in tasks (min 0.012, median 0.012, max 0.012) · 0 repeated
//! • 0 of 1 output in the store · 1 not stored yet
//! │ SortPreservingMergeExec: [n@0 ASC]
//! └─ reads stage 0 (sorted gather)
//! total · 4 rows · 0.120 s · 0.210 task seconds · durability always · …
//! ```
//!
//! Invariant: every number is one of the coordinator's state, as the system tables have it.

pub(super) mod json;
mod measured;
mod operators;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::logical_expr::{Analyze, ExplainFormat, LogicalPlan};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as Sql;
use measured::Storing;
use operators::Operators;
use serde::{Deserialize, Serialize};
use tidemill_core::record::{Run, Stage};
use tidemill_core::{Error, Result};
use tidemill_engine::plan::{ExchangeSettings, StageDrawing, draw};
use tidemill_engine::planner::{Counted, Plan, Report};

use super::finish::FinishSpec;
use super::{Planning, explain, query};

/// Refuses to run what is no query, before anybody looks for the names in it.
pub(super) fn check(statement: &Statement) -> Result<()> {
    let Statement::Explain(explain) = statement else { return Ok(()) };
    let is_query =
        matches!(explain.statement.as_ref(), Statement::Statement(sql) if matches!(sql.as_ref(), Sql::Query(_)));
    if explain.options.analyze && !is_query { Err(queries_only()) } else { Ok(()) }
}

fn queries_only() -> Error {
    Error::invalid(
        "EXPLAIN ANALYZE runs what it explains, and runs only queries, which change nothing: use EXPLAIN, or EXPLAIN \
         ANALYZE of the statement's query",
    )
}

/// Runs the query, for the sake of its report.
pub(super) async fn analyze(planning: &Planning<'_>, analyze: Analyze) -> Result<Plan> {
    let Analyze { verbose, format, input, analyze_level, analyze_categories, .. } = analyze;
    let form = Form::of(&format)?;
    if analyze_level.is_some() || analyze_categories.is_some() {
        return Err(Error::invalid("EXPLAIN ANALYZE tells all it knows: leave LEVEL and METRICS out"));
    }
    // Parts of a query may write, too.
    if matches!(input.as_ref(), LogicalPlan::Ddl(_) | LogicalPlan::Dml(_) | LogicalPlan::Copy(_)) {
        return Err(queries_only());
    }
    if query::asks_about_cluster(&input)? {
        return Err(Error::invalid(
            "the coordinator answers this query alone, without stages: there is nothing to measure",
        ));
    }
    let exchange = ExchangeSettings { operator_metrics: true, ..planning.settings.exchange };
    let durability = i32::from(exchange.durability);
    let report = |query: &_| FinishSpec::Report(StageReport { drawings: draw(query), durability, verbose, form });
    query::staged_with(planning, input.as_ref().clone(), exchange, report).await
}

/// How a stage tree is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Form {
    /// Lines for people.
    Text,
    /// One JSON object for programs.
    Json,
}

impl Form {
    pub(super) fn of(format: &ExplainFormat) -> Result<Self> {
        match format {
            ExplainFormat::Indent | ExplainFormat::Tree => Ok(Self::Text),
            ExplainFormat::PostgresJSON => Ok(Self::Json),
            ExplainFormat::Graphviz => Err(Error::invalid("EXPLAIN draws stages as text or JSON, not for Graphviz")),
        }
    }
}

/// What is drawn of a query before it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StageReport {
    /// The stages, from the root down.
    drawings: Vec<StageDrawing>,
    /// The run's [`Durability`](tidemill_engine::wire::Durability).
    durability: i32,
    /// Whether each task has a line.
    verbose: bool,
    form: Form,
}

impl Report for StageReport {
    fn columns(&self) -> SchemaRef {
        explain::column()
    }

    fn report(&self, counted: &Counted<'_>) -> Result<RecordBatch> {
        match self.form {
            Form::Text => explain::rows(self.lines(counted)),
            Form::Json => explain::rows(vec![json::tree(&self.drawings, Some(counted)).to_string()]),
        }
    }
}

impl StageReport {
    fn lines(&self, counted: &Counted<'_>) -> Vec<String> {
        let storing = Storing::of(counted, self.durability);
        let stages = self.drawings.iter().flat_map(|drawing| {
            let stage = counted.run.stages.get(drawing.stage.index());
            let known = stage.map(|stage| self.measured(counted.run, stage, storing)).unwrap_or_default();
            let operators = stage.map(Operators::of).unwrap_or_default();
            drawing.lines(known, |operator| operators.told(operator))
        });
        stages.chain([measured::total(counted, storing)]).collect()
    }

    fn measured(&self, run: &Run, stage: &Stage, storing: Storing) -> Vec<String> {
        let mut lines = measured::stage(run, stage, storing);
        if self.verbose {
            lines.extend(measured::tasks(stage, storing));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use tidemill_core::graph::{Determinism, ExchangeKind, Input, Stage as PlannedStage, StageGraph, TaskShape};
    use tidemill_core::record::{
        Footer, Loss, LostOutput, OperatorMetrics, Output, Pack, Record, RunSpec, State, TaskMetrics,
    };
    use tidemill_core::{Attempt, BlobHash, Epoch, ExecutorId, Millis, RunId, StageId, TaskId};
    use tidemill_engine::plan::{OperatorDrawing, ReadDrawing};
    use tidemill_engine::wire::Durability;

    use super::*;

    const fn task(stage: u32, index: u32) -> TaskId {
        TaskId { stage: StageId(stage), index }
    }

    const fn attempt(counter: u64) -> Attempt {
        Attempt { epoch: Epoch(1), counter }
    }

    fn stage(id: u32, tasks: u32, inputs: Vec<Input>) -> PlannedStage {
        PlannedStage {
            id: StageId(id),
            plan: BlobHash("plan".to_owned()),
            shape: TaskShape::PerPartition(tasks),
            output_partitions: 1,
            scans: vec![None; tasks as usize],
            inputs,
            determinism: Determinism::Exact,
        }
    }

    fn drawing(stage: u32) -> StageDrawing {
        let operator = |path: &[u32], name: &str| {
            let (name, line) = (name.to_owned(), format!("{name}: what it does"));
            OperatorDrawing { path: path.to_vec(), name, line }
        };
        StageDrawing {
            stage: StageId(stage),
            shape: TaskShape::PerPartition(if stage == 0 { 3 } else { 1 }),
            output: "1 partition".to_owned(),
            determinism: Determinism::Exact,
            operators: vec![operator(&[], "Sort"), operator(&[0], "Scan")],
            reads: if stage == 0 { vec![] } else { vec![ReadDrawing { stage: StageId(0), kind: "gather".to_owned() }] },
        }
    }

    /// What an attempt tells of its operators; its plan has another scan than the stage's, and one operator more.
    fn operators() -> Vec<OperatorMetrics> {
        let metrics = |path: &[u32], name: &str, spilled_bytes| {
            let (path, name) = (path.to_vec(), name.to_owned());
            OperatorMetrics { path, name, rows: 5, compute_ns: 20_000_000, spilled_bytes }
        };
        vec![metrics(&[], "Sort", 1024), metrics(&[0], "Empty", 0), metrics(&[0, 0], "Scan", 0)]
    }

    /// The records of an attempt that ran from 1,000 until `until`.
    fn attempted(
        run: &RunId,
        task: TaskId,
        counter: u64,
        until: u64,
        output: Option<(u64, TaskMetrics)>,
    ) -> [Record; 2] {
        let (run, attempt, executor) = (run.clone(), attempt(counter), ExecutorId("e".to_owned()));
        let start = (run.clone(), executor.clone());
        let at = Millis(until);
        let ended = match output {
            Some((bytes, metrics)) => {
                let footer = Footer { rows: 7, bytes, ..Footer::default() };
                let operators = operators();
                let output = Output { attempt, executor, footer, metrics, operators, rows: None, durable: None };
                Record::AttemptSucceeded { run, task, attempt, output, at }
            }
            None => Record::AttemptLost { run, task, attempt, cause: Loss::Executor, at },
        };
        let (run, executor) = start;
        [Record::AttemptStarted { run, task, attempt, executor, slots: 1, at: Millis(1000) }, ended]
    }

    /// A run of two stages: of the first one's outputs one is stored, one is not yet, and one is left out after its first
    /// attempt was lost.
    fn state(run: &RunId) -> State {
        let spec = RunSpec { statement: String::new(), ..RunSpec::default() };
        let stages =
            vec![stage(0, 3, vec![]), stage(1, 1, vec![Input { stage: StageId(0), kind: ExchangeKind::Gather }])];
        let mut records = vec![
            Record::EpochClaimed { epoch: Epoch(1), build: String::new(), at: Millis(0) },
            Record::RunAccepted { run: run.clone(), spec, at: Millis(500) },
            Record::RunPlanned { run: run.clone(), graph: StageGraph { stages }, sheet: None },
        ];
        let auto = |make_ms: u64, store_ms: u64| TaskMetrics {
            rows_in: 10,
            spilled_bytes: 1024,
            get_requests: 2,
            make_ns: make_ms * 1_000_000,
            store_ns: store_ms * 1_000_000,
            ..TaskMetrics::default()
        };
        let left_out = TaskMetrics { left_out_bytes: 2048, ..auto(100, 900) };
        records.extend(attempted(run, task(0, 0), 1, 3000, Some((512, auto(2000, 10)))));
        records.extend(attempted(run, task(0, 1), 2, 1400, None));
        records.extend(attempted(run, task(0, 1), 3, 1100, Some((2048, left_out))));
        records.extend(attempted(run, task(0, 2), 4, 1500, Some((512, auto(500, 10)))));
        records.extend(attempted(run, task(1, 0), 5, 1050, Some((64, auto(50, 1)))));
        let pack = Pack { name: "a.pack".to_owned(), crc: 0, bytes: 300, puts: 4 };
        let outputs = vec![LostOutput { task: task(0, 0), attempt: attempt(1) }];
        records.push(Record::PackDurable { run: run.clone(), pack, outputs });
        let mut state = State::default();
        records.iter().for_each(|record| state.apply(record));
        state
    }

    fn report(durability: Durability, has_store: bool, verbose: bool) -> Vec<String> {
        let run = RunId("r".to_owned());
        let state = state(&run);
        let durability = durability.into();
        let drawings = vec![drawing(1), drawing(0)];
        let report = StageReport { drawings, durability, verbose, form: Form::Text };
        let lines = state.runs.get(&run).map(|run| {
            let counted = Counted { run, rows: 7, now: Millis(3500), has_store };
            report.lines(&counted)
        });
        lines.unwrap_or_default()
    }

    #[test]
    fn what_is_stored_what_is_not_yet_and_what_auto_left_out_are_told_apart() {
        let expected = "\
stage 1 · 1 task · 1 partition
• 10 rows in · 7 rows out · 64 B out · 1.0 KiB spilled
• 0.050 s in tasks (min 0.050, median 0.050, max 0.050) · 0 repeated
• 0 of 1 output in the store · 1 not stored yet
• auto stores what took 0.050 s to make and takes 0.001 s to store
│ Sort: what it does · 5 rows · 0.020 s · 1.0 KiB spilled
│   Scan: what it does
└─ reads stage 0 (gather)
stage 0 · 3 tasks · 1 partition
• 30 rows in · 21 rows out · 3.0 KiB out · 3.0 KiB spilled
• 2.600 s in tasks (min 0.100, median 0.500, max 2.000) · 1 repeated
• 1 of 3 outputs in the store, in 1 pack · 1 not stored yet · 1 left out by auto
• repeated attempts · 1 lost with their executor
• auto left out what took 0.100 s to make and takes 0.900 s to store · stores what took 2.500 s to make and takes 0.020 s to store
│ Sort: what it does · 15 rows · 0.060 s · 3.0 KiB spilled
│   Scan: what it does
total · 7 rows · 3.000 s · 3.050 task seconds · durability auto · 300 B stored in 1 pack · 2.0 KiB left out · 4 put, 8 get, 0 list requests";
        assert_eq!(report(Durability::Auto, true, false).join("\n"), expected);
    }

    #[test]
    fn programs_read_the_same_numbers() {
        let run = RunId("r".to_owned());
        let state = state(&run);
        let counted = Counted { run: &state.runs[&run], rows: 7, now: Millis(3500), has_store: true };
        let tree = json::tree(&[drawing(1), drawing(0)], Some(&counted));
        let stage = &tree["stages"][1];
        assert_eq!((&stage["stage"], &stage["tasks"]), (&0.into(), &3.into()), "{tree}");
        assert_eq!(
            (&stage["operators"][0]["rows"], &stage["operators"][1]["rows"]),
            (&15.into(), &serde_json::Value::Null)
        );
        assert_eq!(
            (&stage["actual"]["rows_out"], &stage["actual"]["attempts_with_lost_executors"]),
            (&21.into(), &1.into())
        );
        assert_eq!(tree["stages"][0]["reads"][0]["kind"], "gather", "{tree}");
        assert_eq!((&tree["total"]["rows"], &tree["total"]["put_requests"]), (&7.into(), &4.into()), "{tree}");
    }

    #[test]
    fn what_is_not_to_be_stored_is_not_called_late() {
        let outputs = |lines: Vec<String>| lines.into_iter().filter(|l| l.contains(" not stored")).collect::<Vec<_>>();
        let off = outputs(report(Durability::Off, true, false));
        assert_eq!(off, ["• 1 output not stored: durability is off", "• 3 outputs not stored: durability is off"]);
        let nowhere = outputs(report(Durability::Always, false, false));
        let expected =
            ["• 1 output not stored: the server has no store", "• 3 outputs not stored: the server has no store"];
        assert_eq!(nowhere, expected);
    }

    #[test]
    fn verbose_tells_of_each_task() {
        let lines = report(Durability::Auto, true, true);
        let tasks: Vec<&str> = lines.iter().filter_map(|l| l.strip_prefix("•   ")).skip(1).collect();
        let expected = [
            "task 0 · 2.000 s on e · 10 rows in · 7 rows out · 512 B out · in the store",
            "task 1 · 0.100 s on e · 10 rows in · 7 rows out · 2.0 KiB out · left out by auto",
            "task 2 · 0.500 s on e · 10 rows in · 7 rows out · 512 B out · not stored yet",
        ];
        assert_eq!(tasks, expected);
    }
}
