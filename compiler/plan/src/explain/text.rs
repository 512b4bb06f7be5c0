//! The text form of an explained plan.
//!
//! ```text
//! graph     denoise-step
//! mesh      cfg=1 ring=2 ulysses=2 (4 ranks)
//!
//! slices
//!   txt  226 text tokens over ring x ulysses
//!   h.w  1350 cells of 30 x 45 over ring x ulysses, 13 tokens each, imbalance 0.15 %
//!   tokens per batch item: 4444 to 4444, mean 4444.0, imbalance 0.00 %
//!   tokens        4444 on every rank
//!   rank            cells          text  text tokens  video tokens
//!      0      338 [0 338)     50 [0 50)           50          4394
//!      1    337 [338 675)   63 [50 113)           63          4381
//! ```

use super::Plain;
use super::facts::{Cut, Explanation, Quantity, RankFacts, Traffic, Work};
use super::table::{Column, Table, aligned, bytes, flops};
use crate::{Axis, CollectiveKind, DType, Port};
use std::collections::BTreeSet;
use std::fmt;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.header_text(f)?;
        self.slices_text(f)?;
        self.traffic_text(f)?;
        self.memory_text(f)?;
        self.work_text(f)?;
        self.ports_text(f)
    }
}

impl Explanation {
    fn header_text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = &self.header;
        let fits = &header.fingerprint;
        for (name, text) in [
            ("graph", &header.graph),
            ("model", &fits.model),
            ("shape", &fits.shape),
            ("dtype", &self.types()),
            ("kernels", &fits.kernels),
            ("producer", &header.producer),
            ("format", &header.format.to_string()),
        ] {
            writeln!(f, "{name:<10}{}", Plain(text))?;
        }
        let ranks = self.ranks.len();
        let noun = if ranks == 1 { "rank" } else { "ranks" };
        writeln!(f, "{:<10}{} ({ranks} {noun})", "mesh", self.mesh)
    }

    /// Type of products, and of activations where a device computes in another than single precision.
    fn types(&self) -> String {
        let products = self.header.fingerprint.dtype;
        match self.activations {
            DType::F32 => products.to_string(),
            activations => format!("{products}, activations {activations}"),
        }
    }

    fn slices_text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nslices")?;
        if self.cuts.is_empty() {
            writeln!(f, "  nothing is cut")?;
        }
        let width = self.cuts.iter().map(|c| c.factors.chars().count()).max();
        for cut in &self.cuts {
            let width = width.unwrap_or(0);
            let name = Plain(&cut.factors).to_string();
            writeln!(f, "  {name:<width$}  {}", cut_text(cut))?;
        }
        if let Some(balance) = self.token_balance {
            writeln!(
                f,
                "  tokens per batch item: {} to {}, mean {:.1}, imbalance {:.2} %",
                balance.min, balance.max, balance.mean, balance.imbalance_percent
            )?;
        }
        let mut columns: Vec<Column> = self
            .cuts
            .iter()
            .enumerate()
            .map(|(index, cut)| self.part_column(index, cut))
            .collect();
        if self.ranks.iter().any(|rank| rank.tokens.is_some()) {
            columns.push(self.column("text tokens", |r| token_text(r.tokens.map(|t| t.text))));
            columns.push(self.column("video tokens", |r| token_text(r.tokens.map(|t| t.video))));
            columns.push(self.column("tokens", |r| token_text(r.tokens.map(|t| t.total))));
        }
        write!(f, "{}", Table(columns))
    }

    fn column(&self, title: impl Into<String>, cell: impl Fn(&RankFacts) -> String) -> Column {
        Column::new(title, self.ranks.iter().map(cell))
    }

    fn part_column(&self, index: usize, cut: &Cut) -> Column {
        let title = match cut.quantity {
            Quantity::Text => "text".to_owned(),
            Quantity::Other => Plain(&cut.factors).to_string(),
            Quantity::Cells | Quantity::Rows | Quantity::Heads | Quantity::Batch => {
                cut.quantity.name().to_owned()
            }
        };
        self.column(title, |rank| {
            rank.parts.get(index).copied().flatten().map_or_else(
                || "?".to_owned(),
                |part| format!("{} [{} {})", part.len(), part.start, part.end),
            )
        })
    }

    fn traffic_text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\ncommunication per call")?;
        if self.traffic.is_empty() {
            return writeln!(f, "  none");
        }
        let mut rows = vec![
            ["all ranks", "exchanges", "bytes"]
                .map(str::to_owned)
                .to_vec(),
        ];
        rows.extend(self.traffic.iter().map(|it| {
            vec![
                it.kind.name().to_owned(),
                it.count.to_string(),
                bytes(it.bytes),
            ]
        }));
        aligned(f, &rows)?;
        let kinds: BTreeSet<CollectiveKind> = self.traffic.iter().map(|it| it.kind).collect();
        let mut columns = Vec::new();
        for kind in kinds {
            let name = kind.name();
            let of =
                move |rank: &RankFacts| rank.traffic.iter().find(|it| it.kind == kind).copied();
            let cell = |value: fn(&Traffic) -> String| {
                move |rank: &RankFacts| of(rank).as_ref().map_or_else(|| "0".to_owned(), value)
            };
            columns.push(self.column(format!("{name} exchanges"), cell(|t| t.count.to_string())));
            columns.push(self.column(format!("{name} sent"), cell(|t| bytes(t.sent))));
            columns.push(self.column(format!("{name} received"), cell(|t| bytes(t.received))));
        }
        write!(f, "{}", Table(columns))
    }

    fn memory_text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\npeak memory ({} weights in all)", self.weights)?;
        let types: BTreeSet<_> = self
            .ranks
            .iter()
            .flat_map(|rank| rank.memory.weights.iter().map(|it| it.dtype))
            .collect();
        let mut columns = vec![
            self.column("arena", |r| bytes(r.memory.arena)),
            self.column("state", |r| bytes(r.memory.state)),
        ];
        for dtype in types {
            columns.push(self.column(format!("{dtype} weights"), |rank| {
                let mut weights = rank.memory.weights.iter();
                let of = weights.find(|it| it.dtype == dtype);
                bytes(of.map_or(0, |it| it.bytes))
            }));
        }
        columns.push(self.column("total", |r| bytes(r.memory.total)));
        write!(f, "{}", Table(columns))
    }

    fn work_text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, of) in [
            (
                "work once per session",
                (|r| &r.init) as fn(&RankFacts) -> &Work,
            ),
            ("work per call", |r| &r.call),
        ] {
            if self.ranks.iter().all(|rank| of(rank).steps == 0) {
                continue;
            }
            writeln!(f, "\n{title}")?;
            let kernels: BTreeSet<&str> = self
                .ranks
                .iter()
                .flat_map(|rank| of(rank).launches.iter().map(|it| it.kernel.as_str()))
                .collect();
            let mut columns = vec![
                self.column("arithmetic", |r| flops(of(r).flops)),
                self.column("steps", |r| of(r).steps.to_string()),
                self.column("copies", |r| of(r).copies.to_string()),
                self.column("exchanges", |r| of(r).exchanges.to_string()),
            ];
            for kernel in kernels {
                columns.push(self.column(kernel, |rank| {
                    let mut launches = of(rank).launches.iter();
                    let found = launches.find(|it| it.kernel == kernel);
                    found.map_or(0, |it| it.count).to_string()
                }));
            }
            write!(f, "{}", Table(columns))?;
        }
        Ok(())
    }

    fn ports_text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nports")?;
        for (side, ports) in [("input ", &self.inputs), ("output", &self.outputs)] {
            for Port { name, dtype, shape } in ports {
                writeln!(f, "  {side}  {}: {dtype}{shape:?}", Plain(name))?;
            }
        }
        for carry in &self.carries {
            let (output, input) = (Plain(&carry.output), Plain(&carry.input));
            writeln!(f, "  carry   output {output} -> input {input}")?;
        }
        Ok(())
    }
}

