//! What a plan says, for people and for programs: the printer behind `terrace inspect`.
//!
//! [`Explanation::of`] gathers the facts of a whole plan in one pass over its steps;
//! [`steps`] lists what one rank does. Both have a text and a JSON form, the whole plan a
//! Graphviz form as well. Everything is read from the plan alone, and nothing here panics on a plan
//! that has not passed [`crate::Plan::check`]: what such a plan does not say is left out.
//!
//! Invariants: equal plans give equal texts; sizes and bytes that overflow saturate.

mod call_text;
mod cuts;
mod dot;
mod facts;
mod steps;
mod table;
mod text;
mod work;

pub use facts::{
    Balance, CarryFacts, Count, Cut, Explanation, KindTraffic, Link, Memory, Part, Quantity,
    RankFacts, Tokens, Traffic, WeightBytes, Work,
};
pub use steps::{Attribute, Place, RankSteps, StepLine, Used, Value, steps};

use crate::{Plan, PlanError, Rank};
use std::fmt;
use std::fmt::Write as _;

impl Explanation {
    /// Gathers the facts of a plan: one pass over the steps of all ranks.
    pub fn of(plan: &Plan) -> Self {
        let cuts = cuts::cuts(plan);
        let mut links = work::Links::default();
        let ranks: Vec<RankFacts> = (0..plan.ranks.len())
            .map(|index| rank_facts(plan, Rank(index), &cuts, &mut links))
            .collect();
        let tokens: Vec<usize> = ranks
            .iter()
            .filter_map(|rank| Some(rank.tokens?.total))
            .collect();
        Self {
            header: plan.header.clone(),
            activations: plan.activations(),
            mesh: plan.mesh,
            token_balance: (tokens.len() == ranks.len())
                .then(|| Balance::of(&tokens))
                .flatten(),
            traffic: links.by_kind(),
            links: links.list(),
            cuts,
            ranks,
            weights: plan.weights.len(),
            inputs: plan.inputs.clone(),
            outputs: plan.outputs.clone(),
            carries: carries(plan),
        }
    }

    /// Aligned tables without colour, readable for one rank and for many.
    pub fn to_text(&self) -> String {
        self.to_string()
    }

    /// The facts as indented JSON, fields in the order of their types.
    ///
    /// # Errors
    /// [`PlanError::Serialise`] when a part cannot be expressed in JSON.
    pub fn to_json(&self) -> Result<String, PlanError> {
        json(self)
    }

    /// A Graphviz graph: the ranks, and on every edge the bytes that one call moves.
    pub fn to_dot(&self) -> String {
        dot::dot(self)
    }
}

fn rank_facts(plan: &Plan, rank: Rank, cuts: &[Cut], links: &mut work::Links) -> RankFacts {
    let here = &plan.ranks[rank.0];
    let parts = cuts::parts(plan, cuts, rank);
    let tally = work::tally(plan, rank, links);
    RankFacts {
        rank,
        tokens: cuts::tokens(cuts, &parts).or(tally.joined),
        parts,
        memory: Memory::of(here.arena_bytes, here.state_bytes, tally.weights),
        traffic: tally.traffic,
        init: tally.init,
        call: tally.call,
    }
}

fn carries(plan: &Plan) -> Vec<CarryFacts> {
    let name = |ports: &[crate::Port], index: usize| {
        ports
            .get(index)
            .map_or_else(|| format!("?{index}"), |port| port.name.clone())
    };
    plan.carries
        .iter()
        .map(|carry| CarryFacts {
            output: name(&plan.outputs, carry.output),
            input: name(&plan.inputs, carry.input),
        })
        .collect()
}

fn json(value: &impl serde::Serialize) -> Result<String, PlanError> {
    let mut text = serde_json::to_string_pretty(value).map_err(PlanError::Serialise)?;
    text.push('\n');
    Ok(text)
}

/// Text of an untrusted plan without control characters, which could drive a terminal.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            f.write_char(if c.is_control() { '?' } else { c })?;
        }
        Ok(())
    }
}
