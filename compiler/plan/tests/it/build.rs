//! Builds small valid plans of any mesh: rows are cut over ring x ulysses, heads over ulysses.
//!
//! Every rank adds a table of positions to its rows, exchanges rows for heads, passes its heads
//! around the ring, exchanges them back, multiplies and delivers its rows, which carry over.

use std::ops::Range;
use terrace_plan::*;

/// What to build.
#[derive(Clone, Debug)]
pub struct Spec {
    pub mesh: Mesh,
    /// Offsets over ring x ulysses.
    pub rows: Vec<usize>,
    /// Offsets over ulysses.
    pub heads: Vec<usize>,
    /// Even.
    pub head_dim: usize,
    /// How often the middle part is repeated.
    pub blocks: usize,
}

impl Spec {
    pub fn one() -> Self {
        Self::cut(Mesh::ONE, &[0, 5], &[0, 3])
    }

    /// Rank 0 has 3 rows and 2 heads, rank 1 has 2 rows and 1 head.
    pub fn two() -> Self {
        Self::cut(mesh(1, 1, 2), &[0, 3, 5], &[0, 2, 3])
    }

    pub fn eight() -> Self {
        Self::cut(mesh(2, 2, 2), &[0, 3, 5, 6, 9], &[0, 2, 3])
    }

    pub fn cut(mesh: Mesh, rows: &[usize], heads: &[usize]) -> Self {
        Self {
            mesh,
            rows: rows.to_vec(),
            heads: heads.to_vec(),
            head_dim: 2,
            blocks: 1,
        }
    }

    pub fn plan(&self) -> Plan {
        let mut builder = Builder {
            spec: self,
            collectives: Vec::new(),
            ranks: (0..self.mesh.ranks()).map(|r| self.rank(Rank(r))).collect(),
        };
        builder.steps();
        let (collectives, ranks) = (builder.collectives, builder.ranks);
        Plan {
            header: header(self.mesh),
            mesh: self.mesh,
            partitions: self.partitions(),
            inputs: vec![self.port("x")],
            outputs: vec![self.port("y")],
            carries: vec![Carry {
                output: 0,
                input: 0,
            }],
            weights: self.weights(),
            collectives,
            origins: vec!["embed".into(), "block.attn".into(), "block.out".into()],
            ranks,
        }
    }

    fn width(&self) -> usize {
        self.heads.last().unwrap() * self.head_dim
    }

    fn all_rows(&self) -> usize {
        *self.rows.last().unwrap()
    }

    fn port(&self, name: &str) -> Port {
        Port {
            name: name.into(),
            dtype: DType::F32,
            shape: vec![self.all_rows(), self.width()],
        }
    }

    fn rows_of(&self, rank: Rank) -> Range<usize> {
        let at = self.mesh.coords(rank);
        let slice = at.ring * self.mesh.ulysses + at.ulysses;
        self.rows[slice]..self.rows[slice + 1]
    }

    fn rows_of_ring(&self, ring: usize) -> Range<usize> {
        let first = ring * self.mesh.ulysses;
        self.rows[first]..self.rows[first + self.mesh.ulysses]
    }

    fn heads_of(&self, rank: Rank) -> Range<usize> {
        let ulysses = self.mesh.coords(rank).ulysses;
        self.heads[ulysses]..self.heads[ulysses + 1]
    }

    fn partitions(&self) -> Vec<NamedPartition> {
        let cut = |factors: &str, sizes: Vec<usize>, axes: &[Axis], offsets: &[usize]| {
            let cuts = |axis: &Axis| self.mesh.size(*axis) > 1;
            NamedPartition {
                factors: factors.into(),
                sizes,
                repeat: 1,
                axes: axes.iter().copied().filter(cuts).collect(),
                offsets: offsets.to_vec(),
            }
        };
        let heads = *self.heads.last().unwrap();
        let rows = vec![self.all_rows(), 1];
        vec![
            cut("h.w", rows, &[Axis::Ring, Axis::Ulysses], &self.rows),
            cut("n", vec![heads], &[Axis::Ulysses], &self.heads),
        ]
    }

