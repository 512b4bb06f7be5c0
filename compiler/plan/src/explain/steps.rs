//! What one rank does: its steps, one line each.
//!
//! ```text
//! rank 0: 1 init step, 3 steps
//! 0  exchange all_to_all c0 ulysses b3 -> b4 pattern=0 sends=48 B receives=32 B   ; blocks.0.attn1
//! 1  launch linear rows=4444 k=3072 n=9216 x=b3 weight=w7 -> y=b5   ; blocks.0.attn1.to_q
//! 2  free b3   ; blocks.0.attn1
//! ```

use super::table::bytes;
use super::{Plain, call_text};
use crate::{Action, BoxCopy, BufferId, CollectiveId, PatternId, Plan, PlanError, Rank, Step};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The steps of one rank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RankSteps {
    /// The rank.
    pub rank: Rank,
    /// Run once per session.
    pub init: Vec<StepLine>,
    /// Run once per call.
    pub steps: Vec<StepLine>,
}

/// One step: what it does, with what sizes, on which operands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepLine {
    /// Index in its list.
    pub index: usize,
    /// `launch`, `exchange`, `wait`, `copy` or `free`.
    pub action: String,
    /// Kernel or kind of collective; absent for copies and frees.
    pub name: Option<String>,
    /// Collective of an exchange or a wait.
    pub collective: Option<CollectiveId>,
    /// Sizes and settings, in a fixed order.
    pub attributes: Vec<Attribute>,
    /// Buffers and weights read.
    pub reads: Vec<Used>,
    /// Buffers written; an operand that is changed in place is also among the reads.
    pub writes: Vec<Used>,
    /// Model path that the step comes from.
    pub origin: String,
}

/// A named size or setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// Name, as in the kernel call.
    pub name: String,
    /// Value.
    pub value: Value,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A size.
    Number(u64),
    /// A setting, or sizes along several dimensions.
    Text(String),
}

/// An operand of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Name of the operand.
    pub operand: String,
    /// Where it is.
    pub place: Place,
}

/// Where an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In a buffer of the rank.
    Buffer {
        /// The buffer.
        id: BufferId,
        /// Its first element.
        offset: usize,
    },
    /// In a weight.
    Weight {
        /// The weight.
        id: crate::WeightId,
    },
}

/// Lists the steps of one rank.
///
/// # Errors
/// [`PlanError::NoRank`] when the plan has no such rank.
pub fn steps(plan: &Plan, rank: Rank) -> Result<RankSteps, PlanError> {
    let here = plan.ranks.get(rank.0).ok_or(PlanError::NoRank {
        found: rank,
        ranks: plan.ranks.len(),
    })?;
    let lines = |steps: &[Step]| {
        let numbered = steps.iter().enumerate();
        numbered
            .map(|(index, step)| line(plan, rank, index, step))
            .collect()
    };
    Ok(RankSteps {
        rank,
        init: lines(&here.init),
        steps: lines(&here.steps),
    })
}

impl RankSteps {
    /// One line per step, under a line that counts them.
    pub fn to_text(&self) -> String {
        self.to_string()
    }

    /// The steps as indented JSON, fields in the order of their types.
    ///
    /// # Errors
    /// [`PlanError::Serialise`] when a part cannot be expressed in JSON.
    pub fn to_json(&self) -> Result<String, PlanError> {
        super::json(self)
    }
}

fn line(plan: &Plan, rank: Rank, index: usize, step: &Step) -> StepLine {
    let origin = plan.origins.get(step.origin.0);
    let mut line = StepLine {
        index,
        action: String::new(),
        name: None,
        collective: None,
        attributes: Vec::new(),
        reads: Vec::new(),
        writes: Vec::new(),
        origin: origin.cloned().unwrap_or_else(|| "?".to_owned()),
    };
    match &step.action {
        Action::Launch(call) => {
            line.set("launch", Some(call.name()));
            call_text::describe(&mut line, call);
        }
        Action::Exchange {
            collective,
            pattern,
            src,
            dst,
        } => {
            line.set("exchange", kind(plan, *collective));
            line.collective = Some(*collective);
            line.moved(*src, *dst);
            traffic(&mut line, plan, rank, *collective, *pattern);
        }
        Action::Wait { collective } => {
            line.set("wait", kind(plan, *collective));
            line.collective = Some(*collective);
        }
        Action::Copy { src, dst, boxes } => {
            line.set("copy", None);
            line.moved(*src, *dst);
            line.number("boxes", boxes.len());
            let sizes = boxes.iter().map(|it| it.elements().unwrap_or(usize::MAX));
            line.number("elements", sizes.fold(0, usize::saturating_add));
        }
        Action::Free { buffer } => {
            line.set("free", None);
            line.reads.push(Used::buffer("buffer", *buffer, 0));
        }
    }
    line
}

