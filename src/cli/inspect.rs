//! `terrace inspect`: what a plan does, and the graphs that it was made from.

use super::args::{self, Format};
use super::console::Console;
use serde_json::json;
use terrace::{Error, Graph, Plan, Rank, Request, explain};
use terrace_compiler::ops::Op;

pub fn inspect(args: args::Inspect, console: &Console) -> Result<(), Error> {
    let plan = Plan::load(&args.plan)?;
    let text = match (args.rank, &args.graph) {
        (Some(rank), _) => steps(&plan, Rank(rank), args.format)?,
        (None, Some(pass)) => graph(&plan, pass, args.format)?,
        (None, None) => whole(&plan, args.format)?,
    };
    console.answer(&text);
    Ok(())
}

fn whole(plan: &Plan, format: Format) -> Result<String, Error> {
    let explanation = explain::Explanation::of(plan);
    Ok(match format {
        Format::Text => explanation.to_text(),
        Format::Json => explanation.to_json()?,
        Format::Dot => explanation.to_dot(),
    })
}

fn steps(plan: &Plan, rank: Rank, format: Format) -> Result<String, Error> {
    let steps = explain::steps(plan, rank)?;
    match format {
        Format::Text => Ok(steps.to_string()),
        Format::Json => Ok(steps.to_json()?),
        Format::Dot => Err(Error::NoForm {
            what: "a rank's list of steps",
            format: "dot",
            expected: "text or json",
        }),
    }
}

fn graph(plan: &Plan, pass: &str, format: Format) -> Result<String, Error> {
    let graph = Request::of(plan)?.graph_after(pass)?;
    Ok(match format {
        Format::Text => graph.to_string(),
        Format::Json => json!({"pass": pass, "graph": graph.to_string()}).to_string(),
        Format::Dot => graph_dot(&graph),
    })
}

/// A Graphviz graph of the nodes, weights left out.
fn graph_dot(graph: &Graph) -> String {
    let mut text = format!("digraph \"{}\" {{\n  node [shape=box];\n", graph.name());
    for id in graph.order() {
        let node = graph.node(id);
        if matches!(node.op, Op::Weight(_)) {
            continue;
        }
        let label = format!("{}\\n{}\\n{}", node.op.name(), node.ty, node.path);
        text.push_str(&format!(
            "  n{} [label=\"{}\"];\n",
            id.0,
            label.replace('"', "'")
        ));
        for operand in graph.operands(id) {
            if !matches!(graph.node(operand).op, Op::Weight(_)) {
                text.push_str(&format!("  n{} -> n{};\n", operand.0, id.0));
            }
        }
    }
    text.push_str("}\n");
    text
}
