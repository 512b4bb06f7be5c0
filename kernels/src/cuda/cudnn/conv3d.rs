//! Convolution over channels-last video: `y = conv(x) + bias + residual`, stride 1.
//!
//! `x` holds the `kt - 1` frames before the first one, so that the convolution is causal; height and
//! width are padded with zeros to keep their size. Operands are f16 or bf16, sums f32.

use super::descriptor::{Descriptor, Place, Tensor};
use super::{Dnn, Handle, Operations, Plan, Prepared, aligned, data_type, pointer, size};
use crate::cuda::element::Float;
use crate::cuda::fault::CudaFault;
use crate::cuda::memory::DeviceAddress;
use cudarc::cudnn::sys::{
    cudnnBackendAttributeName_t as Name, cudnnBackendAttributeType_t as Type,
    cudnnBackendDescriptorType_t as Kind, cudnnConvolutionMode_t, cudnnDataType_t,
    cudnnPointwiseMode_t,
};
use std::ffi::c_void;
use std::sync::Arc;

const X: i64 = 1;
const WEIGHT: i64 = 2;
const Y: i64 = 3;
const BIAS: i64 = 4;
const RESIDUAL: i64 = 5;
/// Results that pass from one operation to the next begin with this id.
const PASSING: i64 = 10;

/// What a plan of convolution is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConvPlan {
    /// Element type of all operands.
    pub element: Float,
    /// Batch items.
    pub batch: usize,
    /// `[frames, height, width]` of the result.
    pub grid: [usize; 3],
    /// Input channels.
    pub cin: usize,
    /// Output channels.
    pub cout: usize,
    /// `[kt, kh, kw]`; `kh` and `kw` are odd.
    pub kernel: [usize; 3],
    /// Whether a bias is added.
    pub with_bias: bool,
    /// Whether a residual is added.
    pub with_residual: bool,
}

/// Where the operands lie.
#[derive(Clone, Copy, Debug)]
pub struct ConvOperands {
    /// `[batch, frames + kt - 1, height, width, cin]`.
    pub x: DeviceAddress,
    /// `[cout, kt, kh, kw, cin]`.
    pub weight: DeviceAddress,
    /// `[cout]`, for plans with a bias.
    pub bias: DeviceAddress,
    /// Shaped as `y`, for plans with a residual; may be `y` itself.
    pub residual: DeviceAddress,
    /// `[batch, frames, height, width, cout]`.
    pub y: DeviceAddress,
}

/// A convolution that is ready to be queued.
#[derive(Debug)]
pub struct Conv(Prepared);

impl Dnn {
    /// Bytes of scratch that the convolution needs.
    ///
    /// # Errors
    /// [`CudaFault::Unsupported`] when cuDNN has no plan for the shape.
    pub fn conv_workspace(&self, key: ConvPlan) -> Result<usize, CudaFault> {
        let plan = self.plan(&self.conv, key, |handle| make(handle, &key))?;
        Ok(plan.workspace)
    }

    /// Prepares a convolution.
    ///
    /// # Errors
    /// [`CudaFault::Unsupported`] when cuDNN has no plan for the shape or an operand is not aligned.
    pub fn conv(
        &self,
        key: ConvPlan,
        at: ConvOperands,
        workspace: DeviceAddress,
    ) -> Result<Conv, CudaFault> {
        aligned(&[at.x, at.weight, at.y, at.bias, at.residual], || {
            describe(&key)
        })?;
        let plan = self.plan(&self.conv, key, |handle| make(handle, &key))?;
        let mut tensors: Vec<(i64, *mut c_void)> = vec![
            (X, pointer(at.x)),
            (WEIGHT, pointer(at.weight)),
            (Y, pointer(at.y)),
        ];
        if key.with_bias {
            tensors.push((BIAS, pointer(at.bias)));
        }
        if key.with_residual {
            tensors.push((RESIDUAL, pointer(at.residual)));
        }
        Prepared::new(&self.handle, &plan, &tensors, workspace).map(Conv)
    }
}

impl Conv {
    /// Queues the convolution on the stream of its [`Dnn`].
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
        unsafe { self.0.run() }
    }
}

/// Elements between neighbours of `[n, c, t, h, w]` whose channels are dense.
const fn channels_last([_, c, t, h, w]: [i64; 5]) -> [i64; 5] {
    [c * t * h * w, 1, h * w * c, w * c, c]
}

fn tensor(
    id: i64,
    element: cudnnDataType_t,
    sizes: [i64; 5],
    place: Place,
) -> Result<Descriptor, CudaFault> {
    Tensor {
        id,
        element,
        sizes: &sizes,
        strides: &channels_last(sizes),
        place,
    }
    .describe()
}

fn make(handle: &Arc<Handle>, key: &ConvPlan) -> Result<Plan, CudaFault> {
    Plan::of(handle, operations(key)?, 0, || describe(key))
}

