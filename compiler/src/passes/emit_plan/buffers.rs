//! Buffers of one rank: who they belong to, how long they live, where they end up.
//!
//! A buffer lives from the step that first writes it to the step that frees it. Positions count the
//! steps of both lists, `init` first, so that the two never meet.

use crate::ir::Type;
use crate::passes::plan_memory::{LiveRange, place, stack};
use terrace_plan::{Buffer, BufferId, DType, Region};

/// A buffer before it has an offset.
struct Draft {
    region: Region,
    dtype: DType,
    len: usize,
    live: Option<LiveRange>,
}

/// All buffers of a rank.
#[derive(Default)]
pub(super) struct Buffers(Vec<Draft>);

/// Buffers with offsets, and the size of each region.
pub(super) struct Placed {
    pub(super) buffers: Vec<Buffer>,
    pub(super) arena_bytes: usize,
    pub(super) state_bytes: usize,
}

impl Buffers {
    /// A new buffer for a tensor of type `ty`.
    pub(super) fn add(&mut self, ty: &Type, region: Region) -> BufferId {
        self.0.push(Draft {
            region,
            dtype: ty.dtype,
            len: ty.elements(),
            live: None,
        });
        BufferId(self.0.len() - 1)
    }

    /// Whether `buffer` lies in the arena and holds a tensor like `ty`.
    pub(super) fn reusable_for(&self, buffer: BufferId, ty: &Type) -> bool {
        let it = &self.0[buffer.0];
        it.region == Region::Arena && (it.dtype, it.len) == (ty.dtype, ty.elements())
    }

    /// Elements of a buffer.
    pub(super) fn len(&self, buffer: BufferId) -> usize {
        self.0[buffer.0].len
    }

    /// Notes a write at `position`.
    pub(super) fn written(&mut self, buffer: BufferId, position: usize) {
        let it = &mut self.0[buffer.0];
        let live = it.live.get_or_insert(LiveRange {
            bytes: it.len * it.dtype.bytes(),
            first: position,
            last: position,
        });
        live.last = position;
    }

    /// Whether the buffer must be freed once nobody uses it.
    pub(super) fn needs_free(&self, buffer: BufferId) -> bool {
        let it = &self.0[buffer.0];
        it.region == Region::Arena && it.live.is_some()
    }

    /// Notes that the buffer is freed at `position`.
    pub(super) fn freed(&mut self, buffer: BufferId, position: usize) {
        if let Some(live) = &mut self.0[buffer.0].live {
            live.last = position;
        }
    }

    /// Gives every buffer its offset: the arena by live range, the state side by side.
    pub(super) fn place(self) -> Placed {
        let never = |draft: &Draft| LiveRange {
            bytes: 0,
            first: 0,
            last: draft.len,
        };
        let of = |region| move |draft: &&Draft| draft.region == region;
        let ranges: Vec<LiveRange> = self
            .0
            .iter()
            .filter(of(Region::Arena))
            .map(|draft| draft.live.unwrap_or_else(|| never(draft)))
            .collect();
        let arena = place(&ranges);
        let sizes = self.0.iter().filter(of(Region::State));
        let state = stack(sizes.map(|draft| draft.len * draft.dtype.bytes()));
        let (mut in_arena, mut in_state) = (arena.offsets.iter(), state.offsets.iter());
        let buffers = self.0.iter().map(|draft| {
            let offset = match draft.region {
                Region::Arena => in_arena.next(),
                Region::State => in_state.next(),
            };
            Buffer {
                region: draft.region,
                offset: offset.copied().unwrap_or_default(),
                dtype: draft.dtype,
                len: draft.len,
            }
        });
        Placed {
            buffers: buffers.collect(),
            arena_bytes: arena.bytes,
            state_bytes: state.bytes,
        }
    }
}
