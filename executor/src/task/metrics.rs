//! What a finished attempt cost, from its plan's metrics and its exchanges'.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::MetricValue;
use tidemill_core::record::TaskMetrics;
use tidemill_engine::connector::ConnectorScanExec;
use tidemill_engine::exchange::IoMetrics;

use crate::packer::Finished;

/// Sums the plan's metrics; called when its streams are drained.
pub(super) fn collect(plan: &Arc<dyn ExecutionPlan>, io: &IoMetrics, finished: &Finished) -> TaskMetrics {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let mut metrics = TaskMetrics {
        rows_in: load(&io.rows_in),
        rows_scanned: 0,
        rows_out: load(&io.rows_out),
        bytes_out: load(&io.bytes_out),
        remote_bytes: load(&io.remote_bytes),
        spilled_bytes: load(&io.spilled_bytes) + finished.written.spilled,
        encoded_bytes: finished.written.encoded,
        scan_ns: 0,
        operator_ns: 0,
        encode_ns: load(&io.encode_ns),
        exchange_ns: load(&io.exchange_ns),
        wait_ns: load(&io.wait_ns),
        get_requests: load(&io.get_requests),
        list_requests: load(&io.list_requests),
        left_out_bytes: finished.choice.map_or(0, |choice| choice.left_out_bytes),
        make_ns: finished.choice.map_or(0, |choice| nanos(choice.made_in)),
        store_ns: finished.choice.map_or(0, |choice| nanos(choice.stored_in)),
    };
    add_node(plan, &mut metrics);
    metrics
}

/// Adds what a node and those below it have counted so far.
pub(super) fn add_node(plan: &Arc<dyn ExecutionPlan>, total: &mut TaskMetrics) {
    if let Some(metrics) = plan.metrics() {
        let compute = metrics.elapsed_compute().unwrap_or(0) as u64;
        total.spilled_bytes += metrics.spilled_bytes().unwrap_or(0) as u64;
        if plan.is::<DataSourceExec>() || plan.is::<ConnectorScanExec>() {
            let scanned = metrics.output_rows().unwrap_or(0) as u64;
            total.rows_in += scanned;
            total.rows_scanned += scanned;
            let scanning = metrics
                .sum(|m| matches!(m.value(), MetricValue::Time { name, .. } if name == "time_elapsed_processing"));
            total.scan_ns += scanning.map_or(compute, |v| v.as_usize() as u64);
        } else {
            total.operator_ns += compute;
        }
    }
    for child in plan.children() {
        add_node(child, total);
    }
}
