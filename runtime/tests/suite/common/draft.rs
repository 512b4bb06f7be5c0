//! A builder of plans: buffers are laid out one after the other, ports are bound rank by rank.
//!
//! `Draft::plan` asserts that the plan passes its check, so that a test cannot run nonsense.

use terrace_plan::{
    Action, Axis, Binding, BoxCopy, Buffer, BufferId, Carry, Collective, CollectiveId,
    CollectiveKind, DType, Fingerprint, Header, Mesh, OriginId, Pattern, PatternId, Plan, Port,
    Rank, RankPlan, Region, Slot, Step, Weight, WeightId,
};

/// A plan in the making.
pub struct Draft {
    plan: Plan,
}

impl Draft {
    /// A plan for `ranks` ranks on the Ulysses axis.
    pub fn new(graph: &str, ranks: usize) -> Self {
        let mesh = Mesh {
            cfg: 1,
            ring: 1,
            ulysses: ranks,
        };
        let empty = RankPlan {
            arena_bytes: 0,
            state_bytes: 0,
            buffers: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            patterns: Vec::new(),
            init: Vec::new(),
            steps: Vec::new(),
        };
        let header = Header {
            format: Header::FORMAT,
            producer: "test".to_owned(),
            graph: graph.to_owned(),
            fingerprint: Fingerprint {
                model: "test".to_owned(),
                shape: "test".to_owned(),
                dtype: DType::F32,
                mesh: mesh.to_string(),
                kernels: "test".to_owned(),
            },
            request: "{}".to_owned(),
        };
        Self {
            plan: Plan {
                header,
                mesh,
                partitions: Vec::new(),
                inputs: Vec::new(),
                outputs: Vec::new(),
                carries: Vec::new(),
                weights: Vec::new(),
                collectives: Vec::new(),
                origins: Vec::new(),
                ranks: vec![empty; ranks],
            },
        }
    }

    /// The plan, which must pass its check.
    pub fn plan(self) -> Plan {
        if let Err(errors) = self.plan.check() {
            panic!("{errors}");
        }
        self.plan
    }

    pub fn input(&mut self, name: &str, dtype: DType, shape: &[usize]) {
        self.plan.inputs.push(port(name, dtype, shape));
    }

    pub fn output(&mut self, name: &str, dtype: DType, shape: &[usize]) {
        self.plan.outputs.push(port(name, dtype, shape));
    }

    pub fn carry(&mut self, output: usize, input: usize) {
        self.plan.carries.push(Carry { output, input });
    }

    pub fn weight(&mut self, weight: Weight) -> WeightId {
        self.plan.weights.push(weight);
        WeightId(self.plan.weights.len() - 1)
    }

    pub fn state(&mut self, rank: usize, len: usize) -> BufferId {
        self.buffer(rank, Region::State, DType::F32, len)
    }

    pub fn arena(&mut self, rank: usize, len: usize) -> BufferId {
        self.buffer(rank, Region::Arena, DType::F32, len)
    }

    pub fn buffer(&mut self, rank: usize, region: Region, dtype: DType, len: usize) -> BufferId {
        let here = &mut self.plan.ranks[rank];
        let end = match region {
            Region::Arena => &mut here.arena_bytes,
            Region::State => &mut here.state_bytes,
        };
        here.buffers.push(Buffer {
            region,
            offset: *end,
            dtype,
            len,
        });
        *end += (len * dtype.bytes()).next_multiple_of(Buffer::ALIGNMENT);
        BufferId(here.buffers.len() - 1)
    }

    /// Binds the next input port of a rank.
    pub fn bind_input(&mut self, rank: usize, buffer: BufferId, boxes: Vec<BoxCopy>) {
        bind(&mut self.plan.ranks[rank].inputs, buffer, boxes);
    }

    /// Binds the next output port of a rank.
    pub fn bind_output(&mut self, rank: usize, buffer: BufferId, boxes: Vec<BoxCopy>) {
        bind(&mut self.plan.ranks[rank].outputs, buffer, boxes);
    }

    pub fn init(&mut self, rank: usize, origin: &str, action: Action) {
        let origin = self.origin(origin);
        self.plan.ranks[rank].init.push(Step { origin, action });
    }

    pub fn step(&mut self, rank: usize, origin: &str, action: Action) {
        let origin = self.origin(origin);
        self.plan.ranks[rank].steps.push(Step { origin, action });
    }

    pub fn pattern(&mut self, rank: usize, pattern: Pattern) -> PatternId {
        let patterns = &mut self.plan.ranks[rank].patterns;
        patterns.push(pattern);
        PatternId(patterns.len() - 1)
    }

    /// A collective of all ranks; `bytes` from row to column.
    pub fn collective(&mut self, kind: CollectiveKind, bytes: Vec<Vec<u64>>) -> CollectiveId {
        self.plan.collectives.push(Collective {
            kind,
            axis: Axis::Ulysses,
            members: (0..self.plan.ranks.len()).map(Rank).collect(),
            bytes,
        });
        CollectiveId(self.plan.collectives.len() - 1)
    }

    fn origin(&mut self, name: &str) -> OriginId {
        let origins = &mut self.plan.origins;
        let known = origins.iter().position(|origin| origin == name);
        OriginId(known.unwrap_or_else(|| {
            origins.push(name.to_owned());
            origins.len() - 1
        }))
    }
}

fn port(name: &str, dtype: DType, shape: &[usize]) -> Port {
    Port {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
    }
}

fn bind(bindings: &mut Vec<Binding>, buffer: BufferId, boxes: Vec<BoxCopy>) {
    bindings.push(Binding {
        port: bindings.len(),
        buffer,
        boxes,
    });
}

/// The beginning of a buffer.
pub fn slot(buffer: BufferId) -> Slot {
    Slot { buffer, offset: 0 }
}

/// The copy of `len` elements from the beginning to the beginning.
pub fn whole(len: usize) -> Vec<BoxCopy> {
    run_box(len, 0, 0)
}

/// The copy of `len` neighbouring elements; no box when there is nothing to copy.
pub fn run_box(len: usize, src: usize, dst: usize) -> Vec<BoxCopy> {
    boxed(&[len], (src, &[1]), (dst, &[1]))
}

/// A strided copy; no box when there is nothing to copy.
pub fn boxed(extents: &[usize], src: (usize, &[usize]), dst: (usize, &[usize])) -> Vec<BoxCopy> {
    if extents.contains(&0) {
        return Vec::new();
    }
    vec![BoxCopy {
        extents: extents.to_vec(),
        src_offset: src.0,
        src_strides: src.1.to_vec(),
        dst_offset: dst.0,
        dst_strides: dst.1.to_vec(),
    }]
}
