//! Tables for standard output: columns as wide as their widest cell.

use crate::terminal;

/// How a column is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table under construction.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Appends a row; a cell for each column. Cells become one tame line each.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let row: Vec<String> =
            cells.into_iter().map(|cell| terminal::plain(&cell).replace('\n', " ")).collect();
        debug_assert_eq!(row.len(), self.columns.len(), "a cell for each column");
        self.rows.push(row);
    }

    /// The table as text, headings first.
    pub fn render(&self) -> String {
        let headings: Vec<String> =
            self.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let rows = || std::iter::once(&headings).chain(&self.rows);
        let width = |index: usize| {
            rows().filter_map(|row| row.get(index)).map(|cell| terminal::width(cell)).max()
        };
        let widths: Vec<usize> =
            (0..self.columns.len()).map(|index| width(index).unwrap_or(0)).collect();
        let mut out = String::new();
        for row in rows() {
            let mut line = String::new();
            for ((cell, width), (_, align)) in row.iter().zip(&widths).zip(&self.columns) {
                let gap = " ".repeat(width.saturating_sub(terminal::width(cell)));
                if !line.is_empty() {
                    line.push_str("  ");
                }
                match align {
                    Align::Left => line.extend([cell.as_str(), &gap]),
                    Align::Right => line.extend([gap.as_str(), cell]),
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table =
            Table::new(&[("KIND", Align::Left), ("SIZE", Align::Right), ("WHAT", Align::Left)]);
        table.row(["blob".into(), "1 B".into(), "x\ny".into()]);
        table.row(["日本".into(), "12.3 MB".into(), "\x1b[31mz".into()]);
        assert_eq!(
            table.render(),
            "KIND     SIZE  WHAT\n\
             blob      1 B  x y\n\
             日本  12.3 MB  z\n"
        );
    }
}
