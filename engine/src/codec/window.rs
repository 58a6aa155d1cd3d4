//! Windows, with what DataFusion's encoding of their functions loses: `IGNORE NULLS`, and that a function runs over
//! reversed input because another window's order is its own backwards. (`FILTER`, which is lost too and cannot be read
//! from the plan, is gone before: see `plan::WindowFilters`.)
//!
//! Without these a window decodes and gives wrong rows. Rule 15.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::internal_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::ReversedUDWF;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::window::{
    PlainAggregateWindowExpr, SlidingAggregateWindowExpr, StandardWindowExpr, WindowExpr,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec, WindowUDFExpr, create_udwf_window_expr};
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf::PhysicalPlanNode;
use prost::Message;

use super::converter::StageConverter;
use crate::wire;

/// The functions of a window node; `None` for other nodes.
pub(crate) fn window_exprs(plan: &Arc<dyn ExecutionPlan>) -> Option<&[Arc<dyn WindowExpr>]> {
    let bounded = plan.downcast_ref::<BoundedWindowAggExec>().map(BoundedWindowAggExec::window_expr);
    bounded.or_else(|| plan.downcast_ref::<WindowAggExec>().map(WindowAggExec::window_expr))
}

/// What a window function does, as text: equal for functions that give the same rows.
pub(crate) fn signature(function: &Arc<dyn WindowExpr>) -> String {
    let keys = format!("{:?} {:?} {:?}", function.partition_by(), function.order_by(), function.get_window_frame());
    match (aggregate(function), window_function(function)) {
        (Some(aggregate), _) => {
            let flags = [aggregate.is_distinct(), aggregate.ignore_nulls(), aggregate.is_reversed()];
            // The filter is the last that is shown.
            let is_filtered = !format!("{function:?}").ends_with("filter: None }");
            let (name, arguments) = (aggregate.fun().name(), aggregate.expressions());
            format!("{name} {arguments:?} {flags:?} {is_filtered} {keys}")
        }
        (None, Some(window)) => format!("{} {:?} {:?} {keys}", window.fun().name(), window.args(), flags(function)),
        (None, None) => format!("{function:?}"),
    }
}

/// Encodes a window whose functions the stock encoding would change; `None` for other nodes.
pub(super) fn encode(
    plan: &Arc<dyn ExecutionPlan>,
    codec: &dyn PhysicalExtensionCodec,
    converter: &StageConverter<'_>,
) -> Result<Option<wire::WindowNode>> {
    let Some(functions) = window_exprs(plan) else { return Ok(None) };
    let options = functions.iter().map(|function| {
        let (is_reversed, ignore_nulls) = flags(function)?;
        Ok(wire::WindowOptions { is_reversed, ignore_nulls })
    });
    let options = options.collect::<Result<Vec<_>>>()?;
    if options.iter().all(|o| *o == wire::WindowOptions::default()) {
        return Ok(None);
    }
    Ok(Some(wire::WindowNode { plan: converter.stock(plan, codec)?.encode_to_vec(), options }))
}

fn aggregate(function: &Arc<dyn WindowExpr>) -> Option<&AggregateFunctionExpr> {
    let any = function.as_any();
    let plain = any.downcast_ref::<PlainAggregateWindowExpr>().map(PlainAggregateWindowExpr::get_aggregate_expr);
    plain.or_else(|| {
        any.downcast_ref::<SlidingAggregateWindowExpr>().map(SlidingAggregateWindowExpr::get_aggregate_expr)
    })
}

fn window_function(function: &Arc<dyn WindowExpr>) -> Option<&WindowUDFExpr> {
    let standard = function.as_any().downcast_ref::<StandardWindowExpr>()?;
    standard.get_standard_func_expr().as_any().downcast_ref()
}

