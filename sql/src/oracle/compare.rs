//! Exact comparison: rows as a multiset, and the columns of ORDER BY in their order.

use std::fmt;

use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidemill_core::{Error, Result};

use super::Answer;

/// Rows that a difference shows of each side.
const SHOWN: usize = 3;

/// How two answers differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference(String);

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `None` if `ours` is the oracle's answer: the same rows, in the statement's order where it gives one.
///
/// # Errors
/// A value cannot be shown.
pub fn compare(expected: &Answer, ours: &[RecordBatch]) -> Result<Option<Difference>> {
    let types = |batches: &[RecordBatch]| {
        batches.first().map(|b| b.schema().fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>())
    };
    if let (Some(expected), Some(ours)) = (types(&expected.batches), types(ours))
        && expected != ours
    {
        return Ok(Some(Difference(format!("columns are {ours:?}, expected {expected:?}"))));
    }
    let (mut theirs, mut mine) = (rows(&expected.batches)?, rows(ours)?);
    if theirs.len() != mine.len() {
        return Ok(Some(Difference(format!("{} rows, expected {}", mine.len(), theirs.len()))));
    }
    let key = |row: &[String]| expected.order.iter().map(|c| row.get(*c).cloned()).collect::<Vec<_>>();
    if let Some(at) = (0..mine.len()).find(|i| mine.get(*i).map(|r| key(r)) != theirs.get(*i).map(|r| key(r))) {
        return Ok(Some(Difference(format!("row {at} is {:?}, expected {:?}", mine.get(at), theirs.get(at)))));
    }
    theirs.sort();
    mine.sort();
    if theirs == mine {
        return Ok(None);
    }
    let only = |a: &[Vec<String>], b: &[Vec<String>]| {
        a.iter().filter(|r| b.binary_search(r).is_err()).take(SHOWN).cloned().collect::<Vec<_>>()
    };
    let text = format!("only ours: {:?}; only expected: {:?}", only(&mine, &theirs), only(&theirs, &mine));
    Ok(Some(Difference(text)))
}

fn rows(batches: &[RecordBatch]) -> Result<Vec<Vec<String>>> {
    let unshown = |e| Error::invalid(format!("a value cannot be shown: {e}"));
    let options = FormatOptions::default().with_null("NULL").with_display_error(false);
    let mut rows = Vec::new();
    for batch in batches {
        let columns = batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options));
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(unshown)?;
        for row in 0..batch.num_rows() {
            let values = columns.iter().map(|c| c.value(row).try_to_string());
            rows.push(values.collect::<Result<Vec<_>, _>>().map_err(unshown)?);
        }
    }
    Ok(rows)
}
