//! Which filters a database may apply in our stead: those that mean the same there.
//!
//! Databases compare texts by collation, round numbers to other widths and read `\` differently. A filter that keeps too many
//! rows there is asked for, and applied again here; one that might keep too few is not asked for.

use arrow::datatypes::DataType;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Like, Operator, TableProviderFilterPushDown};
use tidemill_engine::connector::ConnectorKind;

use super::columns::{Declared, Passage};

/// Values of a list that are asked for.
const MAX_LIST: usize = 1_000;
/// Dates that every database writes alike: from the year 1 to 9999, in days since 1970.
const DAYS: std::ops::RangeInclusive<i32> = -719_162..=2_932_896;
/// Microseconds of a day.
const DAY_MICROS: i64 = 86_400_000_000;

/// Which rows a filter keeps there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// Perhaps too few.
    No,
    /// All that it should, and perhaps others.
    Superset,
    /// Those that it should.
    Exact,
}

impl From<Fit> for TableProviderFilterPushDown {
    fn from(fit: Fit) -> Self {
        match fit {
            Fit::No => Self::Unsupported,
            Fit::Superset => Self::Inexact,
            Fit::Exact => Self::Exact,
        }
    }
}

/// The columns of a table, for its filters.
#[derive(Debug)]
pub(super) struct Judge<'a, F: Fn(&str) -> Option<(Declared, &'a str)>> {
    pub(super) kind: ConnectorKind,
    /// A column's type here and there.
    pub(super) column: F,
}

impl<'a, F: Fn(&str) -> Option<(Declared, &'a str)>> Judge<'a, F> {
    /// Which rows `filter` keeps there.
    pub(super) fn fit(&self, filter: &Expr) -> Fit {
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
                self.fit(left).min(self.fit(right))
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (left.as_ref(), right.as_ref()) {
                (Expr::Column(column), Expr::Literal(value, _)) => self.compares(column, *op, value),
                (Expr::Literal(value, _), Expr::Column(column)) => {
                    op.swap().map_or(Fit::No, |op| self.compares(column, op, value))
                }
                _ => Fit::No,
            },
            Expr::Not(inner) => negated(self.fit(inner)),
            Expr::IsNull(inner) | Expr::IsNotNull(inner) => match inner.as_ref() {
                // MySQL takes the date 0000-00-00 for null.
                Expr::Column(column) if self.kind == ConnectorKind::Mysql => match self.declared(column) {
                    Some((declared, _)) if !declared.data_type.is_temporal() => Fit::Exact,
                    _ => Fit::No,
                },
                Expr::Column(column) if self.declared(column).is_some() => Fit::Exact,
                _ => Fit::No,
            },
            Expr::Column(column) => match self.declared(column) {
                Some((declared, _))
                    if self.kind == ConnectorKind::Postgres && declared.data_type == DataType::Boolean =>
                {
                    Fit::Exact
                }
                _ => Fit::No,
            },
            Expr::Between(between) => self.between(between),
            Expr::InList(list) => self.in_list(list),
            Expr::Like(like) => self.like(like),
            _ => Fit::No,
        }
    }

    fn declared(&self, column: &Column) -> Option<(Declared, &'a str)> {
        (self.column)(&column.name)
    }

    fn between(&self, between: &Between) -> Fit {
        let (Expr::Column(column), Expr::Literal(low, _), Expr::Literal(high, _)) =
            (between.expr.as_ref(), between.low.as_ref(), between.high.as_ref())
        else {
            return Fit::No;
        };
        let fit = self.compares(column, Operator::GtEq, low).min(self.compares(column, Operator::LtEq, high));
        if between.negated { negated(fit) } else { fit }
    }

    fn in_list(&self, list: &InList) -> Fit {
        let Expr::Column(column) = list.expr.as_ref() else { return Fit::No };
        if list.list.len() > MAX_LIST {
            return Fit::No;
        }
        let fits = list.list.iter().map(|value| match value {
            Expr::Literal(value, _) => self.compares(column, Operator::Eq, value),
            _ => Fit::No,
        });
        let fit = fits.min().unwrap_or(Fit::No);
        if list.negated { negated(fit) } else { fit }
    }

    /// A pattern that says how a text begins. Elsewhere in a pattern, spaces at the end of a text count in some databases.
    fn like(&self, like: &Like) -> Fit {
        let (Expr::Column(column), Expr::Literal(pattern, _)) = (like.expr.as_ref(), like.pattern.as_ref()) else {
            return Fit::No;
        };
        let beginning = pattern.try_as_str().flatten().and_then(|pattern| pattern.strip_suffix('%'));
        let is_plain = beginning.is_some_and(|text| !text.contains(['%', '_']) && self.is_plain(text));
        match self.declared(column) {
            Some((_, source))
                if is_plain
                    && self.is_text(source)
                    && !like.negated
                    && !like.case_insensitive
                    && like.escape_char.is_none() =>
            {
                Fit::Superset
            }
            _ => Fit::No,
        }
    }

    fn compares(&self, column: &Column, operator: Operator, value: &ScalarValue) -> Fit {
        let orders = matches!(operator, Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq);
        let equals = matches!(operator, Operator::Eq | Operator::NotEq);
        let Some((declared, source)) = self.declared(column).filter(|_| (orders || equals) && !value.is_null()) else {
            return Fit::No;
        };
        if let Some(text) = value.try_as_str().flatten() {
            let is_asked = operator == Operator::Eq && self.is_text(source) && self.is_plain(text);
            return if is_asked && declared.data_type == DataType::Utf8 { Fit::Superset } else { Fit::No };
        }
        // A literal of another width would be compared after other conversions.
        if value.data_type() != declared.data_type || !declared.is_exact() {
            return Fit::No;
        }
        let is_sqlite = self.kind == ConnectorKind::Sqlite;
        let is_exact = match value {
            ScalarValue::Float64(Some(number)) => number.is_finite(),
            ScalarValue::Decimal128(..) => !is_sqlite,
            ScalarValue::Date32(Some(days)) => !is_sqlite && DAYS.contains(days),
            ScalarValue::TimestampMicrosecond(Some(micros), _) => !is_sqlite && self.writes(*micros),
            ScalarValue::Boolean(_) => self.kind == ConnectorKind::Postgres && equals,
            // MySQL's years of two digits are of this century or the last.
            number => {
                number.data_type().is_integer() && declared.passage == Passage::Plain && !source.starts_with("year")
            }
        };
        if is_exact { Fit::Exact } else { Fit::No }
    }

    /// Whether a moment can be written so that it is not rounded.
    fn writes(&self, micros: i64) -> bool {
        let day = i32::try_from(micros.div_euclid(DAY_MICROS)).is_ok_and(|day| DAYS.contains(&day));
        // A cast to DATETIME drops parts of seconds.
        day && (self.kind == ConnectorKind::Postgres || micros.rem_euclid(1_000_000) == 0)
    }

    /// Whether a text means the same inside quotes everywhere. The crate's MySQL takes every `"` out of a query.
    fn is_plain(&self, text: &str) -> bool {
        !text.contains(['\\', '\0', '"'])
    }

    /// Whether a column there is of a type of text that compares with any other text.
    fn is_text(&self, source: &str) -> bool {
        let base = source.split('(').next().unwrap_or_default().trim();
        match self.kind {
            ConnectorKind::Postgres => matches!(base, "text" | "character varying" | "character"),
            ConnectorKind::Mysql => base.ends_with("char") || base.ends_with("text"),
            ConnectorKind::Sqlite => base.contains("char") || base.contains("text") || base.contains("clob"),
        }
    }
}

