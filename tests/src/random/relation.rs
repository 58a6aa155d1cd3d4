//! A query as a tree. Columns are chosen by number modulo what there is, so that every tree, shrunk in any way, is valid
//! SQL.

use std::fmt::Write;

use super::TABLES;

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    /// BIGINT.
    Int,
    /// VARCHAR.
    Text,
}

/// Something with rows; its columns are called `c0`, `c1`, ….
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relation {
    /// One of the tables, by number.
    Table(usize),
    /// `WHERE`.
    Filter(Box<Self>, Predicate),
    /// Computed columns.
    Project(Box<Self>, Vec<Scalar>),
    /// A join on equal columns, and perhaps on more.
    Join { left: Box<Self>, right: Box<Self>, kind: &'static str, keys: (usize, usize), more: Option<(usize, usize)> },
    /// Grouped by some columns, with aggregates of others.
    Aggregate { input: Box<Self>, keys: Vec<usize>, calls: Vec<(&'static str, usize)> },
    /// `DISTINCT`.
    Distinct(Box<Self>),
    /// `UNION ALL` and its like, over columns of equal types.
    Set { left: Box<Self>, right: Box<Self>, operator: &'static str },
    /// `ORDER BY` all columns, `LIMIT`, `OFFSET`.
    Limit { input: Box<Self>, first: usize, limit: usize, offset: usize },
    /// One more column, from a window function.
    Window { input: Box<Self>, call: &'static str, argument: usize, partition: usize, frame: &'static str },
    /// `IN`, `NOT IN`, `EXISTS`, `NOT EXISTS`.
    Member { input: Box<Self>, of: Box<Self>, columns: (usize, usize), test: &'static str },
    /// Rows above or below an aggregate of another relation.
    Compared { input: Box<Self>, with: Box<Self>, column: usize, call: &'static str },
}

/// A condition on columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Predicate {
    /// A column against a number.
    Number(usize, &'static str, i64),
    /// Two columns.
    Columns(usize, &'static str, usize),
    /// `IS NULL`.
    Null(usize),
    /// `NOT`, `AND`, `OR`.
    Not(Box<Self>),
    Both(Box<Self>, Box<Self>),
    Either(Box<Self>, Box<Self>),
}

/// A computed column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scalar {
    Column(usize),
    Sum(usize, usize),
    Remainder(usize, i64),
    Text(usize),
    Case(Predicate, usize, usize),
    Coalesce(usize, i64),
}

/// Writes a tree as SQL, giving every subquery a name of its own.
#[derive(Default)]
struct Writer {
    names: usize,
}

impl Relation {
    /// The query.
    #[must_use]
    pub fn sql(&self) -> String {
        Writer::default().query(self).0
    }
}

fn name(column: usize) -> String {
    format!("c{column}")
}

/// The column with this number among those of one type, if there is any.
fn of_type(columns: &[Type], wanted: Type, number: usize) -> Option<usize> {
    let fitting: Vec<usize> = (0..columns.len()).filter(|c| columns[*c] == wanted).collect();
    (!fitting.is_empty()).then(|| fitting[number % fitting.len()])
}

fn int(columns: &[Type], from: &str, number: usize) -> String {
    of_type(columns, Type::Int, number).map_or_else(|| "1".to_owned(), |c| format!("{from}{}", name(c)))
}

impl Writer {
    fn alias(&mut self) -> String {
        self.names += 1;
        format!("r{}", self.names)
    }

    /// `(query) AS name`, the name with a dot, and the columns.
    fn source(&mut self, relation: &Relation) -> (String, String, Vec<Type>) {
        let (sql, columns) = self.query(relation);
        let alias = self.alias();
        (format!("({sql}) AS {alias}"), format!("{alias}."), columns)
    }

    fn all(from: &str, columns: &[Type]) -> String {
        (0..columns.len()).map(|c| format!("{from}{} AS {}", name(c), name(c))).collect::<Vec<_>>().join(", ")
    }

    fn query(&mut self, relation: &Relation) -> (String, Vec<Type>) {
        match relation {
            Relation::Table(number) => {
                let (table, columns) = TABLES[number % TABLES.len()];
                let types = columns.iter().map(|(_, t)| *t).collect();
                let listed = columns.iter().enumerate().map(|(i, (column, _))| format!("{column} AS {}", name(i)));
                (format!("SELECT {} FROM {table}", listed.collect::<Vec<_>>().join(", ")), types)
            }
            Relation::Filter(input, predicate) => {
                let (source, from, columns) = self.source(input);
                let (all, test) = (Self::all(&from, &columns), predicate.sql(&from, &columns));
                (format!("SELECT {all} FROM {source} WHERE {test}"), columns)
            }
            Relation::Project(input, scalars) => {
                let (source, from, columns) = self.source(input);
                let computed: Vec<(String, Type)> = scalars.iter().map(|s| s.sql(&from, &columns)).collect();
                let mut listed = String::new();
                for (i, (sql, _)) in computed.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    let _ = write!(listed, "{comma}{sql} AS {}", name(i));
                }
                (format!("SELECT {listed} FROM {source}"), computed.into_iter().map(|(_, t)| t).collect())
            }
            Relation::Join { left, right, kind, keys, more } => self.join(left, right, kind, *keys, *more),
            Relation::Aggregate { input, keys, calls } => self.aggregate(input, keys, calls),
            Relation::Distinct(input) => {
                let (source, from, columns) = self.source(input);
                (format!("SELECT DISTINCT {} FROM {source}", Self::all(&from, &columns)), columns)
            }
            Relation::Set { left, right, operator } => {
                let (left, left_from, columns) = self.source(left);
                let (right, right_from, others) = self.source(right);
                let fitted = columns.iter().enumerate().map(|(i, wanted)| {
                    let found = of_type(&others, *wanted, i).map(|c| format!("{right_from}{}", name(c)));
                    let literal = if *wanted == Type::Int { "7" } else { "'x'" };
                    format!("{} AS {}", found.unwrap_or_else(|| literal.to_owned()), name(i))
                });
                let fitted = fitted.collect::<Vec<_>>().join(", ");
                let all = Self::all(&left_from, &columns);
                (format!("SELECT {all} FROM {left} {operator} SELECT {fitted} FROM {right}"), columns)
            }
            Relation::Limit { input, first, limit, offset } => {
                let (source, from, columns) = self.source(input);
                let all = Self::all(&from, &columns);
                // All columns, so that ties cannot fall either way.
                let order = (0..columns.len()).map(|i| format!("{from}{}", name((i + first) % columns.len())));
                let order = order.collect::<Vec<_>>().join(", ");
                (format!("SELECT {all} FROM {source} ORDER BY {order} LIMIT {limit} OFFSET {offset}"), columns)
            }
            Relation::Window { input, call, argument, partition, frame } => {
                let (source, from, mut columns) = self.source(input);
                let (all, argument) = (Self::all(&from, &columns), int(&columns, &from, *argument));
                let order = (0..columns.len()).map(|i| format!("{from}{}", name(i))).collect::<Vec<_>>().join(", ");
                let call = call.replace('?', &argument);
                let partition = format!("{from}{}", name(partition % columns.len()));
                let next = name(columns.len());
                columns.push(Type::Int);
                let window = format!("PARTITION BY {partition} ORDER BY {order} {frame}");
                (format!("SELECT {all}, {call} OVER ({window}) AS {next} FROM {source}"), columns)
            }
            Relation::Member { input, of, columns, test } => self.member(input, of, *columns, test),
            Relation::Compared { input, with, column, call } => {
                let (source, from, columns) = self.source(input);
                let (other, other_from, others) = self.source(with);
                let (all, mine) = (Self::all(&from, &columns), int(&columns, &from, *column));
                let value = call.replace('?', &int(&others, &other_from, *column));
                (format!("SELECT {all} FROM {source} WHERE {mine} >= (SELECT {value} FROM {other})"), columns)
            }
        }
    }

    fn join(
        &mut self,
        left: &Relation,
        right: &Relation,
        kind: &str,
        keys: (usize, usize),
        more: Option<(usize, usize)>,
    ) -> (String, Vec<Type>) {
        let (left, left_from, mut columns) = self.source(left);
        let (right, right_from, others) = self.source(right);
        let mut on = format!("{} = {}", int(&columns, &left_from, keys.0), int(&others, &right_from, keys.1));
        if let Some((a, b)) = more {
            let _ = write!(on, " AND {} < {}", int(&columns, &left_from, a), int(&others, &right_from, b));
        }
        let mut listed = Self::all(&left_from, &columns);
        if !kind.contains("SEMI") && !kind.contains("ANTI") {
            for (i, column) in others.iter().enumerate() {
                let _ = write!(listed, ", {right_from}{} AS {}", name(i), name(columns.len()));
                columns.push(*column);
            }
        }
        (format!("SELECT {listed} FROM {left} {kind} {right} ON {on}"), columns)
    }

    fn aggregate(&mut self, input: &Relation, keys: &[usize], calls: &[(&str, usize)]) -> (String, Vec<Type>) {
        let (source, from, columns) = self.source(input);
        let mut keys: Vec<usize> = keys.iter().map(|k| k % columns.len()).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut types: Vec<Type> = keys.iter().map(|k| columns[*k]).collect();
        let keys: Vec<String> = keys.iter().map(|k| format!("{from}{}", name(*k))).collect();
        let mut listed: Vec<String> = keys.iter().enumerate().map(|(i, k)| format!("{k} AS {}", name(i))).collect();
        for (call, argument) in calls {
            let call = call.replace('?', &int(&columns, &from, *argument));
            listed.push(format!("{call} AS {}", name(types.len())));
            types.push(Type::Int);
        }
        let group = if keys.is_empty() { String::new() } else { format!(" GROUP BY {}", keys.join(", ")) };
        (format!("SELECT {} FROM {source}{group}", listed.join(", ")), types)
    }

    fn member(&mut self, input: &Relation, of: &Relation, by: (usize, usize), test: &str) -> (String, Vec<Type>) {
        let (source, from, columns) = self.source(input);
        let (other, other_from, others) = self.source(of);
        let (mine, theirs) = (int(&columns, &from, by.0), int(&others, &other_from, by.1));
        let all = Self::all(&from, &columns);
        let test = match test {
            "IN" | "NOT IN" => format!("{mine} {test} (SELECT {theirs} FROM {other})"),
            _ => format!("{test} (SELECT 1 FROM {other} WHERE {mine} = {theirs})"),
        };
        (format!("SELECT {all} FROM {source} WHERE {test}"), columns)
    }
}

impl Predicate {
    fn sql(&self, from: &str, columns: &[Type]) -> String {
        match self {
            Self::Number(column, operator, number) => format!("{} {operator} {number}", int(columns, from, *column)),
            Self::Columns(a, operator, b) => {
                format!("{} {operator} {}", int(columns, from, *a), int(columns, from, *b))
            }
            Self::Null(column) => format!("{from}{} IS NULL", name(column % columns.len())),
            Self::Not(inner) => format!("NOT ({})", inner.sql(from, columns)),
            Self::Both(a, b) => format!("({} AND {})", a.sql(from, columns), b.sql(from, columns)),
            Self::Either(a, b) => format!("({} OR {})", a.sql(from, columns), b.sql(from, columns)),
        }
    }
}

impl Scalar {
    fn sql(&self, from: &str, columns: &[Type]) -> (String, Type) {
        match self {
            Self::Column(column) => {
                let column = column % columns.len();
                (format!("{from}{}", name(column)), columns[column])
            }
            Self::Sum(a, b) => (format!("{} + {}", int(columns, from, *a), int(columns, from, *b)), Type::Int),
            Self::Remainder(column, by) => (format!("{} % {by}", int(columns, from, *column)), Type::Int),
            Self::Text(column) => (format!("'t' || CAST({} AS VARCHAR)", int(columns, from, *column)), Type::Text),
            Self::Case(test, a, b) => {
                let (test, a, b) = (test.sql(from, columns), int(columns, from, *a), int(columns, from, *b));
                (format!("CASE WHEN {test} THEN {a} ELSE {b} END"), Type::Int)
            }
            Self::Coalesce(column, number) => {
                (format!("coalesce({}, {number})", int(columns, from, *column)), Type::Int)
            }
        }
    }
}
