//! Ports: where the inputs and outputs of a plan lie on the ranks, and how they get there and back.
//!
//! Invariants: all boxes were checked against the port and the rank's buffer when the session was
//! created; ports are touched between runs only, when no rank touches anything.

use crate::backend::{Backend, View};
use crate::boxes::Boxes;
use crate::executor::Shared;
use crate::tensor::elements;
use crate::{HostTensor, ResolveFault, RuntimeError};
use terrace_plan::{Binding, Buffer, BufferId, Plan, Port, RankPlan, Region};

/// All ports of a plan.
pub(crate) struct Ports {
    pub(crate) inputs: Vec<Bound>,
    pub(crate) outputs: Vec<Bound>,
}

/// One port on all ranks of this process.
pub(crate) struct Bound {
    parts: Vec<Part>,
    /// Whether a part lies in an arena, where it lasts for one run only.
    pub(crate) fleeting: bool,
}

/// The part of a port that one rank of this process holds.
struct Part {
    seat: usize,
    view: View,
    boxes: Boxes,
}

impl Ports {
    pub(crate) fn new<B: Backend>(shared: &Shared<B>) -> Result<Self, RuntimeError> {
        let plan: &Plan = &shared.plan;
        let inputs = (0..plan.inputs.len()).map(|port| bind(shared, port, |rank| &rank.inputs));
        let inputs: Vec<Bound> = inputs.collect::<Result<_, _>>()?;
        let outputs = (0..plan.outputs.len()).map(|port| bind(shared, port, |rank| &rank.outputs));
        let outputs: Vec<Bound> = outputs.collect::<Result<_, _>>()?;
        for (bound, port) in inputs.iter().zip(&plan.inputs) {
            bound.fits(port, |part, len| part.boxes.fits(len, part.view.len()))?;
        }
        for (bound, port) in outputs.iter().zip(&plan.outputs) {
            bound.fits(port, |part, len| part.boxes.fits(part.view.len(), len))?;
        }
        Ok(Self { inputs, outputs })
    }
}

fn bind<B: Backend>(
    shared: &Shared<B>,
    port: usize,
    side: impl Fn(&RankPlan) -> &[Binding],
) -> Result<Bound, RuntimeError> {
    let mut bound = Bound {
        parts: Vec::new(),
        fleeting: false,
    };
    for (at, seat) in shared.seats.iter().enumerate() {
        let rank = seat.rank;
        let plan = shared.plan.ranks.get(rank.0);
        let plan = plan.ok_or(ResolveFault::NoRank { rank })?;
        let held = |binding: &&Binding| binding.port == port && !binding.boxes.is_empty();
        let Some(binding) = side(plan).iter().find(held) else {
            continue;
        };
        let buffer: BufferId = binding.buffer;
        let fault = ResolveFault::NoBuffer { rank, buffer };
        bound.fleeting |= plan.buffers.get(buffer.0).is_some_and(in_arena);
        bound.parts.push(Part {
            seat: at,
            view: shared.backend.view(&seat.memory, buffer).ok_or(fault)?,
            boxes: Boxes::new(&binding.boxes)?,
        });
    }
    Ok(bound)
}

fn in_arena(buffer: &Buffer) -> bool {
    match buffer.region {
        Region::Arena => true,
        Region::State => false,
    }
}

impl Bound {
    /// Copies a tensor of the port's shape and type to the ranks.
    pub(crate) fn upload<B: Backend>(
        &self,
        shared: &Shared<B>,
        tensor: &HostTensor,
    ) -> Result<(), RuntimeError> {
        let backend = &*shared.backend;
        for part in &self.parts {
            let lane = &shared.seats[part.seat].lane;
            backend.enter(lane, || {
                // SAFETY: no rank runs between two runs, and the caller holds the session alone; the
                // memory of all ranks lives as long as `shared`.
                unsafe { backend.upload(lane, tensor.bytes(), part.view, &part.boxes) }
            })?;
        }
        Ok(())
    }

    /// Copies the parts of all ranks to a tensor of the port's shape and type.
    pub(crate) fn download<B: Backend>(
        &self,
        shared: &Shared<B>,
        tensor: &mut HostTensor,
    ) -> Result<(), RuntimeError> {
        let backend = &*shared.backend;
        for part in &self.parts {
            let host = tensor.bytes_mut();
            let lane = &shared.seats[part.seat].lane;
            backend.enter(lane, || {
                // SAFETY: as for `upload`; several readers at once are harmless.
                unsafe { backend.download(lane, part.view, host, &part.boxes) }
            })?;
        }
        Ok(())
    }

    fn fits(
        &self,
        port: &Port,
        fits: impl Fn(&Part, usize) -> Result<(), RuntimeError>,
    ) -> Result<(), RuntimeError> {
        let len = elements(&port.shape).unwrap_or(0);
        self.parts.iter().try_for_each(|part| fits(part, len))
    }
}
