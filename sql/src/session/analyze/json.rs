//! The stage tree as JSON, for programs: sizes in bytes, times in seconds.

use serde_json::{Map, Value, json};
use tidemill_core::graph::{Determinism, TaskShape};
use tidemill_core::record::Stage;
use tidemill_engine::plan::StageDrawing;
use tidemill_engine::planner::Counted;

use super::measured::{Repeats, millis, outputs};
use super::operators::Operators;

/// What was planned, and, where the query ran, what it cost.
pub(in crate::session) fn tree(drawings: &[StageDrawing], counted: Option<&Counted<'_>>) -> Value {
    let stage = |drawing: &StageDrawing| {
        let ran = counted.and_then(|counted| counted.run.stages.get(drawing.stage.index()));
        let operators = ran.map(Operators::of).unwrap_or_default();
        let mut object = planned(drawing, &operators);
        object.extend(ran.map(|stage| ("actual".to_owned(), actual(stage))));
        Value::Object(object)
    };
    let mut tree = Map::new();
    tree.insert("stages".to_owned(), drawings.iter().map(stage).collect());
    tree.extend(counted.map(|counted| ("total".to_owned(), total(counted))));
    Value::Object(tree)
}

fn planned(drawing: &StageDrawing, operators: &Operators) -> Map<String, Value> {
    let operator = |drawn: &tidemill_engine::plan::OperatorDrawing| {
        let mut object = Map::new();
        object.insert("path".to_owned(), json!(drawn.path));
        object.insert("name".to_owned(), json!(drawn.name));
        object.insert("detail".to_owned(), json!(drawn.line));
        if let Some(sum) = operators.get(drawn) {
            object.insert("rows".to_owned(), json!(sum.rows));
            object.insert("compute_seconds".to_owned(), json!(sum.compute_ns as f64 / 1e9));
            object.insert("spilled_bytes".to_owned(), json!(sum.spilled_bytes));
        }
        Value::Object(object)
    };
    let executes = match drawing.shape {
        TaskShape::PerPartition(_) => "one partition",
        TaskShape::Whole(_) => "all partitions",
    };
    let determinism = match drawing.determinism {
        Determinism::Exact => "exact",
        Determinism::ValueIndeterminate => "value-indeterminate",
        Determinism::RowIndeterminate => "row-indeterminate",
    };
    let reads = drawing.reads.iter().map(|read| json!({ "stage": read.stage.0, "kind": read.kind }));
    let fields = [
        ("stage", json!(drawing.stage.0)),
        ("tasks", json!(drawing.shape.tasks())),
        ("task_executes", json!(executes)),
        ("output", json!(drawing.output)),
        ("determinism", json!(determinism)),
        ("reads", reads.collect()),
        ("operators", drawing.operators.iter().map(operator).collect()),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn actual(stage: &Stage) -> Value {
    let sum = |of: fn(&tidemill_core::record::Output) -> u64| outputs(stage).map(of).sum::<u64>();
    let mut took: Vec<u64> = stage.tasks.iter().filter_map(millis).collect();
    took.sort_unstable();
    let at = |index: usize| took.get(index).copied().unwrap_or_default() as f64 / 1e3;
    let repeats = Repeats::of(stage);
    json!({
        "rows_in": sum(|o| o.metrics.rows_in),
        "rows_out": sum(|o| o.footer.rows),
        "bytes_out": sum(|o| o.footer.bytes),
        "remote_bytes": sum(|o| o.metrics.remote_bytes),
        "spilled_bytes": sum(|o| o.metrics.spilled_bytes),
        "task_seconds": took.iter().sum::<u64>() as f64 / 1e3,
        "least_task_seconds": at(0),
        "median_task_seconds": at(took.len() / 2),
        "most_task_seconds": at(took.len().saturating_sub(1)),
        "failed_attempts": repeats.failed,
        "attempts_with_lost_executors": repeats.executors,
        "attempts_with_lost_inputs": repeats.inputs,
        "lost_outputs": repeats.outputs,
        "outputs": outputs(stage).count(),
        "outputs_in_store": outputs(stage).filter(|o| o.durable.is_some()).count(),
    })
}

fn total(counted: &Counted<'_>) -> Value {
    let run = counted.run;
    json!({
        "rows": counted.rows,
        "seconds": counted.now.since(run.submitted_at) as f64 / 1e3,
        "task_seconds": run.totals.task_millis as f64 / 1e3,
        "durable_bytes": run.packs.iter().map(|p| p.bytes).sum::<u64>(),
        "put_requests": run.packs.iter().map(|p| p.puts).sum::<u64>(),
        "get_requests": run.totals.metrics.get_requests,
        "list_requests": run.totals.metrics.list_requests,
        "recoveries": run.totals.recoveries,
    })
}
