//! The eight tables: how many rows and files each has at a scale, and the generator of one file's rows.

use std::cmp::Reverse;

use arrow::record_batch::RecordBatchReader;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow, SupplierArrow,
};

/// The names of the eight TPC-H tables, which are also the names of their folders.
pub const TPCH_TABLES: [&str; 8] =
    ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"];

/// The most files one table is split into.
const MAX_FILES: f64 = 4000.0;

/// A TPC-H table, in the order of [`TPCH_TABLES`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Table {
    Customer,
    LineItem,
    Nation,
    Orders,
    Part,
    PartSupp,
    Region,
    Supplier,
}

impl Table {
    const ALL: [Self; 8] = [
        Self::Customer,
        Self::LineItem,
        Self::Nation,
        Self::Orders,
        Self::Part,
        Self::PartSupp,
        Self::Region,
        Self::Supplier,
    ];

    pub(super) fn name(self) -> &'static str {
        TPCH_TABLES[self as usize]
    }

    /// The number of rows of the whole table: exact but for `lineitem`, where an order has 1 to 7 lines, 4 on average.
    fn rows(self, scale: f64) -> u64 {
        let rows = match self {
            Self::Customer => CustomerGenerator::calculate_row_count(scale, 1, 1),
            Self::LineItem => 4 * OrderGenerator::calculate_row_count(scale, 1, 1),
            Self::Nation => 25,
            Self::Orders => OrderGenerator::calculate_row_count(scale, 1, 1),
            Self::Part => PartGenerator::calculate_row_count(scale, 1, 1),
            Self::PartSupp => 4 * PartGenerator::calculate_row_count(scale, 1, 1),
            Self::Region => 5,
            Self::Supplier => SupplierGenerator::calculate_row_count(scale, 1, 1),
        };
        rows.max(0) as u64
    }

    /// The number of files the table is split into, at least 1. Up to scale 500 no file has more than about 750,000
    /// rows; beyond, the number of files of `lineitem` no longer grows.
    fn files(self, scale: f64) -> i32 {
        let lineitem = file_count(scale * 8.0).max(4);
        let at_least = if scale >= 0.1 { 2 } else { 1 };
        match self {
            Self::LineItem => lineitem,
            Self::Orders => (lineitem + 1) / 2,
            Self::PartSupp => file_count(scale * 2.0).max(at_least),
            Self::Customer | Self::Part => file_count(scale / 2.0).max(at_least),
            Self::Supplier => file_count(scale / 16.0),
            Self::Nation | Self::Region => 1,
        }
    }
}

/// `wanted` rounded up, from 1 to [`MAX_FILES`].
fn file_count(wanted: f64) -> i32 {
    wanted.ceil().clamp(1.0, MAX_FILES) as i32
}

/// One file to write.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) table: Table,
    /// Which of the table's files this is, from 1 to `parts`.
    part: i32,
    /// How many files the table has.
    parts: i32,
    /// About how many rows the file will have.
    pub(super) rows: u64,
}

impl Job {
    /// The file's name in the table's folder, `part-000.parquet` for the first. Names sort in the order of their rows.
    pub(super) fn file_name(&self) -> String {
        let digits = if self.parts > 1000 { 4 } else { 3 };
        format!("part-{:0digits$}.parquet", self.part - 1)
    }

    /// Generates the file's rows, with strings as views and money as `Decimal128(15, 2)`.
    pub(super) fn batches(&self, scale: f64) -> Box<dyn RecordBatchReader> {
        let (part, parts) = (self.part, self.parts);
        match self.table {
            Table::Customer => Box::new(CustomerArrow::new(CustomerGenerator::new(scale, part, parts))),
            Table::LineItem => Box::new(LineItemArrow::new(LineItemGenerator::new(scale, part, parts))),
            Table::Nation => Box::new(NationArrow::new(NationGenerator::new(scale, part, parts))),
            Table::Orders => Box::new(OrderArrow::new(OrderGenerator::new(scale, part, parts))),
            Table::Part => Box::new(PartArrow::new(PartGenerator::new(scale, part, parts))),
            Table::PartSupp => Box::new(PartSuppArrow::new(PartSuppGenerator::new(scale, part, parts))),
            Table::Region => Box::new(RegionArrow::new(RegionGenerator::new(scale, part, parts))),
            Table::Supplier => Box::new(SupplierArrow::new(SupplierGenerator::new(scale, part, parts))),
        }
    }
}

/// Every file of every table at `scale`, those with the most rows first.
pub(super) fn jobs(scale: f64) -> Vec<Job> {
    let mut jobs = Vec::new();
    for table in Table::ALL {
        let parts = table.files(scale);
        let rows = table.rows(scale) / u64::from(parts.unsigned_abs());
        jobs.extend((1..=parts).map(|part| Job { table, part, parts, rows }));
    }
    jobs.sort_by_key(|job| Reverse(job.rows));
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(scale: f64) -> [i32; 8] {
        Table::ALL.map(|table| table.files(scale))
    }

    #[test]
    fn the_number_of_files_grows_with_the_scale() {
        assert_eq!(files(0.001), [1, 4, 1, 2, 1, 1, 1, 1]);
        assert_eq!(files(0.1), [2, 4, 1, 2, 2, 2, 1, 1]);
        assert_eq!(files(1.0), [2, 8, 1, 4, 2, 2, 1, 1]);
        assert_eq!(files(100.0), [50, 800, 1, 400, 50, 200, 1, 7]);
        assert_eq!(files(100_000.0), [4000, 4000, 1, 2000, 4000, 4000, 1, 4000]);
    }

    #[test]
    fn the_biggest_files_come_first_and_names_sort_by_part() {
        let jobs = jobs(1000.0);
        assert!(jobs.is_sorted_by_key(|job| Reverse(job.rows)));
        let mut lineitem = jobs.iter().filter(|job| job.table.name() == "lineitem");
        assert_eq!(lineitem.next().map(Job::file_name).as_deref(), Some("part-0000.parquet"));
        assert_eq!(lineitem.next_back().map(Job::file_name).as_deref(), Some("part-3999.parquet"));
        let region = jobs.iter().find(|job| job.table.name() == "region");
        assert_eq!(region.map(Job::file_name).as_deref(), Some("part-000.parquet"));
    }
}
