//! What an attempt has done so far, for whoever watches its run.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};

use datafusion::physical_plan::ExecutionPlan;
use tidemill_core::record::TaskMetrics;
use tidemill_core::schedule::Flow;
use tidemill_engine::exchange::IoMetrics;

use super::metrics::add_node;

/// An attempt's counters, once it has a plan. Its plan is not kept by them: what operators hold goes when they end.
#[derive(Debug, Default)]
pub(crate) struct SoFar(OnceLock<(Weak<dyn ExecutionPlan>, Arc<IoMetrics>)>);

impl SoFar {
    pub(super) fn begin(&self, plan: &Arc<dyn ExecutionPlan>, io: &Arc<IoMetrics>) {
        // An attempt begins once.
        let _ = self.0.set((Arc::downgrade(plan), Arc::clone(io)));
    }

    /// Rows and bytes until now; `None` before there is a plan, and after it.
    pub(crate) fn flow(&self) -> Option<Flow> {
        let (plan, io) = self.0.get()?;
        let mut metrics = TaskMetrics {
            rows_in: io.rows_in.load(Ordering::Relaxed),
            spilled_bytes: io.spilled_bytes.load(Ordering::Relaxed),
            ..TaskMetrics::default()
        };
        add_node(&plan.upgrade()?, &mut metrics);
        let exchanged_bytes = io.bytes_out.load(Ordering::Relaxed);
        Some(Flow { rows: metrics.rows_in, exchanged_bytes, spilled_bytes: metrics.spilled_bytes })
    }
}
