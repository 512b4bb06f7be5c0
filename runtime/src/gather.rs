//! Outputs whose parts lie on the ranks of several processes.
//!
//! Every process hands its part to all others, so that each has the whole, and none leaves before all ranks have
//! ended their lists. Invariant: all processes ask for the same outputs in the same order.

use crate::boxes::Boxes;
use crate::peers::{Presence, Tag};
use crate::{HostTensor, ResolveFault, RuntimeError, Waiting};
use std::sync::Arc;
use terrace_plan::{Plan, Rank, StridedBox};

/// The outputs of a plan among processes.
pub(crate) struct Gather {
    presence: Arc<Presence>,
    /// Per output, per rank: where its part lies in the tensor.
    parts: Vec<Vec<Part>>,
}

/// The part of one rank.
struct Part {
    /// From the tensor to elements side by side.
    packed: Boxes,
    /// Back.
    unpacked: Boxes,
}

impl Gather {
    pub(crate) fn new(presence: &Arc<Presence>) -> Result<Self, RuntimeError> {
        let plan = presence.plan();
        let of_port = |port: usize| -> Result<Vec<Part>, RuntimeError> {
            let ranks = 0..plan.ranks.len();
            ranks
                .map(|rank| Part::new(plan, Rank(rank), port))
                .collect()
        };
        let parts = (0..plan.outputs.len()).map(of_port);
        Ok(Self {
            presence: Arc::clone(presence),
            parts: parts.collect::<Result<_, _>>()?,
        })
    }

    /// Completes a tensor of the port's shape and type that holds the part of this process.
    pub(crate) fn complete(
        &self,
        output: usize,
        tensor: &mut HostTensor,
    ) -> Result<(), RuntimeError> {
        let presence = &self.presence;
        let parts = self.parts.get(output).map_or(&[][..], |parts| &parts[..]);
        let size = tensor.dtype().bytes();
        let own = parts.get(presence.rank().0);
        for peer in presence.others() {
            let Some(Part { packed, .. }) = own.filter(|part| !part.packed.is_empty()) else {
                continue;
            };
            let mut bytes = presence.take(packed.elements() * size);
            packed.apply_bytes(size, tensor.bytes(), bytes.bytes_mut())?;
            presence.send(peer, Tag::OUTPUT, bytes);
        }
        for peer in presence.others() {
            let part = parts.get(peer.0);
            let Some(Part { unpacked, .. }) = part.filter(|part| !part.unpacked.is_empty()) else {
                continue;
            };
            let len = unpacked.elements() * size;
            let waiting = Waiting::Output { peer };
            let bytes = presence.receive(peer, Tag::OUTPUT, len, &waiting);
            let bytes = bytes.map_err(|error| error.at(presence.positions(), presence.rank()))?;
            unpacked.apply_bytes(size, bytes.bytes(), tensor.bytes_mut())?;
            presence.give(bytes);
        }
        Ok(())
    }
}

impl Part {
    fn new(plan: &Plan, rank: Rank, port: usize) -> Result<Self, RuntimeError> {
        let own = plan
            .ranks
            .get(rank.0)
            .ok_or(ResolveFault::NoRank { rank })?;
        let bindings = own.outputs.iter().filter(|binding| binding.port == port);
        let boxes = bindings.flat_map(|binding| &binding.boxes);
        let regions: Vec<StridedBox> = boxes.map(|copy| copy.dst()).collect();
        Ok(Self {
            packed: Boxes::packed(&regions)?,
            unpacked: Boxes::unpacked(&regions)?,
        })
    }
}
