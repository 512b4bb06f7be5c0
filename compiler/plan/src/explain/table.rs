//! Text tables of ranks: what all ranks have alike is said once, the rest in aligned columns.

use std::fmt;

/// One fact of every rank, as text.
pub(super) struct Column {
    title: String,
    cells: Vec<String>,
}

impl Column {
    pub(super) fn new(title: impl Into<String>, cells: impl IntoIterator<Item = String>) -> Self {
        Self {
            title: title.into(),
            cells: cells.into_iter().collect(),
        }
    }

    fn alike(&self) -> Option<&str> {
        let (first, rest) = self.cells.split_first()?;
        rest.iter().all(|cell| cell == first).then_some(first)
    }
}

/// Columns over ranks; rows of neighbours that are alike become one row.
pub(super) struct Table(pub(super) Vec<Column>);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = self.0.first().is_some_and(|column| column.cells.len() > 1);
        let width = self.0.iter().map(|c| c.title.chars().count()).max();
        for column in &self.0 {
            if let Some(cell) = column.alike() {
                let (title, width) = (&column.title, width.unwrap_or(0));
                let suffix = if many { " on every rank" } else { "" };
                writeln!(f, "  {title:<width$}  {cell}{suffix}")?;
            }
        }
        let varying: Vec<&Column> = self.0.iter().filter(|c| c.alike().is_none()).collect();
        let Some(first) = varying.first().filter(|c| !c.cells.is_empty()) else {
            return Ok(());
        };
        let mut rows = vec![
            std::iter::once("rank".to_owned())
                .chain(varying.iter().map(|c| c.title.clone()))
                .collect(),
        ];
        rows.extend(grouped(&varying, first.cells.len()));
        aligned(f, &rows)
    }
}

fn grouped(columns: &[&Column], ranks: usize) -> Vec<Vec<String>> {
    let row = |rank: usize| columns.iter().map(move |c| &c.cells[rank]);
    let mut rows = Vec::new();
    let mut first = 0;
    for rank in 0..ranks {
        if rank + 1 < ranks && row(rank + 1).eq(row(first)) {
            continue;
        }
        let label = if first == rank {
            rank.to_string()
        } else {
            format!("{first}-{rank}")
        };
        rows.push(std::iter::once(label).chain(row(rank).cloned()).collect());
        first = rank + 1;
    }
    rows
}

/// Writes rows with every column aligned to the right.
pub(super) fn aligned(f: &mut fmt::Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|c| {
            let cells = rows.iter().filter_map(|row| row.get(c));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            write!(f, "  {cell:>width$}")?;
        }
        writeln!(f)?;
    }
    Ok(())
}

/// Bytes with a binary unit and one decimal; exact below a kibibyte.
pub(super) fn bytes(n: u64) -> String {
    scaled(n, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

/// Floating point operations with a decimal unit and one decimal.
pub(super) fn flops(n: u64) -> String {
    scaled(
        n,
        1000.0,
        &["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"],
    )
}

fn scaled(n: u64, base: f64, units: &[&str]) -> String {
    let mut value = n as f64;
    let mut unit = 0;
    // What would be shown as 1024.0 belongs to the next unit.
    while value >= base - 0.05 && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    if unit == 0 {
        format!("{n} {}", units[0])
    } else {
        format!("{value:.1} {}", units[unit])
    }
}
