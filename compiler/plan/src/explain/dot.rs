//! The Graphviz form: ranks in boxes by group, edges labelled with what one call moves.

use super::Explanation;
use super::table::bytes;
use std::fmt::Write as _;

/// The graph as text; bytes of one kind of collective per edge.
pub(super) fn dot(it: &Explanation) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut out, it);
    out
}

fn write(out: &mut String, it: &Explanation) -> std::fmt::Result {
    writeln!(out, "digraph {} {{", quoted(&it.header.graph))?;
    writeln!(out, "  label={};", quoted(&title(it)))?;
    writeln!(out, "  labelloc=t;")?;
    writeln!(out, "  node [shape=box];")?;
    for rank in &it.ranks {
        let mut label = format!("rank {}", rank.rank);
        if let Some(tokens) = rank.tokens {
            let _ = write!(label, "\n{} tokens", tokens.total);
        }
        let _ = write!(label, "\n{}", bytes(rank.memory.total));
        writeln!(out, "  r{} [label={}];", rank.rank, quoted(&label))?;
    }
    for link in &it.links {
        let label = format!("{}\n{}", link.kind.name(), bytes(link.bytes));
        writeln!(
            out,
            "  r{} -> r{} [label={}];",
            link.from,
            link.to,
            quoted(&label)
        )?;
    }
    writeln!(out, "}}")
}

fn title(it: &Explanation) -> String {
    format!("{}: {}, bytes per call", it.header.graph, it.mesh)
}

/// A quoted string: quotes and backslashes are escaped, line breaks written as `\n`.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
