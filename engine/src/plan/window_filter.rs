//! `FILTER` of a window function becomes a `CASE` in its argument, because the physical plan neither encodes nor shows it.
//!
//! ```text
//! Window: sum(x) FILTER (WHERE c) OVER w        Projection: …, sum(CASE WHEN c THEN x END) OVER w AS "sum(x) FILTER …"
//!   input                                   →     Window: sum(CASE WHEN c THEN x END) OVER w
//!                                                   input
//! ```
//!
//! Right for aggregates that skip nulls; others are refused. Rule 15.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, Window, when};
use datafusion::optimizer::AnalyzerRule;

/// Aggregates that see no difference between a null and no row.
const SKIP_NULLS: &[&str] = &[
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "max",
    "median",
    "min",
    "percentile_cont",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "string_agg",
    "sum",
    "var",
    "var_pop",
];

/// Takes filters out of window functions.
#[derive(Debug)]
pub struct WindowFilters;

impl AnalyzerRule for WindowFilters {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Window(window) if window.window_expr.iter().any(has_filter) => {
                Ok(Transformed::yes(without_filters(window)?))
            }
            other => Ok(Transformed::no(other)),
        })
        .map(|t| t.data)
    }

    fn name(&self) -> &'static str {
        "window_filters"
    }
}

fn has_filter(expr: &Expr) -> bool {
    expr.exists(|e| Ok(matches!(e, Expr::WindowFunction(f) if f.params.filter.is_some()))).unwrap_or(true)
}

fn without_filters(window: Window) -> Result<LogicalPlan> {
    let before = Arc::clone(&window.schema);
    let functions = window.window_expr.into_iter().map(|expr| {
        let moved = expr.transform(|e| match e {
            Expr::WindowFunction(f) if f.params.filter.is_some() => Ok(Transformed::yes(Expr::from(filter_moved(*f)?))),
            other => Ok(Transformed::no(other)),
        });
        moved.map(|t| t.data)
    });
    let window = Window::try_new(functions.collect::<Result<_>>()?, window.input)?;
    let columns = before.iter().zip(window.schema.iter()).map(|((qualifier, field), (moved_qualifier, moved))| {
        let column = Expr::Column(Column::new(moved_qualifier.cloned(), moved.name()));
        match moved.name() == field.name() {
            true => column,
            false => column.alias_qualified(qualifier.cloned(), field.name()),
        }
    });
    let columns = columns.collect();
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(LogicalPlan::Window(window)))?))
}

fn filter_moved(mut function: WindowFunction) -> Result<WindowFunction> {
    let name = function.fun.name().to_owned();
    let Some(filter) = function.params.filter.take() else { return Ok(function) };
    let Some(argument) = function.params.args.first_mut().filter(|_| SKIP_NULLS.contains(&name.as_str())) else {
        return plan_err!(
            "{name}(…) FILTER (WHERE …) OVER (…) is not supported: write {name}(CASE WHEN … THEN … END) OVER (…)"
        );
    };
    *argument = when(*filter, argument.clone()).end()?;
    Ok(function)
}
