//! Checks of one rank's regions, buffers, bindings and patterns.

use super::cover::{Cover, Written};
use super::faults::RankFault;
use super::tables::{PortSizes, addressable};
use super::violation::{PlanViolation, Side, Violations};
use crate::geometry::{BoxFacts, check_box, check_region};
use crate::{Binding, BoxFault, Buffer, Pattern, Plan, Port, Rank, RankPlan, Region, Transfer};

/// What a legal pattern needs of its buffers.
#[derive(Clone, Copy, Default)]
pub(super) struct PatternFacts {
    /// One past the last element read.
    pub(super) src_end: usize,
    /// One past the last element written.
    pub(super) dst_end: usize,
    /// Elements read.
    pub(super) read: usize,
    /// Elements written.
    pub(super) written: usize,
}

/// Checks the tables of a rank; facts of every pattern, `None` for illegal ones.
pub(super) fn check_rank(
    plan: &Plan,
    rank: Rank,
    ports: &PortSizes,
    cover: &mut Cover,
    found: &mut Violations,
) -> Vec<Option<PatternFacts>> {
    let here = &plan.ranks[rank.0];
    let mut faults = Vec::new();
    check_buffers(here, &mut faults);
    check_state(here, &mut faults);
    for (side, bindings, tensors, sizes) in [
        (Side::Input, &here.inputs, &plan.inputs, &ports.inputs),
        (Side::Output, &here.outputs, &plan.outputs, &ports.outputs),
    ] {
        check_bindings(here, side, bindings, tensors, sizes, &mut faults);
    }
    check_inputs_fill(plan, here, cover, &mut faults);
    check_inputs_apart(plan, here, &mut faults);
    let patterns = here
        .patterns
        .iter()
        .enumerate()
        .map(
            |(index, pattern)| match check_pattern(rank, index, pattern, cover) {
                Ok(facts) => Some(facts),
                Err(fault) => {
                    faults.push(fault);
                    None
                }
            },
        )
        .collect();
    found.extend(
        faults
            .into_iter()
            .map(|fault| PlanViolation::Rank { rank, fault }),
    );
    patterns
}

/// First and one past the last byte; `None` when it overflows or is empty.
pub(super) fn span(buffer: &Buffer) -> Option<(usize, usize)> {
    let end = buffer.offset.checked_add(buffer.bytes()?)?;
    (end > buffer.offset).then_some((buffer.offset, end))
}

fn check_buffers(here: &RankPlan, faults: &mut Vec<RankFault>) {
    let regions = [
        (Region::Arena, here.arena_bytes),
        (Region::State, here.state_bytes),
    ];
    for (region, bytes) in regions {
        if !addressable(bytes) {
            faults.push(RankFault::RegionSize { region, bytes });
        }
    }
    for (index, buffer) in here.buffers.iter().enumerate() {
        if buffer.offset % Buffer::ALIGNMENT != 0 {
            faults.push(RankFault::Unaligned {
                buffer: index,
                offset: buffer.offset,
                expected: Buffer::ALIGNMENT,
            });
        }
        let Some(end) = buffer.bytes().and_then(|n| buffer.offset.checked_add(n)) else {
            faults.push(RankFault::BufferOverflow { buffer: index });
            continue;
        };
        let size = match buffer.region {
            Region::Arena => here.arena_bytes,
            Region::State => here.state_bytes,
        };
        if end > size {
            faults.push(RankFault::Outside {
                buffer: index,
                end,
                region: buffer.region,
                size,
            });
        }
    }
}

fn check_state(here: &RankPlan, faults: &mut Vec<RankFault>) {
    let state = here.buffers.iter().enumerate();
    let state = state.filter(|(_, buffer)| buffer.region == Region::State);
    let spans = state.filter_map(|(index, buffer)| Some((span(buffer)?, index)));
    for (first, second) in overlaps(spans.collect()) {
        faults.push(RankFault::StateOverlap { first, second });
    }
}