    fn weights(&self) -> Vec<Weight> {
        let width = self.width();
        let weight = |name: &str, shape: Vec<usize>, layout| Weight {
            sources: vec![WeightSource {
                name: name.into(),
                aliases: Vec::new(),
                shape: shape.clone(),
            }],
            dtype: DType::F32,
            len: shape.iter().product(),
            shape,
            layout,
            boxes: Vec::new(),
        };
        vec![
            weight("out.weight", vec![width, width], WeightLayout::Linear),
            weight("out.bias", vec![width], WeightLayout::Plain),
        ]
    }

    fn rank(&self, rank: Rank) -> RankPlan {
        let (rows, width) = (self.rows_of(rank), self.width());
        let local = rows.len() * width;
        let coords = self.mesh.coords(rank);
        let heads = self.heads_of(rank).len() * self.head_dim;
        let held = self.rows_of_ring(coords.ring).len() * heads;
        let ring = self.mesh.ring;
        let shifted = self.rows_of_ring((coords.ring + ring - 1) % ring).len() * heads;
        let (state, state_bytes) = stack(Region::State, &[local, local], 0);
        let (arena, arena_bytes) = stack(Region::Arena, &[local, held, shifted, held], 0);
        let mut buffers = [state, arena].concat();
        // What was freed before may be used again.
        buffers.push(buffers[2].clone());
        let (rest, arena_bytes) = stack(Region::Arena, &[local, local], arena_bytes);
        buffers.extend(rest);
        let part = dense(rows.len() * width, 0, rows.start * width);
        let whole = |copy: BoxCopy| (copy.extents != [0]).then_some(copy);
        RankPlan {
            arena_bytes,
            state_bytes,
            buffers,
            inputs: vec![Binding {
                port: 0,
                buffer: X,
                boxes: whole(reversed(&part)).into_iter().collect(),
            }],
            outputs: vec![Binding {
                port: 0,
                buffer: OUT,
                boxes: whole(part)
                    .filter(|_| coords.cfg == 0)
                    .into_iter()
                    .collect(),
            }],
            patterns: Vec::new(),
            init: vec![step(0, Action::Launch(self.positions(rank)))],
            steps: Vec::new(),
        }
    }

    fn positions(&self, rank: Rank) -> KernelCall {
        let rows = self.rows_of(rank);
        KernelCall::PositionTable {
            kind: PositionKind::SinCos,
            columns: vec![PositionColumns {
                axis: GridAxis::W,
                dim: self.width(),
                start: 0.0,
                step: 1.0,
            }],
            zero_rows: 0,
            t: 1,
            grid_w: self.all_rows().max(1),
            first_cell: rows.start,
            cells: rows.len(),
            y: slot(POSITIONS),
        }
    }
}

pub const X: BufferId = BufferId(0);
pub const POSITIONS: BufferId = BufferId(1);
pub const ROWS: BufferId = BufferId(2);
pub const HEADS: BufferId = BufferId(3);
pub const SHIFTED: BufferId = BufferId(4);
pub const ACTIVE: BufferId = BufferId(5);
pub const BACK: BufferId = BufferId(6);
pub const Y: BufferId = BufferId(7);
pub const OUT: BufferId = BufferId(8);

struct Builder<'a> {
    spec: &'a Spec,
    collectives: Vec<Collective>,
    ranks: Vec<RankPlan>,
}

