//! Attention as one operation of cuDNN: `softmax(scale q k^T) v`, and the log-sum-exp of each row.
//!
//! Operands are f16 or bf16, sums f32. The log-sum-exp is natural, of the scaled scores.

use super::descriptor::{Descriptor, Place, Tensor};
use super::{Dnn, Handle, Operations, Plan, Prepared, aligned, data_type, pointer, size};
use crate::cuda::element::Float;
use crate::cuda::fault::CudaFault;
use crate::cuda::memory::DeviceAddress;
use cudarc::cudnn::sys::{
    cudnnBackendAttributeName_t as Name, cudnnBackendDescriptorType_t as Kind, cudnnDataType_t,
};
use std::sync::Arc;

const Q: i64 = 1;
const K: i64 = 2;
const V: i64 = 3;
const O: i64 = 4;
const LSE: i64 = 5;
const SCALE: i64 = 6;

/// Elements between neighbours of a view `[batch, rows, heads, head_dim]`; channels are dense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeadStrides {
    /// Between batch items.
    pub batch: usize,
    /// Between rows.
    pub row: usize,
    /// Between heads.
    pub head: usize,
}

/// What a plan of attention is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttentionPlan {
    /// Element type of queries, keys, values and result.
    pub element: Float,
    /// Batch items.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Query rows.
    pub q_rows: usize,
    /// Key rows.
    pub kv_rows: usize,
    /// Channels per head.
    pub head_dim: usize,
    /// Of queries, keys, values and result.
    pub strides: [HeadStrides; 4],
    /// Whether the log-sum-exp is written.
    pub with_lse: bool,
}

/// Where the operands lie.
#[derive(Clone, Copy, Debug)]
pub struct AttentionOperands {
    /// Queries.
    pub q: DeviceAddress,
    /// Keys.
    pub k: DeviceAddress,
    /// Values.
    pub v: DeviceAddress,
    /// Result.
    pub y: DeviceAddress,
    /// `[batch, heads, q_rows]` f32, for plans that write it.
    pub lse: DeviceAddress,
}

/// An attention that is ready to be queued.
#[derive(Debug)]
pub struct Attention {
    prepared: Prepared,
    // The prepared plan reads it when it is queued.
    _scale: Box<f32>,
}

impl Dnn {
    /// Bytes of scratch that the attention needs.
    ///
    /// # Errors
    /// [`CudaFault::Unsupported`] when cuDNN has no plan for the shape.
    pub fn attention_workspace(&self, key: AttentionPlan) -> Result<usize, CudaFault> {
        let plan = self.plan(&self.attention, key, |handle| make(handle, &key, 0))?;
        Ok(plan.workspace)
    }

    /// Prepares an attention whose scores are multiplied by `scale`.
    ///
    /// # Errors
    /// [`CudaFault::Unsupported`] when cuDNN has no plan for the shape or an operand is not aligned.
    pub fn attention(
        &self,
        key: AttentionPlan,
        scale: f32,
        at: AttentionOperands,
        workspace: DeviceAddress,
    ) -> Result<Attention, CudaFault> {
        aligned(&[at.q, at.k, at.v, at.y, at.lse], || describe(&key))?;
        let plan = self.plan(&self.attention, key, |handle| make(handle, &key, 0))?;
        self.bind(&plan, key, scale, at, workspace)
    }

    /// Prepares the attention with every implementation that cuDNN names and whose scratch fits in `bytes` bytes at
    /// `workspace`: what the one of [`Dnn::attention`] is measured against.
    ///
    /// # Errors
    /// As for [`Dnn::attention`].
    pub fn attention_all(
        &self,
        key: AttentionPlan,
        scale: f32,
        at: AttentionOperands,
        workspace: DeviceAddress,
        bytes: usize,
    ) -> Result<Vec<Attention>, CudaFault> {
        aligned(&[at.q, at.k, at.v, at.y, at.lse], || describe(&key))?;
        self.handle.device.bind()?;
        let mut all = Vec::new();
        for first in 0.. {
            match make(&self.handle, &key, first) {
                Ok(plan) if plan.workspace > bytes => {}
                Ok(plan) => all.push(self.bind(&Arc::new(plan), key, scale, at, workspace)?),
                // Behind the last.
                Err(CudaFault::Unsupported { .. }) if first > 0 => break,
                Err(fault) => return Err(fault),
            }
        }
        Ok(all)
    }

