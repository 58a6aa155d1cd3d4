//! Draws rows as a table, in one of three styles.
//!
//! ```text
//!  table         box           markdown
//!  +---+------+  ┌───┬──────┐  |   a | b    |
//!  | a | b    |  │ a │ b    │  |----:|------|
//!  +---+------+  ├───┼──────┤  |   1 | x    |
//!  | 1 | x    |  │ 1 │ x    │
//!  +---+------+  └───┴──────┘
//! ```

use std::borrow::Cow;
use std::io::Write;

use arrow::datatypes::{DataType, SchemaRef};
use console::{Alignment, measure_text_width, pad_str, style, truncate_str};

use super::cells::{Cell, visible};
use super::{Colors, Format, Look};

/// A column is not made narrower than this before others are left out.
const NARROW: usize = 12;
/// Stands for what is left out.
const ELLIPSIS: &str = "…";

/// A table to draw.
pub(super) struct Grid<'a> {
    pub(super) schema: &'a SchemaRef,
    pub(super) rows: &'a [Vec<Cell>],
    /// The position of the row before which rows are left out.
    pub(super) gap: Option<usize>,
}

/// A column as it is drawn.
struct Column {
    /// Its position in the rows; none for the column that stands for those left out.
    position: Option<usize>,
    name: String,
    kind: String,
    alignment: Alignment,
    width: usize,
}

impl Grid<'_> {
    pub(super) fn draw(&self, format: Format, look: &Look, out: &mut impl Write) -> std::io::Result<()> {
        let columns = self.columns(format, look);
        let lines = Lines { format, colors: look.colors, columns: &columns };
        lines.rule(Rule::Top, out)?;
        lines.row(|c| (visible_name(c, format), Emphasis::Strong), out)?;
        if format == Format::Box {
            lines.row(|c| (Cow::Borrowed(&c.kind), Emphasis::Weak), out)?;
        }
        lines.rule(Rule::Middle, out)?;
        for (position, row) in self.rows.iter().enumerate() {
            if self.gap == Some(position) {
                lines.row(|_| (Cow::Borrowed("·"), Emphasis::Weak), out)?;
            }
            lines.row(|column| value(column, row, format), out)?;
        }
        if self.gap == Some(self.rows.len()) {
            lines.row(|_| (Cow::Borrowed("·"), Emphasis::Weak), out)?;
        }
        lines.rule(Rule::Bottom, out)
    }

    fn columns(&self, format: Format, look: &Look) -> Vec<Column> {
        let column = |(position, field): (usize, &arrow::datatypes::FieldRef)| {
            let (name, kind) = (visible(field.name().clone()), field.data_type().to_string());
            let of_cells = self.rows.iter().filter_map(|row| row.get(position));
            let widest = of_cells.map(|cell| measure_text_width(&shown(&cell.text, format))).max().unwrap_or(0);
            let of_kind = if format == Format::Box { measure_text_width(&kind) } else { 0 };
            let width = widest.max(measure_text_width(&shown(&name, format))).max(of_kind);
            Column { position: Some(position), name, kind, alignment: alignment(field.data_type()), width }
        };
        let mut columns: Vec<Column> = self.schema.fields().iter().enumerate().map(column).collect();
        if let Some(width) = look.width.filter(|_| format == Format::Box) {
            leave_out(&mut columns, width);
            narrow(&mut columns, width);
        }
        columns
    }
}

fn alignment(data_type: &DataType) -> Alignment {
    if data_type.is_numeric() { Alignment::Right } else { Alignment::Left }
}

/// What the frame and the spaces between columns take.
const fn frame(columns: usize) -> usize {
    3 * columns + 1
}

/// Takes columns out of the middle until the others fit, narrowed.
fn leave_out(columns: &mut Vec<Column>, width: usize) {
    let least = |part: &[Column]| part.iter().map(|c| c.width.min(NARROW)).sum::<usize>();
    if least(columns) + frame(columns.len()) <= width {
        return;
    }
    let (mut left, mut right) = (columns.len().div_ceil(2), columns.len() / 2);
    let fits = |left: usize, right: usize| {
        let (first, last) = (columns.get(..left), columns.get(columns.len() - right..));
        let kept = first.map_or(0, least) + last.map_or(0, least);
        kept + measure_text_width(ELLIPSIS) + frame(left + right + 1) <= width
    };
    while left + right > 1 && !fits(left, right) {
        if left > right { left -= 1 } else { right -= 1 }
    }
    let (name, kind, width) = (ELLIPSIS.to_owned(), String::new(), measure_text_width(ELLIPSIS));
    let gap = Column { position: None, name, kind, alignment: Alignment::Left, width };
    let end = columns.len() - right;
    columns.drain(left..end);
    columns.insert(left, gap);
}

