//! Functions that plans call. A plan names them, so a name must mean here what it means there.

use std::any::Any;
use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{
    AggregateUDF, Expr, LogicalPlan, SimpleAggregateUDF, SimpleScalarUDF, SimpleWindowUDF, WindowFunctionDefinition,
};
use tidemill_core::Error;
use tidemill_engine::codec::logical::{CalledTable, visit_functions};
use tidemill_engine::error::to_datafusion;

/// A table function whose tables remember how they were called: so they travel.
#[derive(Debug)]
pub(super) struct Recorded {
    name: String,
    function: Arc<dyn TableFunctionImpl>,
}

impl Recorded {
    pub(super) const fn new(name: String, function: Arc<dyn TableFunctionImpl>) -> Self {
        Self { name, function }
    }
}

impl TableFunctionImpl for Recorded {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let arguments = args.exprs().to_vec();
        let table = self.function.call_with_args(args)?;
        Ok(Arc::new(CalledTable { function: self.name.clone(), arguments, table }))
    }
}

/// Refuses functions of this session that have the name of another function in `cluster`. Whether those without a
/// namesake are known there, the coordinator says.
pub(super) fn check(plan: &LogicalPlan, cluster: &SessionState) -> Result<()> {
    visit_functions(plan, &mut |expr| {
        let another = match expr {
            Expr::ScalarFunction(f) => {
                let known = cluster.scalar_functions().get(f.func.name());
                known.filter(|known| differ(known.inner().as_ref(), f.func.inner().as_ref())).map(|_| f.func.name())
            }
            Expr::HigherOrderFunction(f) => {
                let known = cluster.higher_order_functions().get(f.func.name());
                known.filter(|known| differ(known.inner().as_ref(), f.func.inner().as_ref())).map(|_| f.func.name())
            }
            Expr::AggregateFunction(f) => other_aggregate(&f.func, cluster),
            Expr::WindowFunction(f) => match &f.fun {
                WindowFunctionDefinition::AggregateUDF(f) => other_aggregate(f, cluster),
                WindowFunctionDefinition::WindowUDF(f) => {
                    let known = cluster.window_functions().get(f.name());
                    known.filter(|known| differ(known.inner().as_ref(), f.inner().as_ref())).map(|_| f.name())
                }
            },
            _ => None,
        };
        match another {
            Some(name) => Err(to_datafusion(Error::invalid(format!(
                "the function `{name}` of this session is not the cluster's of the same name: give it another name and \
                 start the cluster from a binary that has it, see tidemill::Functions"
            )))),
            None => Ok(()),
        }
    })
}

fn other_aggregate<'a>(used: &'a AggregateUDF, cluster: &SessionState) -> Option<&'a str> {
    let known = cluster.aggregate_functions().get(used.name());
    known.filter(|known| differ(known.inner().as_ref(), used.inner().as_ref())).map(|_| used.name())
}

/// Whether two functions of one name are not the same, as far as their types tell. Functions made of closures tell
/// nothing by theirs: they are a user's, who has given them their names.
fn differ(known: &dyn Any, used: &dyn Any) -> bool {
    let is_simple = known.is::<SimpleScalarUDF>() || known.is::<SimpleAggregateUDF>() || known.is::<SimpleWindowUDF>();
    known.type_id() != used.type_id() && !is_simple
}
