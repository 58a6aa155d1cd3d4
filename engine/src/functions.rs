//! Functions that are compiled into a user's own binary: the same in the planner, the coordinator and every executor.
//!
//! Plans name functions; they never carry them. So each process has a registry, made of DataFusion's functions and these.
//!
//! Invariant: no function takes the name of another, so a name means the same wherever it is read.

use std::sync::Arc;

use datafusion::execution::registry::FunctionRegistry;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};
use tidemill_core::{Error, Result};

use crate::error::from_datafusion;

/// A user's functions, beside DataFusion's own.
#[derive(Debug, Clone, Default)]
pub struct Functions {
    scalar: Vec<Arc<ScalarUDF>>,
    aggregate: Vec<Arc<AggregateUDF>>,
    window: Vec<Arc<WindowUDF>>,
}

impl Functions {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a function of one row.
    #[must_use]
    pub fn with_scalar(mut self, function: ScalarUDF) -> Self {
        self.scalar.push(Arc::new(function));
        self
    }

    /// Adds an aggregate function.
    #[must_use]
    pub fn with_aggregate(mut self, function: AggregateUDF) -> Self {
        self.aggregate.push(Arc::new(function));
        self
    }

    /// Adds a window function.
    #[must_use]
    pub fn with_window(mut self, function: WindowUDF) -> Self {
        self.window.push(Arc::new(function));
        self
    }

    /// Makes them known to a session, beside what it knows already.
    ///
    /// # Errors
    /// A function has the name of one that is known.
    pub fn register(&self, state: &mut SessionState) -> Result<()> {
        for function in &self.scalar {
            let taken = |name: &str| state.scalar_functions().contains_key(name);
            check_free(function.name(), function.aliases(), taken)?;
            state.register_udf(Arc::clone(function)).map_err(|e| from_datafusion(&e))?;
        }
        for function in &self.aggregate {
            let taken = |name: &str| state.aggregate_functions().contains_key(name);
            check_free(function.name(), function.aliases(), taken)?;
            state.register_udaf(Arc::clone(function)).map_err(|e| from_datafusion(&e))?;
        }
        for function in &self.window {
            let taken = |name: &str| state.window_functions().contains_key(name);
            check_free(function.name(), function.aliases(), taken)?;
            state.register_udwf(Arc::clone(function)).map_err(|e| from_datafusion(&e))?;
        }
        Ok(())
    }

    /// What a process of the cluster knows: DataFusion's functions and these.
    ///
    /// # Errors
    /// See [`Self::register`].
    pub fn registry(&self) -> Result<SessionState> {
        let mut state = SessionStateBuilder::new().with_default_features().build();
        self.register(&mut state)?;
        Ok(state)
    }
}

fn check_free(name: &str, aliases: &[String], taken: impl Fn(&str) -> bool) -> Result<()> {
    let names = std::iter::once(name).chain(aliases.iter().map(String::as_str));
    match names.into_iter().find(|name| taken(name)) {
        Some(name) => Err(Error::invalid(format!(
            "a function `{name}` exists already, and plans tell functions apart by name: give yours another one"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::DataType;
    use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

    use super::Functions;

    fn named(name: &str) -> ScalarUDF {
        let first = |arguments: &[ColumnarValue]| Ok(arguments[0].clone());
        create_udf(name, vec![DataType::Int64], DataType::Int64, Volatility::Immutable, Arc::new(first))
    }

    #[test]
    fn no_function_takes_anothers_name() {
        assert!(Functions::new().with_scalar(named("mine")).registry().is_ok());
        for functions in [
            Functions::new().with_scalar(named("abs")),
            Functions::new().with_scalar(named("a")).with_scalar(named("a")),
        ] {
            let refused = functions.registry().err().map(|e| e.message).unwrap_or_default();
            assert!(refused.contains("exists already"), "{refused}");
        }
    }
}