/// Narrows the widest columns until all fit.
fn narrow(columns: &mut [Column], width: usize) {
    let room = width.saturating_sub(frame(columns.len()));
    let total = |cap: usize| columns.iter().map(|c| c.width.min(cap)).sum::<usize>();
    let mut cap = columns.iter().map(|c| c.width).max().unwrap_or(0).min(room);
    while cap > 1 && total(cap) > room {
        cap -= 1;
    }
    for column in columns {
        column.width = column.width.min(cap);
    }
}

fn value<'a>(column: &Column, row: &'a [Cell], format: Format) -> (Cow<'a, str>, Emphasis) {
    match column.position.and_then(|position| row.get(position)) {
        Some(cell) if cell.is_null => (Cow::Borrowed(&cell.text), Emphasis::Weak),
        Some(cell) => (shown(&cell.text, format), Emphasis::None),
        None => (Cow::Borrowed(ELLIPSIS), Emphasis::Weak),
    }
}

fn visible_name(column: &Column, format: Format) -> Cow<'_, str> {
    shown(&column.name, format)
}

/// The text in a cell of this style.
fn shown(text: &str, format: Format) -> Cow<'_, str> {
    match format {
        Format::Markdown if text.contains('|') => Cow::Owned(text.replace('|', "\\|")),
        _ => Cow::Borrowed(text),
    }
}

/// How much a text stands out.
#[derive(Clone, Copy)]
enum Emphasis {
    Strong,
    None,
    Weak,
}

/// Where a horizontal line is.
#[derive(Clone, Copy)]
enum Rule {
    Top,
    Middle,
    Bottom,
}

struct Lines<'a> {
    format: Format,
    colors: Colors,
    columns: &'a [Column],
}

impl Lines<'_> {
    fn row<'t>(&self, of: impl Fn(&'t Column) -> (Cow<'t, str>, Emphasis), out: &mut impl Write) -> std::io::Result<()>
    where
        Self: 't,
    {
        let bar = if self.format == Format::Box { "│" } else { "|" };
        for column in self.columns {
            let (text, emphasis) = of(column);
            let text = truncate_str(&text, column.width, ELLIPSIS);
            let text = pad_str(&text, column.width, column.alignment, None);
            write!(out, "{bar} {} ", self.emphasised(&text, emphasis))?;
        }
        writeln!(out, "{bar}")
    }

    fn emphasised<'t>(&self, text: &'t str, emphasis: Emphasis) -> Cow<'t, str> {
        match (self.colors, emphasis) {
            (Colors::Off, _) | (Colors::On, Emphasis::None) => Cow::Borrowed(text),
            (Colors::On, Emphasis::Strong) => Cow::Owned(style(text).bold().force_styling(true).to_string()),
            (Colors::On, Emphasis::Weak) => Cow::Owned(style(text).dim().force_styling(true).to_string()),
        }
    }

    fn rule(&self, rule: Rule, out: &mut impl Write) -> std::io::Result<()> {
        let ends = match (self.format, rule) {
            (Format::Markdown, Rule::Middle) => return self.markdown_rule(out),
            (Format::Markdown, Rule::Top | Rule::Bottom) => return Ok(()),
            (Format::Box, Rule::Top) => ["┌", "┬", "┐"],
            (Format::Box, Rule::Middle) => ["├", "┼", "┤"],
            (Format::Box, Rule::Bottom) => ["└", "┴", "┘"],
            _ => ["+", "+", "+"],
        };
        let [left, middle, right] = ends;
        let dash = if self.format == Format::Box { "─" } else { "-" };
        let parts: Vec<String> = self.columns.iter().map(|column| dash.repeat(column.width + 2)).collect();
        writeln!(out, "{left}{}{right}", parts.join(middle))
    }

    fn markdown_rule(&self, out: &mut impl Write) -> std::io::Result<()> {
        for column in self.columns {
            let end = if column.alignment == Alignment::Right { ":" } else { "-" };
            write!(out, "|{}{end}", "-".repeat(column.width + 1))?;
        }
        writeln!(out, "|")
    }
}