impl Builder<'_> {
    fn steps(&mut self) {
        self.each(0, |spec, rank| spec.add_positions(rank));
        for _ in 0..self.spec.blocks {
            self.exchange(Axis::Ulysses, ROWS, HEADS, Spec::to_heads);
            if self.spec.mesh.ring > 1 {
                self.exchange(Axis::Ring, HEADS, SHIFTED, Spec::shifted);
            }
            self.each(1, |spec, rank| spec.activate(rank));
        }
        self.free(ROWS);
        self.exchange(Axis::Ulysses, ACTIVE, BACK, Spec::to_rows);
        self.each(2, |spec, rank| spec.multiply(rank));
        self.each(2, |spec, rank| spec.deliver(rank));
        for buffer in [HEADS, ACTIVE, BACK, Y] {
            self.free(buffer);
        }
        if self.spec.mesh.ring > 1 {
            self.free(SHIFTED);
        }
    }

    fn each(&mut self, origin: usize, action: impl Fn(&Spec, Rank) -> Action) {
        for (index, rank) in self.ranks.iter_mut().enumerate() {
            rank.steps
                .push(step(origin, action(self.spec, Rank(index))));
        }
    }

    fn free(&mut self, buffer: BufferId) {
        let free = Action::Free { buffer };
        self.each(2, |_, _| free.clone());
    }

    /// `moved`: what goes from one rank to another, or stays.
    fn exchange(
        &mut self,
        axis: Axis,
        src: BufferId,
        dst: BufferId,
        moved: fn(&Spec, Rank, Rank) -> Option<BoxCopy>,
    ) {
        let kind = match axis {
            Axis::Ulysses => CollectiveKind::AllToAll,
            Axis::Ring => CollectiveKind::RingShift,
            Axis::Cfg => CollectiveKind::AllGather,
        };
        let mesh = self.spec.mesh;
        for first in (0..mesh.ranks()).map(Rank) {
            let members = mesh.group(first, axis);
            if members[0] != first {
                continue;
            }
            let collective = CollectiveId(self.collectives.len());
            let bytes = |from: &Rank, to: &Rank| match moved(self.spec, *from, *to) {
                Some(copy) if from != to => 4 * copy.elements().unwrap() as u64,
                _ => 0,
            };
            let row = |from| members.iter().map(|to| bytes(from, to)).collect();
            let bytes = members.iter().map(row).collect();
            for &rank in &members {
                let pattern = pattern(self.spec, rank, &members, moved);
                let here = &mut self.ranks[rank.0];
                let known = here.patterns.iter().position(|it| *it == pattern);
                let id = known.unwrap_or(here.patterns.len());
                if known.is_none() {
                    here.patterns.push(pattern);
                }
                here.steps.push(step(
                    1,
                    Action::Exchange {
                        collective,
                        pattern: PatternId(id),
                        src,
                        dst,
                    },
                ));
                here.steps.push(step(1, Action::Wait { collective }));
            }
            self.collectives.push(Collective {
                kind,
                axis,
                members,
                bytes,
            });
        }
    }
}

fn pattern(
    spec: &Spec,
    rank: Rank,
    members: &[Rank],
    moved: fn(&Spec, Rank, Rank) -> Option<BoxCopy>,
) -> Pattern {
    let full = |from, to| moved(spec, from, to).filter(|it| it.elements() != Some(0));
    let peers = || members.iter().copied().filter(|peer| *peer != rank);
    let transfer = |peer, boxes: StridedBox| Transfer {
        peer,
        boxes: vec![boxes],
    };
    Pattern {
        local: full(rank, rank).into_iter().collect(),
        sends: peers()
            .filter_map(|peer| Some(transfer(peer, full(rank, peer)?.src())))
            .collect(),
        receives: peers()
            .filter_map(|peer| Some(transfer(peer, full(peer, rank)?.dst())))
            .collect(),
    }
}

impl Spec {
    fn add_positions(&self, rank: Rank) -> Action {
        Action::Launch(KernelCall::GateAdd {
            rows: self.rows_of(rank).len(),
            width: self.width(),
            gate: None,
            residual: slot(X),
            x: slot(POSITIONS),
            y: slot(ROWS),
        })
    }

    fn activate(&self, rank: Rank) -> Action {
        let rows = self.rows_of_ring(self.mesh.coords(rank).ring).len();
        Action::Launch(KernelCall::Activate {
            len: rows * self.heads_of(rank).len() * self.head_dim,
            function: Activation::Silu,
            x: slot(HEADS),
            y: slot(ACTIVE),
        })
    }

