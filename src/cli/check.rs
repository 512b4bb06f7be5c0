//! `terrace check`: proves a plan file sound without running it.

use super::args;
use super::console::{Console, count};
use serde_json::json;
use terrace::{Error, Plan};

pub fn check(args: args::Check, console: &Console) -> Result<(), Error> {
    let plan = Plan::load(&args.plan)?;
    let steps: usize = plan
        .ranks
        .iter()
        .map(|r| r.init.len() + r.steps.len())
        .sum();
    let (ranks, collectives) = (plan.ranks.len(), plan.collectives.len());
    console.result(
        &format!(
            "{}: sound ({}, {}, {})",
            args.plan.display(),
            count(ranks, "rank"),
            count(steps, "step"),
            count(collectives, "collective"),
        ),
        &json!({
            "event": "checked",
            "plan": args.plan,
            "ranks": ranks,
            "steps": steps,
            "collectives": collectives,
        }),
    );
    Ok(())
}
