//! Parsing: header, slices, then one node per line.

use super::lex::Token;
use super::ops;
use super::reader::{Place, Reader};
use crate::CompileError;
use crate::ir::{Graph, Node, NodeId, Phase, Stage, Type};
use crate::ops::{Op, infer};

/// The graph that a text shows.
///
/// # Errors
/// [`CompileError::Text`] with line and column: the text is not of the text form, or a node's type
/// is not the one that its op infers.
pub fn parse(text: &str) -> Result<Graph, CompileError> {
    let from = &mut Reader::new(text);
    from.expect_word("mesh")?;
    let mesh = from.value()?;
    from.end_of_line()?;
    let mut graph = Graph::new(&name(from)?);
    graph.mesh = mesh;
    graph.stage = from.key("stage")?;
    let scheduled = from.take_word("order");
    if scheduled {
        from.expect('=')?;
        from.expect_word("fixed")?;
    }
    from.expect('{')?;
    from.end_of_line()?;
    graph.slices = from.value()?;
    let mut nodes = Vec::new();
    while !from.take('}') {
        let node = node(from, &mut graph, &nodes)?;
        nodes.push(node);
        from.end_of_line()?;
    }
    from.end_of_line()?;
    if *from.peek() != Token::EndOfText {
        return Err(from.wrong("the end of the text"));
    }
    if scheduled {
        graph.set_schedule(nodes);
    }
    Ok(graph)
}

/// `graph block`, or `graph "any name"`.
fn name(from: &mut Reader<'_>) -> Result<String, CompileError> {
    from.expect_word("graph")?;
    match from.peek() {
        Token::Quoted(_) => from.value(),
        _ => from.word("the name of the graph").map(str::to_owned),
    }
}

fn node(
    from: &mut Reader<'_>,
    graph: &mut Graph,
    nodes: &[NodeId],
) -> Result<NodeId, CompileError> {
    let number = nodes.len().to_string();
    if *from.peek() != Token::Node(&number) {
        return Err(from.wrong(format!("`%{number}` or `}}`")));
    }
    from.next();
    from.expect('=')?;
    let at_op = from.place();
    let name = from.word("an op")?;
    let mut operands = Vec::new();
    while let Token::Node(operand) = *from.peek() {
        let node = operand.parse().ok().and_then(|n: usize| nodes.get(n));
        operands.push(*node.ok_or_else(|| from.wrong(format!("a node before `%{number}`")))?);
        from.next();
    }
    let op = ops::read(name, from)?.ok_or_else(|| at_op.error("an op", format!("`{name}`")))?;
    if *from.peek() != Token::Mark(':') {
        return Err(from.wrong("`:` or an attribute"));
    }
    let at_type = from.place();
    let (ty, sharding) = from.read_annotation()?;
    if graph.stage != Stage::Local {
        check_type(graph, &op, &operands, &ty, at_op, at_type)?;
    }
    let phase = if from.take_word("init") {
        Phase::Init
    } else {
        Phase::Step
    };
    let path = match from.peek().clone() {
        Token::Path(path) => {
            from.next();
            path.into()
        }
        _ => "".into(),
    };
    let node = Node {
        op,
        ty,
        sharding,
        path,
        phase,
    };
    Ok(graph.insert(node, &operands))
}

fn check_type(
    graph: &Graph,
    op: &Op,
    operands: &[NodeId],
    written: &Type,
    at_op: Place,
    at_type: Place,
) -> Result<(), CompileError> {
    let types: Vec<&Type> = operands.iter().map(|&o| &graph.node(o).ty).collect();
    let inferred = infer(op, &types)
        .map_err(|e| at_op.error(format!("{} of {}", op.name(), e.expected), e.found))?;
    if inferred == *written {
        return Ok(());
    }
    Err(at_type.error(
        format!("{inferred}, which {} infers", op.name()),
        written.to_string(),
    ))
}