    fn multiply(&self, rank: Rank) -> Action {
        Action::Launch(KernelCall::Linear {
            rows: self.rows_of(rank).len(),
            k: self.width(),
            n: self.width(),
            x: slot(BACK),
            weight: WeightId(0),
            bias: Some(WeightId(1)),
            epilogue: Epilogue::None,
            y: slot(Y),
        })
    }

    fn deliver(&self, rank: Rank) -> Action {
        let len = self.rows_of(rank).len() * self.width();
        Action::Copy {
            src: Y,
            dst: OUT,
            boxes: vec![dense(len, 0, 0)],
        }
    }

    /// Rows of `from`, heads of `to`.
    fn to_heads(&self, from: Rank, to: Rank) -> Option<BoxCopy> {
        let (rows, heads) = (self.rows_of(from), self.heads_of(to));
        let ring = self.rows_of_ring(self.mesh.coords(from).ring);
        let columns = heads.len() * self.head_dim;
        Some(BoxCopy {
            extents: vec![rows.len(), columns],
            src_offset: heads.start * self.head_dim,
            src_strides: vec![self.width(), 1],
            dst_offset: (rows.start - ring.start) * columns,
            dst_strides: vec![columns, 1],
        })
    }

    fn to_rows(&self, from: Rank, to: Rank) -> Option<BoxCopy> {
        Some(reversed(&self.to_heads(to, from)?))
    }

    /// All that `from` holds, to the next rank of the ring.
    fn shifted(&self, from: Rank, to: Rank) -> Option<BoxCopy> {
        let ring = self.mesh.coords(from).ring;
        let next = (ring + 1) % self.mesh.ring;
        let held = self.rows_of_ring(ring).len() * self.heads_of(from).len();
        (self.mesh.coords(to).ring == next).then(|| dense(held * self.head_dim, 0, 0))
    }
}

pub fn mesh(cfg: usize, ring: usize, ulysses: usize) -> Mesh {
    Mesh { cfg, ring, ulysses }
}

pub fn header(mesh: Mesh) -> Header {
    Header {
        format: Header::FORMAT,
        producer: "test 1".into(),
        graph: "step".into(),
        fingerprint: Fingerprint {
            model: "model".into(),
            shape: "5 rows".into(),
            dtype: DType::F32,
            mesh: mesh.to_string(),
            kernels: "kernels 1".into(),
        },
        request: "{}".into(),
    }
}

pub fn slot(buffer: BufferId) -> Slot {
    Slot { buffer, offset: 0 }
}

pub fn step(origin: usize, action: Action) -> Step {
    Step {
        origin: OriginId(origin),
        action,
    }
}

/// A copy of `len` elements side by side.
pub fn dense(len: usize, src_offset: usize, dst_offset: usize) -> BoxCopy {
    BoxCopy {
        extents: vec![len],
        src_offset,
        src_strides: vec![1],
        dst_offset,
        dst_strides: vec![1],
    }
}

pub fn reversed(copy: &BoxCopy) -> BoxCopy {
    BoxCopy {
        extents: copy.extents.clone(),
        src_offset: copy.dst_offset,
        src_strides: copy.dst_strides.clone(),
        dst_offset: copy.src_offset,
        dst_strides: copy.src_strides.clone(),
    }
}

/// Buffers of f32 one after the other from byte `start`, and where they end.
pub fn stack(region: Region, lens: &[usize], start: usize) -> (Vec<Buffer>, usize) {
    let mut end = start;
    let buffers = lens
        .iter()
        .map(|&len| {
            let offset = end;
            end = (offset + 4 * len).next_multiple_of(Buffer::ALIGNMENT);
            Buffer {
                region,
                offset,
                dtype: DType::F32,
                len,
            }
        })
        .collect();
    (buffers, end)
}
