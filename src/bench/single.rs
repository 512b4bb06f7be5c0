//! Plans of one kernel, for devices whose kernels are reached through a session only.
//!
//! Invariants: a call repeats the kernel [`REPEATS`] times, so that what surrounds a call weighs little; operands
//! are noise in the type that the device computes in.

use super::{AttentionSize, GemmSize};
use crate::{Error, Precision};
use terrace_plan::{
    Action, AttentionShape, Binding, BoxCopy, Buffer, BufferId, DType, Epilogue, Fingerprint,
    Header, Heads, KernelCall, Mesh, OriginId, Plan, Port, RankPlan, Region, Slot, Step, Weight,
    WeightId, WeightLayout, WeightSource,
};
use terrace_runtime::RuntimeError;

/// How often a call runs the kernel.
pub(super) const REPEATS: u32 = 16;
/// The only input.
pub(super) const INPUT: &str = "x";

/// A product `x [rows, k] W [n, k]^T`.
pub(super) fn gemm(size: GemmSize, precision: Precision) -> Result<Plan, Error> {
    let GemmSize { rows, k, n } = size;
    let mut draft = Draft::new("gemm", precision, &[rows, k])?;
    let len = elements(&[n, k])?;
    draft.plan.weights.push(Weight {
        sources: vec![WeightSource {
            name: "weight".to_owned(),
            aliases: Vec::new(),
            shape: vec![n, k],
        }],
        dtype: precision.into(),
        shape: vec![n, k],
        layout: WeightLayout::Linear,
        boxes: Vec::new(),
        len,
    });
    let y = draft.buffer(Region::Arena, draft.activations, &[rows, n])?;
    let call = KernelCall::Linear {
        rows,
        k,
        n,
        x: draft.x,
        weight: WeightId(0),
        bias: None,
        epilogue: Epilogue::None,
        y,
    };
    draft.repeated(&call)
}

/// An attention whose queries, keys and values lie in one matrix.
pub(super) fn attention(size: AttentionSize, precision: Precision) -> Result<Plan, Error> {
    let AttentionSize {
        tokens,
        heads,
        head_dim,
    } = size;
    let mut draft = Draft::new("attention", precision, &[tokens, 3, heads, head_dim])?;
    let y = draft.buffer(Region::Arena, draft.activations, &[tokens, heads, head_dim])?;
    let width = heads * head_dim;
    let part = |part: usize| Heads {
        slot: Slot {
            offset: part * width,
            ..draft.x
        },
        batch_stride: 3 * tokens * width,
        row_stride: 3 * width,
        head_stride: head_dim,
    };
    let products = match draft.activations {
        DType::Bf16 => DType::Bf16,
        _ => DType::F32,
    };
    let call = KernelCall::Attention {
        shape: AttentionShape {
            batch: 1,
            heads,
            q_rows: tokens,
            kv_rows: tokens,
            head_dim,
            scale: (head_dim as f64).sqrt().recip(),
            products,
        },
        q: part(0),
        k: part(1),
        v: part(2),
        bias: None,
        y: Heads {
            slot: y,
            batch_stride: tokens * width,
            row_stride: width,
            head_stride: head_dim,
        },
    };
    draft.repeated(&call)
}

/// A plan of one rank that begins with its input in the type of activations.
struct Draft {
    plan: Plan,
    activations: DType,
    x: Slot,
}

impl Draft {
    fn new(graph: &str, precision: Precision, shape: &[usize]) -> Result<Self, Error> {
        let activations = precision.between_products();
        let mut draft = Self {
            plan: empty(graph, precision),
            activations,
            x: Slot {
                buffer: BufferId(0),
                offset: 0,
            },
        };
        let len = elements(shape)?;
        draft.plan.inputs.push(Port {
            name: INPUT.to_owned(),
            dtype: DType::F32,
            shape: shape.to_vec(),
        });
        let given = draft.buffer(Region::State, DType::F32, shape)?;
        let whole = BoxCopy {
            extents: vec![len],
            src_offset: 0,
            src_strides: vec![1],
            dst_offset: 0,
            dst_strides: vec![1],
        };
        draft.plan.ranks[0].inputs.push(Binding {
            port: 0,
            buffer: given.buffer,
            boxes: vec![whole],
        });
        draft.x = given;
        if activations != DType::F32 {
            draft.x = draft.buffer(Region::Arena, activations, shape)?;
            let (x, y) = (given, draft.x);
            draft.launch(KernelCall::Cast { len, x, y });
        }
        Ok(draft)
    }

    fn buffer(&mut self, region: Region, dtype: DType, shape: &[usize]) -> Result<Slot, Error> {
        let rank = &mut self.plan.ranks[0];
        let end = match region {
            Region::Arena => &mut rank.arena_bytes,
            Region::State => &mut rank.state_bytes,
        };
        let (len, offset) = (elements(shape)?, *end);
        // Elements were counted in bytes of the widest type.
        let bytes = (len * dtype.bytes()).div_ceil(Buffer::ALIGNMENT) * Buffer::ALIGNMENT;
        *end = offset.checked_add(bytes).ok_or_else(|| too_large(shape))?;
        rank.buffers.push(Buffer {
            region,
            offset,
            dtype,
            len,
        });
        Ok(Slot {
            buffer: BufferId(rank.buffers.len() - 1),
            offset: 0,
        })
    }

    fn launch(&mut self, call: KernelCall) {
        let (origin, action) = (OriginId(0), Action::Launch(call));
        self.plan.ranks[0].steps.push(Step { origin, action });
    }

    fn repeated(mut self, call: &KernelCall) -> Result<Plan, Error> {
        for _ in 0..REPEATS {
            self.launch(call.clone());
        }
        Ok(self.plan)
    }
}

/// Number of elements of a shape that has fewer bytes than addresses reach.
fn elements(shape: &[usize]) -> Result<usize, Error> {
    let count = shape
        .iter()
        .try_fold(1usize, |n, &size| n.checked_mul(size));
    count
        .filter(|&count| count < usize::MAX / 64)
        .ok_or_else(|| too_large(shape))
}

fn too_large(shape: &[usize]) -> Error {
    let shape = shape.to_vec();
    RuntimeError::TensorMemory { shape }.into()
}

fn empty(graph: &str, precision: Precision) -> Plan {
    let rank = RankPlan {
        arena_bytes: 0,
        state_bytes: 0,
        buffers: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        patterns: Vec::new(),
        init: Vec::new(),
        steps: Vec::new(),
    };
    Plan {
        header: Header {
            format: Header::FORMAT,
            producer: graph.to_owned(),
            graph: graph.to_owned(),
            fingerprint: Fingerprint {
                model: graph.to_owned(),
                shape: graph.to_owned(),
                dtype: precision.into(),
                mesh: Mesh::ONE.to_string(),
                kernels: graph.to_owned(),
            },
            request: String::new(),
        },
        mesh: Mesh::ONE,
        partitions: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        carries: Vec::new(),
        weights: Vec::new(),
        collectives: Vec::new(),
        origins: vec![graph.to_owned()],
        ranks: vec![rank],
    }
}
