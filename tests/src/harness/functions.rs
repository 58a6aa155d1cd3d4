//! Functions that the binary under test has and DataFusion has not: one of each kind.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, ColumnarValue, PartitionEvaluator, ScalarUDF, Volatility, WindowUDF, create_udaf,
    create_udf, create_udwf,
};
use tidemill::{Error, Functions};

/// All of them.
#[must_use]
pub fn functions() -> Functions {
    let scalars = Functions::new().with_scalar(twice()).with_scalar(unsteady()).with_scalar(away());
    scalars.with_aggregate(folded()).with_window(weighed())
}

/// `twice(x)`: 2 x.
#[must_use]
pub fn twice() -> ScalarUDF {
    let twice = |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let numbers = arrays
            .first()
            .map(|array| array.as_primitive::<Int64Type>().clone())
            .unwrap_or_else(|| Int64Array::new_null(0));
        let doubled: Int64Array = numbers.iter().map(|n| n.map(|n| n * 2)).collect();
        Ok(ColumnarValue::Array(Arc::new(doubled)))
    };
    create_udf("twice", vec![DataType::Int64], DataType::Int64, Volatility::Immutable, Arc::new(twice))
}

/// The variable that names a file; as soon as it is there, `unsteady` gives other numbers.
pub const UNSTEADY: &str = "TIDEMILL_TEST_UNSTEADY";

/// `unsteady(x)`: x, or x + 1, see [`UNSTEADY`]. Nobody can tell from the function: it says that it is immutable.
#[must_use]
pub fn unsteady() -> ScalarUDF {
    let unsteady = |arguments: &[ColumnarValue]| {
        let by = i64::from(std::env::var_os(UNSTEADY).is_some_and(|file| Path::new(&file).exists()));
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let numbers = arrays.first().map(|array| array.as_primitive::<Int64Type>().clone());
        let moved: Int64Array = numbers.iter().flatten().map(|n| n.map(|n| n + by)).collect();
        Ok(ColumnarValue::Array(Arc::new(moved)))
    };
    create_udf("unsteady", vec![DataType::Int64], DataType::Int64, Volatility::Immutable, Arc::new(unsteady))
}

/// The variable that names a file; as long as it is there, `away` fails.
pub const AWAY: &str = "TIDEMILL_TEST_AWAY";

/// `away(x)`: x, or the error of a store that does not answer, see [`AWAY`].
#[must_use]
pub fn away() -> ScalarUDF {
    let away = |arguments: &[ColumnarValue]| {
        if std::env::var_os(AWAY).is_some_and(|file| Path::new(&file).exists()) {
            return Err(DataFusionError::External(Box::new(Error::unavailable("the store does not answer"))));
        }
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        Ok(arrays
            .into_iter()
            .next()
            .map_or_else(|| ColumnarValue::Scalar(ScalarValue::Int64(None)), ColumnarValue::Array))
    };
    create_udf("away", vec![DataType::Int64], DataType::Int64, Volatility::Volatile, Arc::new(away))
}

/// `folded(x)`: all numbers XORed.
#[must_use]
pub fn folded() -> AggregateUDF {
    let int = || Arc::new(DataType::Int64);
    let accumulator =
        Arc::new(|_: AccumulatorArgs<'_>| -> Result<Box<dyn Accumulator>> { Ok(Box::new(Folded::default())) });
    let state = Arc::new(vec![DataType::Int64]);
    create_udaf("folded", vec![DataType::Int64], int(), Volatility::Immutable, accumulator, state)
}

/// `weighed(x) OVER …`: each number times its place in its partition.
#[must_use]
pub fn weighed() -> WindowUDF {
    let evaluator = Arc::new(|| -> Result<Box<dyn PartitionEvaluator>> { Ok(Box::new(Weighed)) });
    create_udwf("weighed", DataType::Int64, Arc::new(DataType::Int64), Volatility::Immutable, evaluator)
}

#[derive(Debug, Default)]
struct Folded(i64);

impl Accumulator for Folded {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for array in values {
            self.0 = array.as_primitive::<Int64Type>().iter().flatten().fold(self.0, |folded, n| folded ^ n);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64(Some(self.0)))
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }
}

#[derive(Debug)]
struct Weighed;

impl PartitionEvaluator for Weighed {
    fn evaluate_all(&mut self, values: &[ArrayRef], num_rows: usize) -> Result<ArrayRef> {
        let Some(numbers) = values.first().and_then(|array| array.as_primitive_opt::<Int64Type>()) else {
            return Ok(Arc::new(Int64Array::new_null(num_rows)));
        };
        let weighed: Int64Array = numbers.iter().zip(1..).map(|(n, place)| n.map(|n| n * place)).collect();
        Ok(Arc::new(weighed))
    }
}
