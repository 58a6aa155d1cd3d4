//! What rows are, in any order: so that a repeated task can be compared with its first attempt.

use arrow::array::ArrayRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::error::Result;

use super::BlockFooter;

/// The same in every process of a build.
const SEED: u64 = 0x7469_6465;

impl BlockFooter {
    /// Adds the rows of a batch, as far as these columns go.
    ///
    /// # Errors
    /// A column's type has no hash.
    pub fn add_rows(&mut self, batch: &RecordBatch, columns: &[u32]) -> Result<()> {
        let columns: Vec<ArrayRef> =
            columns.iter().filter_map(|column| batch.columns().get(*column as usize)).cloned().collect();
        let mut hashes = vec![0; batch.num_rows()];
        create_hashes(&columns, &RandomState::with_seed(SEED), &mut hashes)?;
        for hash in hashes {
            self.xor ^= hash;
            self.sum = self.sum.wrapping_add(hash);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, RecordBatch, StringViewArray};
    use arrow::error::ArrowError;

    use super::BlockFooter;

    fn batch(rows: &[(Option<i64>, &str, f64)]) -> Result<RecordBatch, ArrowError> {
        let keys: Int64Array = rows.iter().map(|row| row.0).collect();
        let names: StringViewArray = rows.iter().map(|row| Some(row.1)).collect();
        let sums: Float64Array = rows.iter().map(|row| Some(row.2)).collect();
        RecordBatch::try_from_iter([
            ("k", Arc::new(keys) as _),
            ("s", Arc::new(names) as _),
            ("x", Arc::new(sums) as _),
        ])
    }

    fn sum(batches: &[RecordBatch], columns: &[u32]) -> datafusion::error::Result<(u64, u64)> {
        let mut footer = BlockFooter::default();
        for batch in batches {
            footer.add_rows(batch, columns)?;
        }
        Ok((footer.xor, footer.sum))
    }

    #[test]
    fn rows_count_in_any_order_and_division_and_only_their_exact_columns() -> datafusion::error::Result<()> {
        let rows = [(Some(1), "a", 0.1), (None, "b", 0.2), (Some(3), "a long string that is not inlined", 0.3)];
        let mut turned = rows;
        turned.reverse();
        let mut rounded = rows;
        rounded[2].2 = 0.1 + 0.2;
        let whole = sum(&[batch(&rows)?], &[0, 1])?;
        assert_eq!(whole, sum(&[batch(&turned)?], &[0, 1])?);
        assert_eq!(whole, sum(&[batch(&rows[..1])?, batch(&rows[1..])?], &[0, 1])?);
        assert_eq!(whole, sum(&[batch(&rounded)?], &[0, 1])?);
        assert_ne!(sum(&[batch(&rows)?], &[0, 1, 2])?, sum(&[batch(&rounded)?], &[0, 1, 2])?);
        assert_ne!(whole, sum(&[batch(&rows[..2])?], &[0, 1])?);
        let mut other = rows;
        other[1].1 = "c";
        assert_ne!(whole, sum(&[batch(&other)?], &[0, 1])?);
        // Twice the same row cancels in an XOR, and not in a sum.
        let doubled = [rows.as_slice(), &rows[..1], &rows[..1]].concat();
        assert_ne!(whole, sum(&[batch(&doubled)?], &[0, 1])?);
        Ok(())
    }
}