/// The rows that a filter drops: a superset's are too few.
fn negated(fit: Fit) -> Fit {
    if fit == Fit::Exact { Fit::Exact } else { Fit::No }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;
    use datafusion::prelude::{col, lit};

    use super::*;

    const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

    fn fit(kind: ConnectorKind, filter: &Expr) -> Fit {
        let column = |name: &str| {
            let (data_type, source, passage) = match name {
                "n" => (DataType::Int32, "integer", Passage::Plain),
                "f" => (DataType::Float64, "double precision", Passage::Plain),
                "s" => (DataType::Utf8, "text", Passage::Plain),
                "u" => (DataType::Utf8, "uuid", Passage::Text),
                "t" => (MICROS, "datetime", Passage::Text),
                "y" => (DataType::Int16, "year(4)", Passage::Plain),
                _ => return None,
            };
            Some((Declared { data_type, passage }, source))
        };
        Judge { kind, column }.fit(filter)
    }

    #[test]
    fn only_what_means_the_same_there_is_asked_for() {
        use ConnectorKind::{Mysql, Postgres, Sqlite};
        let moment = |micros| lit(ScalarValue::TimestampMicrosecond(Some(micros), None));
        let cases = [
            (Postgres, col("n").gt(lit(5_i32)), Fit::Exact),
            (Postgres, lit(5_i32).lt_eq(col("n")), Fit::Exact),
            (Postgres, col("n").gt(lit(5_i64)), Fit::No),
            (Postgres, !col("n").eq(lit(5_i32)), Fit::Exact),
            (Postgres, col("n").between(lit(1_i32), lit(2_i32)), Fit::Exact),
            (Postgres, col("n").in_list(vec![lit(1_i32), lit(2_i32)], true), Fit::Exact),
            (Postgres, col("n").is_null().or(col("n").gt(lit(1_i32))), Fit::Exact),
            (Postgres, col("n").gt(lit(1_i32)).and(col("s").lt(lit("x"))), Fit::No),
            (Postgres, col("n").eq(col("n")), Fit::No),
            (Postgres, col("f").lt(lit(1.5)), Fit::Exact),
            (Postgres, col("f").eq(lit(f64::NAN)), Fit::No),
            (Postgres, col("s").eq(lit("x")), Fit::Superset),
            (Postgres, col("s").not_eq(lit("x")), Fit::No),
            (Postgres, !col("s").eq(lit("x")), Fit::No),
            (Postgres, col("s").in_list(vec![lit("x")], false), Fit::Superset),
            (Postgres, col("s").in_list(vec![lit("x")], true), Fit::No),
            (Postgres, col("s").like(lit("x%")), Fit::Superset),
            (Postgres, col("s").like(lit("%x")), Fit::No),
            (Postgres, col("s").not_like(lit("x%")), Fit::No),
            (Postgres, col("s").eq(lit("\\' OR 1=1 --")), Fit::No),
            (Mysql, col("s").eq(lit("say \"x\"")), Fit::No),
            (Postgres, col("u").eq(lit("no uuid")), Fit::No),
            (Postgres, col("t").gt(moment(1)), Fit::Exact),
            (Mysql, col("t").gt(moment(1)), Fit::No),
            (Mysql, col("t").gt(moment(1_000_000)), Fit::Exact),
            (Mysql, col("t").is_null(), Fit::No),
            (Mysql, col("n").is_null(), Fit::Exact),
            (Mysql, col("y").gt(lit(20_i16)), Fit::No),
            (Sqlite, col("t").gt(moment(1_000_000)), Fit::No),
            (Sqlite, col("unknown").is_null(), Fit::No),
        ];
        for (kind, filter, expected) in cases {
            assert_eq!(fit(kind, &filter), expected, "{kind:?}: {filter}");
        }
    }
}