/// Pairs of neighbours that share bytes.
fn overlaps(mut spans: Vec<((usize, usize), usize)>) -> Vec<(usize, usize)> {
    spans.sort_unstable();
    let mut pairs = Vec::new();
    let mut widest: Option<(usize, usize)> = None;
    for ((begin, end), index) in spans {
        if let Some((_, other)) = widest.filter(|(reach, _)| *reach > begin) {
            pairs.push((other, index));
        }
        if widest.is_none_or(|(reach, _)| end > reach) {
            widest = Some((end, index));
        }
    }
    pairs
}

fn check_bindings(
    here: &RankPlan,
    side: Side,
    bindings: &[Binding],
    ports: &[Port],
    sizes: &[Option<usize>],
    faults: &mut Vec<RankFault>,
) {
    if bindings.len() != ports.len() {
        faults.push(RankFault::BindingCount {
            side,
            expected: ports.len(),
            found: bindings.len(),
        });
    }
    for (index, ((binding, port), size)) in bindings.iter().zip(ports).zip(sizes).enumerate() {
        if binding.port != index {
            faults.push(RankFault::BindingPort {
                side,
                expected: index,
                found: binding.port,
            });
            continue;
        }
        let Some(buffer) = here.buffers.get(binding.buffer.0) else {
            faults.push(RankFault::BindingBuffer {
                side,
                name: port.name.clone(),
                buffer: binding.buffer.0,
                count: here.buffers.len(),
            });
            continue;
        };
        if buffer.dtype != port.dtype {
            faults.push(RankFault::BindingDType {
                side,
                name: port.name.clone(),
                buffer: binding.buffer.0,
                expected: port.dtype,
                found: buffer.dtype,
            });
        }
        let Some(size) = *size else { continue };
        let (src, dst) = match side {
            Side::Input => (size, buffer.len),
            Side::Output => (buffer.len, size),
        };
        for (index, copy) in binding.boxes.iter().enumerate() {
            if let Err(fault) = check_box(copy).and_then(|facts| facts.inside(src, dst)) {
                faults.push(RankFault::BindingBox {
                    side,
                    name: port.name.clone(),
                    index,
                    fault,
                });
            }
        }
    }
}

/// An input fills the whole of its buffer: what is left out would be garbage of another call.
fn check_inputs_fill(plan: &Plan, here: &RankPlan, cover: &mut Cover, faults: &mut Vec<RankFault>) {
    for (binding, port) in here.inputs.iter().zip(&plan.inputs) {
        let buffer = binding.buffer.0;
        let Some(expected) = here.buffers.get(buffer).map(|it| it.len) else {
            continue;
        };
        // An illegal box is a violation of its own.
        let facts: Option<Vec<BoxFacts>> =
            binding.boxes.iter().map(|it| check_box(it).ok()).collect();
        let inside = |facts: &Vec<BoxFacts>| facts.iter().all(|it| it.dst_end <= expected);
        let Some(facts) = facts.filter(inside) else {
            continue;
        };
        let sizes = facts.iter().map(|it| it.elements);
        let found = sizes.fold(0, usize::saturating_add);
        let name = || port.name.clone();
        if found != expected {
            faults.push(RankFault::InputCount {
                name: name(),
                buffer,
                expected,
                found,
            });
        } else if let Some(element) = cover.twice(expected, binding.boxes.iter().map(Written::by)) {
            faults.push(RankFault::InputTwice {
                name: name(),
                buffer,
                element,
            });
        }
    }
}

