//! [`Plan::check`]: proves without running that a plan keeps the rules of the format.
//!
//! A plan is untrusted input. The check never panics, never computes with numbers that may
//! overflow, and allocates no more than a few times what the plan itself takes, apart from one bit
//! per element of one tensor at a time. After it has passed, every operand of every step lies inside
//! a buffer of the right type, nothing is read before it is written, live buffers never share
//! bytes, inputs and exchanges fill their buffers exactly, every element of an output is delivered
//! once, the members of every exchange agree on what moves, and no order of exchanges can hang.
//!
//! What it cannot see: a kernel's result, whether a kernel or a copy wrote the whole of a buffer
//! before it is read, and whether a machine has the memory that the plan asks for.

mod carries;
mod collectives;
mod cover;
mod faults;
mod live;
mod operands;
mod outputs;
mod pending;
mod rank;
mod step_fault;
mod steps;
mod tables;
mod violation;
mod weights;

pub use faults::{CollectiveFault, RankFault};
pub use step_fault::StepFault;
pub use violation::{
    CarryFault, PartitionFault, PlanViolation, Side, StepAt, StepList, WeightFault,
};

use crate::{Plan, PlanErrors, Rank};
use cover::Cover;
use violation::Violations;

impl Plan {
    /// Proves that the plan keeps every rule of the format.
    ///
    /// # Errors
    /// All violations at once. A mesh that does not fit the ranks is reported alone, because
    /// every other rule builds on it.
    pub fn check(&self) -> Result<(), PlanErrors> {
        let mut found = Violations::default();
        tables::check_header(self, &mut found);
        if tables::check_mesh(self, &mut found) {
            check_body(self, &mut found);
        }
        let Violations { list, more } = found;
        if list.is_empty() {
            Ok(())
        } else {
            Err(PlanErrors {
                violations: list,
                more,
            })
        }
    }
}

fn check_body(plan: &Plan, found: &mut Violations) {
    let mut cover = Cover::new();
    tables::check_partitions(plan, found);
    let ports = tables::check_ports(plan, found);
    weights::check_weights(plan, found);
    let groups = collectives::check_table(plan, found);
    let mut issues = vec![Vec::new(); plan.collectives.len()];
    for (index, rank) in plan.ranks.iter().enumerate() {
        let patterns = rank::check_rank(plan, Rank(index), &ports, &mut cover, found);
        let mut walk = steps::Walk::new(plan, Rank(index), &patterns, &mut issues, found);
        walk.init(&rank.init);
        walk.steps(&rank.steps);
    }
    collectives::check_issues(plan, &groups, &issues, found);
    outputs::check_outputs(plan, &ports, &mut cover, found);
    carries::check_carries(plan, found);
}