fn operations(key: &ConvPlan) -> Result<Operations, CudaFault> {
    let element = data_type(key.element);
    let [kt, kh, kw] = key.kernel.map(size);
    let [t, h, w] = key.grid.map(size);
    let (n, cin, cout) = (size(key.batch), size(key.cin), size(key.cout));
    let of_y = [n, cout, t, h, w];
    let x = tensor(X, element, [n, cin, t + kt - 1, h, w], Place::Device)?;
    let weight = tensor(WEIGHT, element, [cout, cin, kt, kh, kw], Place::Device)?;
    let mut added = Vec::new();
    if key.with_bias {
        added.push(tensor(BIAS, element, [1, cout, 1, 1, 1], Place::Device)?);
    }
    if key.with_residual {
        added.push(tensor(RESIDUAL, element, of_y, Place::Device)?);
    }
    // All results but the last stay f32 and never reach memory.
    let last = added.len();
    let results: Vec<Descriptor> = (0..=last)
        .map(|step| {
            if step == last {
                return tensor(Y, element, of_y, Place::Device);
            }
            let id = PASSING + size(step);
            tensor(id, cudnnDataType_t::CUDNN_DATA_FLOAT, of_y, Place::Passing)
        })
        .collect::<Result<_, _>>()?;
    let geometry = geometry([kt, kh, kw])?;
    let mut list = vec![convolve(&geometry, [&x, &weight, &results[0]])?];
    let sum = pointwise_sum()?;
    for (other, pair) in added.iter().zip(results.windows(2)) {
        list.push(add(&sum, [&pair[0], other, &pair[1]])?);
    }
    let mut parts = vec![x, weight, geometry, sum];
    parts.extend(added);
    parts.extend(results);
    Ok(Operations { list, parts })
}

/// How the filter moves: one step at a time, causal in time, centred in height and width.
fn geometry([_, kh, kw]: [i64; 3]) -> Result<Descriptor, CudaFault> {
    let padding = [0, kh / 2, kw / 2];
    Descriptor::new(Kind::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?
        .data_type(
            Name::CUDNN_ATTR_CONVOLUTION_COMP_TYPE,
            cudnnDataType_t::CUDNN_DATA_FLOAT,
        )?
        .set(
            Name::CUDNN_ATTR_CONVOLUTION_CONV_MODE,
            Type::CUDNN_TYPE_CONVOLUTION_MODE,
            &[cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION],
        )?
        .integers(Name::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, &[3])?
        .integers(Name::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, &padding)?
        .integers(Name::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, &padding)?
        .integers(Name::CUDNN_ATTR_CONVOLUTION_DILATIONS, &[1; 3])?
        .integers(Name::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, &[1; 3])?
        .finish()
}

fn convolve(
    geometry: &Descriptor,
    [x, weight, y]: [&Descriptor; 3],
) -> Result<Descriptor, CudaFault> {
    Descriptor::new(Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR)?
        .refer(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, &[x])?
        .refer(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, &[weight])?
        .refer(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, &[y])?
        .refer(
            Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
            &[geometry],
        )?
        .float(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, 1.0)?
        .float(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, 0.0)?
        .finish()
}

fn pointwise_sum() -> Result<Descriptor, CudaFault> {
    Descriptor::new(Kind::CUDNN_BACKEND_POINTWISE_DESCRIPTOR)?
        .set(
            Name::CUDNN_ATTR_POINTWISE_MODE,
            Type::CUDNN_TYPE_POINTWISE_MODE,
            &[cudnnPointwiseMode_t::CUDNN_POINTWISE_ADD],
        )?
        .data_type(
            Name::CUDNN_ATTR_POINTWISE_MATH_PREC,
            cudnnDataType_t::CUDNN_DATA_FLOAT,
        )?
        .finish()
}

fn add(sum: &Descriptor, [x, other, y]: [&Descriptor; 3]) -> Result<Descriptor, CudaFault> {
    Descriptor::new(Kind::CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)?
        .refer(Name::CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, &[sum])?
        .refer(Name::CUDNN_ATTR_OPERATION_POINTWISE_XDESC, &[x])?
        .refer(Name::CUDNN_ATTR_OPERATION_POINTWISE_BDESC, &[other])?
        .refer(Name::CUDNN_ATTR_OPERATION_POINTWISE_YDESC, &[y])?
        .finish()
}

fn describe(key: &ConvPlan) -> String {
    format!(
        "convolution of {:?} video of batch {}, {} to {} channels, filter {:?} in {}",
        key.grid, key.batch, key.cin, key.cout, key.kernel, key.element
    )
}

#[cfg(test)]
mod tests {
    use super::{ConvPlan, Float, operations};

    #[test]
    #[ignore = "needs cuDNN: `.ci/cuda --libraries` brings it"]
    fn cudnn_takes_the_description_of_a_convolution() {
        for (with_bias, with_residual) in [(false, false), (true, false), (true, true)] {
            let key = ConvPlan {
                element: Float::Bf16,
                batch: 1,
                grid: [3, 20, 30],
                cin: 16,
                cout: 32,
                kernel: [3, 3, 3],
                with_bias,
                with_residual,
            };
            operations(&key).unwrap();
        }
    }
}
