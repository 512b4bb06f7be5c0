//! Checks of the table of collectives and of what their members make of them.
//!
//! That every member issues an exchange once, and in the order of the table, is seen while a
//! rank's steps are walked; here the members are compared with each other.

use super::faults::CollectiveFault;
use super::violation::{PlanViolation, StepList, Violations};
use crate::{Collective, DType, PatternId, Plan, Rank, StridedBox, Transfer};

/// An exchange as one member issues it.
#[derive(Clone, Copy)]
pub(super) struct Issue {
    pub(super) rank: Rank,
    /// The list that it is issued from.
    pub(super) list: StepList,
    pub(super) pattern: PatternId,
    /// Element type of the source; `None` when there is no such buffer.
    pub(super) src: Option<DType>,
    /// Element type of the destination; `None` when there is no such buffer.
    pub(super) dst: Option<DType>,
}

/// Whether each collective's members and matrix are legal.
pub(super) fn check_table(plan: &Plan, found: &mut Violations) -> Vec<bool> {
    plan.collectives
        .iter()
        .enumerate()
        .map(|(index, collective)| {
            let fault = check_members(plan, collective).err();
            let legal = fault.is_none();
            found.extend(fault.map(|fault| PlanViolation::Collective {
                collective: index,
                fault,
            }));
            legal
        })
        .collect()
}

fn check_members(plan: &Plan, collective: &Collective) -> Result<(), CollectiveFault> {
    let members = &collective.members;
    let ranks = plan.ranks.len();
    if let Some(&member) = members.iter().find(|member| member.0 >= ranks) {
        return Err(CollectiveFault::NoRank { member, ranks });
    }
    let group = plan
        .mesh
        .group(members.first().copied().unwrap_or(Rank(0)), collective.axis);
    if *members != group {
        return Err(CollectiveFault::NotAGroup {
            axis: collective.axis,
            expected: group.iter().map(|rank| rank.0).collect(),
            found: members.iter().map(|rank| rank.0).collect(),
        });
    }
    let expected = members.len();
    let square = collective.bytes.len() == expected
        && collective.bytes.iter().all(|row| row.len() == expected);
    if !square {
        return Err(CollectiveFault::Matrix { expected });
    }
    Ok(())
}

/// Compares what the members of every collective issued.
pub(super) fn check_issues(
    plan: &Plan,
    legal: &[bool],
    issues: &[Vec<Issue>],
    found: &mut Violations,
) {
    for (index, (collective, issues)) in plan.collectives.iter().zip(issues).enumerate() {
        if !legal[index] {
            continue;
        }
        let mut report = |fault| {
            found.push(PlanViolation::Collective {
                collective: index,
                fault,
            });
        };
        let mut complete = true;
        for &rank in &collective.members {
            if !issues.iter().any(|issue| issue.rank == rank) {
                complete = false;
                report(CollectiveFault::NotIssued { rank });
            }
        }
        if let Some(fault) = check_lists(issues) {
            report(fault);
        }
        if complete {
            check_pairs(plan, collective, issues, &mut report);
        }
    }
}

/// The lists run apart from each other, so members that issue an exchange from different ones would
/// wait for each other forever.
fn check_lists(issues: &[Issue]) -> Option<CollectiveFault> {
    let (first, rest) = issues.split_first()?;
    let other = rest.iter().find(|issue| issue.list != first.list)?;
    Some(CollectiveFault::Lists {
        rank: first.rank,
        list: first.list,
        other: other.rank,
        other_list: other.list,
    })
}

fn check_pairs(
    plan: &Plan,
    collective: &Collective,
    issues: &[Issue],
    report: &mut impl FnMut(CollectiveFault),
) {
    let by_member: Vec<Option<&Issue>> = collective
        .members
        .iter()
        .map(|rank| issues.iter().find(|issue| issue.rank == *rank))
        .collect();
    for (row, from) in by_member.iter().enumerate() {
        for (column, to) in by_member.iter().enumerate() {
            let (Some(from), Some(to)) = (from, to) else {
                continue;
            };
            let table = collective.bytes[row][column];
            if let Err(fault) = check_pair(plan, from, to, table) {
                report(fault);
            }
        }
    }
}

fn check_pair(plan: &Plan, from: &Issue, to: &Issue, table: u64) -> Result<(), CollectiveFault> {
    let pattern = |issue: &Issue| plan.ranks[issue.rank.0].patterns.get(issue.pattern.0);
    // A missing pattern is a violation of its step.
    let (Some(sending), Some(receiving)) = (pattern(from), pattern(to)) else {
        return Ok(());
    };
    let sent = boxes(&sending.sends, to.rank);
    let received = boxes(&receiving.receives, from.rank);
    let (sender, receiver) = (from.rank, to.rank);
    if sent.len() != received.len() {
        return Err(CollectiveFault::Boxes {
            from: sender,
            to: receiver,
            expected: received.len(),
            found: sent.len(),
        });
    }
    let mut elements = 0usize;
    for (index, (sent, received)) in sent.iter().zip(received).enumerate() {
        if sent.extents != received.extents {
            return Err(CollectiveFault::Extents {
                from: sender,
                to: receiver,
                index,
                expected: received.extents.clone(),
                found: sent.extents.clone(),
            });
        }
        elements = elements.saturating_add(sent.elements().unwrap_or(usize::MAX));
    }
    // A missing buffer is a violation of its step.
    let (Some(found), Some(expected)) = (from.src, to.dst) else {
        return Ok(());
    };
    if !sent.is_empty() && found != expected {
        return Err(CollectiveFault::DType {
            from: sender,
            to: receiver,
            expected,
            found,
        });
    }
    let bytes = (elements as u64).saturating_mul(found.bytes() as u64);
    if bytes != table {
        return Err(CollectiveFault::Bytes {
            from: sender,
            to: receiver,
            expected: bytes,
            found: table,
        });
    }
    Ok(())
}

fn boxes(transfers: &[Transfer], peer: Rank) -> &[StridedBox] {
    transfers
        .iter()
        .find(|transfer| transfer.peer == peer)
        .map_or(&[], |transfer| &transfer.boxes)
}