    fn bind(
        &self,
        plan: &Arc<Plan>,
        key: AttentionPlan,
        scale: f32,
        at: AttentionOperands,
        workspace: DeviceAddress,
    ) -> Result<Attention, CudaFault> {
        let mut scale = Box::new(scale);
        let mut tensors = vec![
            (Q, pointer(at.q)),
            (K, pointer(at.k)),
            (V, pointer(at.v)),
            (O, pointer(at.y)),
            (SCALE, (&raw mut *scale).cast()),
        ];
        if key.with_lse {
            tensors.push((LSE, pointer(at.lse)));
        }
        Ok(Attention {
            prepared: Prepared::new(&self.handle, plan, &tensors, workspace)?,
            _scale: scale,
        })
    }
}

impl Attention {
    /// Queues the attention on the stream of its [`Dnn`].
    ///
    /// # Errors
    /// When cuDNN fails.
    ///
    /// # Safety
    /// The operands and the scratch that it was prepared with are allocated until it has ended, as
    /// large as its plan says; nothing that is not ordered before or after it writes them or reads its
    /// results.
    pub unsafe fn run(&self) -> Result<(), CudaFault> {
        // SAFETY: the same contract.
        unsafe { self.prepared.run() }
    }
}

fn make(handle: &Arc<Handle>, key: &AttentionPlan, first: usize) -> Result<Plan, CudaFault> {
    Plan::of(handle, operations(key)?, first, || describe(key))
}

fn operations(key: &AttentionPlan) -> Result<Operations, CudaFault> {
    let heads = |id, rows: usize, strides: HeadStrides| {
        let sizes = [key.batch, key.heads, rows, key.head_dim].map(size);
        let strides = [strides.batch, strides.head, strides.row, 1].map(size);
        Tensor {
            id,
            element: data_type(key.element),
            sizes: &sizes,
            strides: &strides,
            place: Place::Device,
        }
        .describe()
    };
    let [of_q, of_k, of_v, of_y] = key.strides;
    let q = heads(Q, key.q_rows, of_q)?;
    let k = heads(K, key.kv_rows, of_k)?;
    let v = heads(V, key.kv_rows, of_v)?;
    let y = heads(O, key.q_rows, of_y)?;
    let lse = key.with_lse.then(|| row_tensor(key)).transpose()?;
    let scale = Tensor {
        id: SCALE,
        element: cudnnDataType_t::CUDNN_DATA_FLOAT,
        sizes: &[1; 4],
        strides: &[1; 4],
        place: Place::Host,
    }
    .describe()?;
    let operation = Descriptor::new(Kind::CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR)?
        .refer(Name::CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, &[&q])?
        .refer(Name::CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, &[&k])?
        .refer(Name::CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, &[&v])?
        .refer(Name::CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, &[&y])?
        .refer_maybe(Name::CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC, lse.as_ref())?
        .refer(Name::CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, &[&scale])?
        .finish()?;
    let mut parts = vec![q, k, v, y, scale];
    parts.extend(lse);
    Ok(Operations {
        list: vec![operation],
        parts,
    })
}

/// One number per query row.
fn row_tensor(key: &AttentionPlan) -> Result<Descriptor, CudaFault> {
    let (heads, rows) = (size(key.heads), size(key.q_rows));
    Tensor {
        id: LSE,
        element: cudnnDataType_t::CUDNN_DATA_FLOAT,
        sizes: &[size(key.batch), heads, rows, 1],
        strides: &[heads * rows, rows, 1, 1],
        place: Place::Device,
    }
    .describe()
}

fn describe(key: &AttentionPlan) -> String {
    format!(
        "attention of batch {}, {} heads of {} channels, {} query and {} key rows in {}",
        key.batch, key.heads, key.head_dim, key.q_rows, key.kv_rows, key.element
    )
}

#[cfg(test)]
mod tests {
    use super::{AttentionPlan, Float, HeadStrides, operations};

    #[test]
    #[ignore = "needs cuDNN: `.ci/cuda --libraries` brings it"]
    fn cudnn_takes_the_description_of_an_attention() {
        let strides = HeadStrides {
            batch: 3 * 77 * 256,
            row: 3 * 256,
            head: 64,
        };
        for (element, with_lse) in [
            (Float::F16, true),
            (Float::Bf16, true),
            (Float::Bf16, false),
        ] {
            let key = AttentionPlan {
                element,
                batch: 2,
                heads: 4,
                q_rows: 77,
                kv_rows: 77,
                head_dim: 64,
                strides: [strides; 4],
                with_lse,
            };
            operations(&key).unwrap();
        }
    }
}