fn kind(plan: &Plan, id: CollectiveId) -> Option<&'static str> {
    plan.collectives.get(id.0).map(|it| it.kind.name())
}

/// What an exchange moves, as the table of collectives says.
fn traffic(line: &mut StepLine, plan: &Plan, rank: Rank, id: CollectiveId, pattern: PatternId) {
    line.number("pattern", pattern.0);
    let patterns = plan.ranks.get(rank.0).map(|it| &it.patterns);
    if let Some(pattern) = patterns.and_then(|it| it.get(pattern.0)) {
        let kept = pattern.local.iter().map(BoxCopy::elements);
        let kept = kept.map(|n| n.unwrap_or(usize::MAX));
        line.number("keeps", kept.fold(0, usize::saturating_add));
    }
    let Some(collective) = plan.collectives.get(id.0) else {
        return;
    };
    line.text("axis", collective.axis.name());
    let Some(member) = collective.members.iter().position(|it| *it == rank) else {
        return;
    };
    let sum = |sum: u64, n: &u64| sum.saturating_add(*n);
    let sent = collective.bytes.get(member).into_iter().flatten();
    let received = collective.bytes.iter().filter_map(|row| row.get(member));
    line.text("sends", &bytes(sent.fold(0, sum)));
    line.text("receives", &bytes(received.fold(0, sum)));
}

impl StepLine {
    fn set(&mut self, action: &str, name: Option<&str>) {
        action.clone_into(&mut self.action);
        self.name = name.map(str::to_owned);
    }

    fn moved(&mut self, src: BufferId, dst: BufferId) {
        self.reads.push(Used::buffer("src", src, 0));
        self.writes.push(Used::buffer("dst", dst, 0));
    }

    pub(super) fn number(&mut self, name: &str, value: usize) {
        self.attributes.push(Attribute {
            name: name.to_owned(),
            value: Value::Number(value as u64),
        });
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.attributes.push(Attribute {
            name: name.to_owned(),
            value: Value::Text(value.to_owned()),
        });
    }
}

impl Used {
    pub(super) fn buffer(operand: &str, id: BufferId, offset: usize) -> Self {
        Self {
            operand: operand.to_owned(),
            place: Place::Buffer { id, offset },
        }
    }
}

impl fmt::Display for RankSteps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let (init, steps) = (self.init.len(), self.steps.len());
        writeln!(
            f,
            "rank {}: {init} init step{}, {steps} step{}",
            self.rank,
            plural(init),
            plural(steps)
        )?;
        for (title, lines) in [("init", &self.init), ("steps", &self.steps)] {
            if lines.is_empty() {
                continue;
            }
            writeln!(f, "{title}")?;
            let width = lines.len().saturating_sub(1).to_string().len();
            for line in lines {
                writeln!(f, "  {:>width$}  {line}", line.index)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for StepLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.action)?;
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        if let Some(collective) = self.collective {
            write!(f, " c{}", collective.0)?;
        }
        for Attribute { name, value } in &self.attributes {
            write!(f, " {name}={value}")?;
        }
        for used in &self.reads {
            write!(f, " {used}")?;
        }
        for (index, used) in self.writes.iter().enumerate() {
            write!(f, "{}{used}", if index == 0 { " -> " } else { " " })?;
        }
        write!(f, "   ; {}", Plain(&self.origin))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => write!(f, "{n}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operand = self.operand.replace(' ', "_");
        match self.place {
            Place::Buffer { id, offset: 0 } => write!(f, "{operand}=b{}", id.0),
            Place::Buffer { id, offset } => write!(f, "{operand}=b{}+{offset}", id.0),
            Place::Weight { id } => write!(f, "{operand}=w{}", id.0),
        }
    }
}