fn token_text(tokens: Option<usize>) -> String {
    tokens.map_or_else(|| "?".to_owned(), |n| n.to_string())
}

fn cut_text(cut: &Cut) -> String {
    let units = cut.offsets.last().copied().unwrap_or(0);
    let axes: Vec<&str> = cut.axes.iter().copied().map(Axis::name).collect();
    let sizes: Vec<String> = cut.sizes.iter().map(ToString::to_string).collect();
    let of = match cut.quantity {
        Quantity::Rows | Quantity::Cells => format!(" of {}", sizes.join(" x ")),
        Quantity::Text | Quantity::Heads | Quantity::Batch | Quantity::Other => String::new(),
    };
    let each = match cut.tokens_per_unit {
        0 | 1 => String::new(),
        n => format!(", {n} tokens each"),
    };
    // Text fills up what cells leave uneven: only their sum is a load.
    let load = cut.balance.filter(|_| cut.quantity != Quantity::Text);
    let balance = load.map_or_else(String::new, |it| {
        format!(", imbalance {:.2} %", it.imbalance_percent)
    });
    let over = match axes.as_slice() {
        [] => ", not cut".to_owned(),
        axes => format!(" over {}", axes.join(" x ")),
    };
    let name = cut.quantity.name();
    format!("{units} {name}{of}{over}{each}{balance}")
}
