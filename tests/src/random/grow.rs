//! Trees from seeds.

use fastrand::Rng;

use super::Relation;
use super::relation::{Predicate, Scalar};

const COMPARISONS: &[&str] = &["=", "<>", "<", "<=", ">", ">="];
const JOINS: &[&str] = &["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "LEFT SEMI JOIN", "LEFT ANTI JOIN"];
const AGGREGATES: &[&str] =
    &["count(*)", "count(?)", "sum(?)", "min(?)", "max(?)", "count(DISTINCT ?)", "sum(?) FILTER (WHERE ? > 1)"];
const SETS: &[&str] = &["UNION ALL", "UNION ALL", "UNION", "INTERSECT", "EXCEPT"];
const WINDOWS: &[&str] = &[
    "row_number()",
    "rank()",
    "sum(?)",
    "count(*)",
    "max(?)",
    "lag(?)",
    "lead(?, 2)",
    "first_value(?)",
    "last_value(?)",
];
const FRAMES: &[&str] = &[
    "",
    "",
    "ROWS BETWEEN 2 PRECEDING AND CURRENT ROW",
    "ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
    "ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
];
const TESTS: &[&str] = &["IN", "NOT IN", "EXISTS", "NOT EXISTS"];

/// The query of a seed.
#[must_use]
pub fn grow(seed: u64) -> Relation {
    let mut rng = Rng::with_seed(seed);
    let depth = rng.usize(1..6);
    relation(&mut rng, depth)
}

fn pick(rng: &mut Rng, from: &[&'static str]) -> &'static str {
    from[rng.usize(0..from.len())]
}

fn relation(rng: &mut Rng, depth: usize) -> Relation {
    if depth == 0 {
        return Relation::Table(rng.usize(0..4));
    }
    let input = |rng: &mut Rng| Box::new(relation(rng, depth - 1));
    let side = |rng: &mut Rng| {
        let depth = rng.usize(0..depth);
        Box::new(relation(rng, depth))
    };
    let column = |rng: &mut Rng| rng.usize(0..8);
    match rng.u8(0..12) {
        0 | 1 => Relation::Filter(input(rng), predicate(rng, 2)),
        2 => Relation::Project(input(rng), (0..rng.usize(1..4)).map(|_| scalar(rng)).collect()),
        3..=5 => Relation::Join {
            left: input(rng),
            right: side(rng),
            kind: pick(rng, JOINS),
            keys: (column(rng), column(rng)),
            more: (rng.u8(0..4) == 0).then(|| (column(rng), column(rng))),
        },
        6 | 7 => Relation::Aggregate {
            input: input(rng),
            keys: (0..rng.usize(0..3)).map(|_| column(rng)).collect(),
            calls: (0..rng.usize(1..4)).map(|_| (pick(rng, AGGREGATES), column(rng))).collect(),
        },
        8 => match rng.bool() {
            true => Relation::Distinct(input(rng)),
            false => Relation::Set { left: input(rng), right: side(rng), operator: pick(rng, SETS) },
        },
        9 => {
            Relation::Limit { input: input(rng), first: column(rng), limit: rng.usize(0..50), offset: rng.usize(0..5) }
        }
        10 => Relation::Window {
            input: input(rng),
            call: pick(rng, WINDOWS),
            argument: column(rng),
            partition: column(rng),
            frame: pick(rng, FRAMES),
        },
        _ => match rng.bool() {
            true => Relation::Member {
                input: input(rng),
                of: side(rng),
                columns: (column(rng), column(rng)),
                test: pick(rng, TESTS),
            },
            false => Relation::Compared {
                input: input(rng),
                with: side(rng),
                column: column(rng),
                call: pick(rng, &["min(?)", "max(?)", "count(?)", "avg(?)"]),
            },
        },
    }
}

fn predicate(rng: &mut Rng, depth: usize) -> Predicate {
    let column = |rng: &mut Rng| rng.usize(0..8);
    let inner = |rng: &mut Rng| Box::new(predicate(rng, depth - 1));
    match rng.u8(0..if depth == 0 { 5 } else { 8 }) {
        0..=2 => Predicate::Number(column(rng), pick(rng, COMPARISONS), rng.i64(-1..12)),
        3 => Predicate::Columns(column(rng), pick(rng, COMPARISONS), column(rng)),
        4 => Predicate::Null(column(rng)),
        5 => Predicate::Not(inner(rng)),
        6 => Predicate::Both(inner(rng), inner(rng)),
        _ => Predicate::Either(inner(rng), inner(rng)),
    }
}

fn scalar(rng: &mut Rng) -> Scalar {
    let column = |rng: &mut Rng| rng.usize(0..8);
    match rng.u8(0..7) {
        0 | 1 => Scalar::Column(column(rng)),
        2 => Scalar::Sum(column(rng), column(rng)),
        3 => Scalar::Remainder(column(rng), rng.i64(2..9)),
        4 => Scalar::Text(column(rng)),
        5 => Scalar::Case(predicate(rng, 1), column(rng), column(rng)),
        _ => Scalar::Coalesce(column(rng), rng.i64(0..5)),
    }
}