/// Whether a function runs reversed, and whether it skips nulls in a way that the stock encoding loses.
fn flags(function: &Arc<dyn WindowExpr>) -> Result<(bool, bool)> {
    if let Some(aggregate) = aggregate(function) {
        return Ok((aggregate.is_reversed(), false));
    }
    let Some(function) = window_function(function) else {
        return internal_err!("rule 15: the window function {} has no encoding", function.name());
    };
    // DataFusion shows both only in its debug output. Were that to change, decoding would find another function.
    let shown = format!("{function:?}");
    let is_set = |flag: &str| shown.rsplit(&format!("{flag}: ")).next().is_some_and(|rest| rest.starts_with("true"));
    Ok((is_set("is_reversed"), is_set("ignore_nulls")))
}

/// Decodes a window with the options of its functions.
pub(super) fn decode(
    node: &wire::WindowNode,
    task: &TaskContext,
    codec: &dyn PhysicalExtensionCodec,
    converter: &dyn PhysicalProtoConverterExtension,
) -> Result<Arc<dyn ExecutionPlan>> {
    let inner = PhysicalPlanNode::decode(node.plan.as_slice()).map_err(|e| DataFusionError::External(Box::new(e)))?;
    let context = PhysicalPlanDecodeContext::new(task, codec);
    let plan = converter.proto_to_execution_plan(&inner, &context)?;
    let (Some(functions), [input]) = (window_exprs(&plan), &plan.children()[..]) else {
        return internal_err!("a window decoded as {}", plan.name());
    };
    let schema = input.schema();
    let restored = functions.iter().zip(&node.options).map(|(function, options)| restore(function, options, &schema));
    let restored = restored.collect::<Result<Vec<_>>>()?;
    let input = Arc::clone(input);
    match plan.downcast_ref::<BoundedWindowAggExec>() {
        Some(window) => {
            let can_repartition = !window.partition_keys().is_empty();
            let mode = window.input_order_mode.clone();
            Ok(Arc::new(BoundedWindowAggExec::try_new(restored, input, mode, can_repartition)?))
        }
        None => {
            let keys = plan.downcast_ref::<WindowAggExec>().map(WindowAggExec::partition_keys);
            Ok(Arc::new(WindowAggExec::try_new(restored, input, keys.is_some_and(|k| !k.is_empty()))?))
        }
    }
}

fn restore(
    function: &Arc<dyn WindowExpr>,
    options: &wire::WindowOptions,
    schema: &SchemaRef,
) -> Result<Arc<dyn WindowExpr>> {
    let (partition_by, order_by) = (function.partition_by(), function.order_by());
    let frame = Arc::clone(function.get_window_frame());
    if let Some(aggregate) = aggregate(function) {
        let rebuilt = AggregateExprBuilder::new(Arc::new(aggregate.fun().clone()), aggregate.expressions())
            .schema(Arc::clone(schema))
            .alias(aggregate.name())
            .with_ignore_nulls(aggregate.ignore_nulls())
            .with_distinct(aggregate.is_distinct())
            .with_reversed(options.is_reversed)
            .build()?;
        let rebuilt = Arc::new(rebuilt);
        return Ok(match frame.is_ever_expanding() {
            true => Arc::new(PlainAggregateWindowExpr::new(rebuilt, partition_by, order_by, frame, None)),
            false => Arc::new(SlidingAggregateWindowExpr::new(rebuilt, partition_by, order_by, frame, None)),
        });
    }
    let Some(window) = window_function(function) else {
        return internal_err!("a window function decoded as {}", function.name());
    };
    let (name, ignore_nulls) = (function.name().to_owned(), options.ignore_nulls);
    let rebuilt = match (options.is_reversed, window.fun().reverse_expr()) {
        (false, _) => Some(create_udwf_window_expr(window.fun(), window.args(), schema, name, ignore_nulls)?),
        // The reverse of its reverse is the function itself, marked as reversed.
        (true, ReversedUDWF::Reversed(reverse)) => {
            create_udwf_window_expr(&reverse, window.args(), schema, name, ignore_nulls)?.reverse_expr()
        }
        (true, _) => None,
    };
    match rebuilt {
        Some(rebuilt) => Ok(Arc::new(StandardWindowExpr::new(rebuilt, partition_by, order_by, frame))),
        None => internal_err!("rule 15: the window function {} cannot run reversed", function.name()),
    }
}