/// Input buffers are filled before the first step, so none may lie over another.
fn check_inputs_apart(plan: &Plan, here: &RankPlan, faults: &mut Vec<RankFault>) {
    let mut filled: Vec<(usize, usize)> = here
        .inputs
        .iter()
        .zip(&plan.inputs)
        .enumerate()
        .filter(|(_, (binding, _))| !binding.boxes.is_empty())
        .map(|(port, (binding, _))| (binding.buffer.0, port))
        .collect();
    filled.sort_unstable();
    for pair in filled.windows(2) {
        if pair[0].0 == pair[1].0 {
            faults.push(RankFault::InputShared {
                buffer: pair[0].0,
                first: plan.inputs[pair[0].1].name.clone(),
                second: plan.inputs[pair[1].1].name.clone(),
            });
        }
    }
    filled.dedup_by_key(|(buffer, _)| *buffer);
    let arena = filled.iter().filter_map(|(index, _)| {
        let buffer = here.buffers.get(*index)?;
        (buffer.region == Region::Arena).then_some((span(buffer)?, *index))
    });
    for (first, second) in overlaps(arena.collect()) {
        faults.push(RankFault::InputOverlap { first, second });
    }
}

fn check_pattern(
    rank: Rank,
    pattern: usize,
    it: &Pattern,
    cover: &mut Cover,
) -> Result<PatternFacts, RankFault> {
    let mut facts = PatternFacts::default();
    for (index, copy) in it.local.iter().enumerate() {
        let BoxFacts {
            elements,
            src_end,
            dst_end,
        } = check_box(copy).map_err(|fault| RankFault::PatternBox {
            pattern,
            part: "the local copies",
            index,
            fault,
        })?;
        facts.src_end = facts.src_end.max(src_end);
        facts.dst_end = facts.dst_end.max(dst_end);
        facts.read = facts.read.saturating_add(elements);
        facts.written = facts.written.saturating_add(elements);
    }
    let sends = Part {
        rank,
        pattern,
        name: "the sends",
    };
    let (read, src_end) = sends.check(&it.sends, |_| true)?;
    let receives = Part {
        rank,
        pattern,
        name: "the receives",
    };
    let (written, dst_end) = receives.check(&it.receives, |region| {
        crate::geometry::distinct(&region.extents, &region.strides)
    })?;
    facts.src_end = facts.src_end.max(src_end);
    facts.dst_end = facts.dst_end.max(dst_end);
    facts.read = facts.read.saturating_add(read);
    facts.written = facts.written.saturating_add(written);
    let received = it.receives.iter().flat_map(|transfer| &transfer.boxes);
    let local = it.local.iter().map(Written::by);
    let all = local.chain(received.map(Written::region));
    match cover.twice(facts.dst_end, all) {
        Some(element) => Err(RankFault::PatternTwice { pattern, element }),
        None => Ok(facts),
    }
}

/// The sends or the receives of a pattern.
struct Part {
    rank: Rank,
    pattern: usize,
    name: &'static str,
}

impl Part {
    /// Elements and end of all transfers.
    fn check(
        &self,
        transfers: &[Transfer],
        legal: impl Fn(&crate::StridedBox) -> bool,
    ) -> Result<(usize, usize), RankFault> {
        let (pattern, part) = (self.pattern, self.name);
        let (mut elements, mut end) = (0usize, 0);
        let mut before: Option<Rank> = None;
        for Transfer { peer, boxes } in transfers {
            let found = *peer;
            if found == self.rank {
                return Err(RankFault::PatternSelf { pattern, part });
            }
            if let Some(before) = before.filter(|before| *before >= found) {
                return Err(RankFault::PatternOrder {
                    pattern,
                    part,
                    before,
                    found,
                });
            }
            before = Some(found);
            if boxes.is_empty() {
                let peer = found;
                return Err(RankFault::PatternEmpty {
                    pattern,
                    part,
                    peer,
                });
            }
            for (index, region) in boxes.iter().enumerate() {
                let fault = |fault| RankFault::PatternBox {
                    pattern,
                    part,
                    index,
                    fault,
                };
                let (n, last) =
                    check_region(&region.extents, region.offset, &region.strides).map_err(fault)?;
                if n == 0 {
                    let peer = found;
                    return Err(RankFault::PatternEmpty {
                        pattern,
                        part,
                        peer,
                    });
                }
                if !legal(region) {
                    return Err(fault(BoxFault::Overlap));
                }
                elements = elements.saturating_add(n);
                end = end.max(last);
            }
        }
        Ok((elements, end))
    }
}
