//! Which kernel a call goes to: a library's, or the one written in CubeCL.
//!
//! Invariant: the choice depends on the call and its element types alone, never on the number of rows
//! or where operands lie, so that it is the same on every rank and for every cut.

use terrace_kernels::cuda::{
    ALIGNMENT, AttentionPlan, ConvPlan, Factors, Float, HeadStrides, ProductEpilogue,
};
use terrace_plan::{AttentionShape, ConvShape, DType, Epilogue, Heads};

/// Channels of a head at most for cuDNN.
const HEAD_DIM: usize = 128;
/// What the number of channels is a multiple of for cuDNN: 16 bytes of 16-bit elements.
const CHANNELS: usize = 8;

/// The type of activations as NVIDIA's libraries call it.
pub(super) const fn float(dtype: DType) -> Option<Float> {
    match dtype {
        DType::F32 => Some(Float::F32),
        DType::F16 => Some(Float::F16),
        DType::Bf16 => Some(Float::Bf16),
        DType::U32 | DType::I8 | DType::F8E4M3 => None,
    }
}

/// What follows a product inside cublasLt and what is left for a kernel behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProductRoute {
    pub(super) factors: Factors,
    pub(super) element: Float,
    pub(super) epilogue: ProductEpilogue,
    pub(super) rest: Rest,
}

/// What cublasLt does not do behind a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    Nothing,
    /// GELU by the error function, in place.
    Gelu,
    /// The tanh form of GELU, in place.
    GeluTanh,
    /// `x * sigmoid(x)`, in place.
    Silu,
    /// Gate and residual; the product goes to scratch.
    Residual,
}

/// cublasLt multiplies operands of one type, or in FP8 for a result of 16 bits, whose rows begin at multiples
/// of 16 bytes. Behind scaled products only its bias is known to work. `sizes`: `k`, `n`.
pub(super) fn product(
    x: DType,
    weight: DType,
    sizes: [usize; 2],
    epilogue: &Epilogue,
    with_bias: bool,
) -> Option<ProductRoute> {
    let element = float(x)?;
    let (factors, bytes) = match weight {
        DType::F8E4M3 if element != Float::F32 => (Factors::F8E4M3, weight.bytes()),
        same if same == x => (Factors::OfResult, element.bytes()),
        DType::F32 | DType::F16 | DType::Bf16 | DType::U32 | DType::I8 | DType::F8E4M3 => {
            return None;
        }
    };
    let even = |size: usize| (size * bytes).is_multiple_of(ALIGNMENT);
    if !sizes.into_iter().all(even) {
        return None;
    }
    let plain = match with_bias {
        true => ProductEpilogue::Bias,
        false => ProductEpilogue::None,
    };
    let (epilogue, rest) = match (epilogue, with_bias) {
        (Epilogue::None, _) => (plain, Rest::Nothing),
        (Epilogue::Gelu, _) => (plain, Rest::Gelu),
        (Epilogue::Silu, _) => (plain, Rest::Silu),
        (Epilogue::Residual { .. }, _) => (plain, Rest::Residual),
        (Epilogue::GeluTanh, _) if factors == Factors::F8E4M3 => (plain, Rest::GeluTanh),
        (Epilogue::GeluTanh, true) => (ProductEpilogue::BiasGeluTanh, Rest::Nothing),
        (Epilogue::GeluTanh, false) => (ProductEpilogue::GeluTanh, Rest::Nothing),
    };
    Some(ProductRoute {
        factors,
        element,
        epilogue,
        rest,
    })
}

/// cuDNN's attention takes 16-bit operands and no bias. `views`: queries, keys, values and, for a
/// whole attention, its result; steps write theirs densely.
pub(super) fn attention(
    x: DType,
    shape: AttentionShape,
    views: [&Heads; 3],
    result: Option<&Heads>,
) -> Option<AttentionPlan> {
    let element = float(x).filter(|&element| element != Float::F32)?;
    let AttentionShape {
        batch,
        heads,
        q_rows,
        kv_rows,
        head_dim,
        ..
    } = shape;
    let some = [batch, heads, q_rows, kv_rows, head_dim]
        .iter()
        .all(|&size| size > 0);
    if !some || head_dim > HEAD_DIM || !head_dim.is_multiple_of(CHANNELS) {
        return None;
    }
    // One batch item may have any stride in a plan, but cuDNN takes none of zero.
    let strides = |view: &Heads, rows: usize| HeadStrides {
        batch: match batch {
            1 => view.row_stride * rows,
            _ => view.batch_stride,
        },
        row: view.row_stride,
        head: view.head_stride,
    };
    let [q, k, v] = views;
    let dense = HeadStrides {
        batch: q_rows * heads * head_dim,
        row: heads * head_dim,
        head: head_dim,
    };
    Some(AttentionPlan {
        element,
        batch,
        heads,
        q_rows,
        kv_rows,
        head_dim,
        strides: [
            strides(q, q_rows),
            strides(k, kv_rows),
            strides(v, kv_rows),
            result.map_or(dense, |y| strides(y, q_rows)),
        ],
        with_lse: result.is_none(),
    })
}

/// cuDNN's convolution takes 16-bit operands whose pixels begin at multiples of 16 bytes.
pub(super) fn conv(
    x: DType,
    shape: ConvShape,
    with_bias: bool,
    with_residual: bool,
) -> Option<ConvPlan> {
    let element = float(x).filter(|&element| element != Float::F32)?;
    let even = shape.cin.is_multiple_of(CHANNELS) && shape.cout.is_multiple_of(CHANNELS);
    if shape.batch == 0 || shape.grid.contains(&0) || !even {
        return None;
    }
    Some(ConvPlan {
        element,
        batch: shape.batch,
        grid: shape.grid,
        cin: shape.cin,
        cout: shape.cout,
        kernel: shape.kernel,
        with_bias,
        with_residual,
    })
}

#[cfg(test)]
mod tests {
    use super::{ProductEpilogue, Rest, attention, product};
    use terrace_kernels::cuda::{Factors, Float};
    use terrace_plan::{AttentionShape, BufferId, DType, Epilogue, Heads, Slot};

    #[test]
    fn products_of_one_type_go_to_the_library() {
        let (bf16, f32) = (DType::Bf16, DType::F32);
        let route = product(bf16, bf16, [64, 32], &Epilogue::GeluTanh, true).unwrap();
        assert_eq!((route.element, route.rest), (Float::Bf16, Rest::Nothing));
        assert_eq!(route.epilogue, ProductEpilogue::BiasGeluTanh);
        let route = product(f32, f32, [4, 8], &Epilogue::Silu, false).unwrap();
        assert_eq!(
            (route.epilogue, route.rest),
            (ProductEpilogue::None, Rest::Silu)
        );
        // Rows that begin anywhere.
        assert_eq!(product(bf16, bf16, [64, 12], &Epilogue::None, true), None);
        // Narrow weights under f32 activations, and integers.
        assert_eq!(product(f32, bf16, [64, 32], &Epilogue::None, true), None);
        assert_eq!(
            product(f32, DType::I8, [64, 32], &Epilogue::None, true),
            None
        );
    }

    #[test]
    fn products_in_fp8_have_results_of_16_bits() {
        let (bf16, fp8) = (DType::Bf16, DType::F8E4M3);
        let route = product(bf16, fp8, [64, 32], &Epilogue::GeluTanh, true).unwrap();
        assert_eq!(
            (route.factors, route.element),
            (Factors::F8E4M3, Float::Bf16)
        );
        assert_eq!(
            (route.epilogue, route.rest),
            (ProductEpilogue::Bias, Rest::GeluTanh)
        );
        assert_eq!(product(bf16, fp8, [64, 24], &Epilogue::None, true), None);
        assert_eq!(
            product(DType::F32, fp8, [64, 32], &Epilogue::None, true),
            None
        );
    }

    #[test]
    fn attention_of_halves_goes_to_the_library() {
        let view = Heads {
            slot: Slot {
                buffer: BufferId(0),
                offset: 0,
            },
            batch_stride: 7,
            row_stride: 6,
            head_stride: 5,
        };
        let shape = AttentionShape {
            batch: 2,
            heads: 3,
            q_rows: 4,
            kv_rows: 5,
            head_dim: 64,
            scale: 0.125,
            products: DType::F32,
        };
        let views = [&view; 3];
        let whole = attention(DType::F16, shape, views, Some(&view)).unwrap();
        assert!(!whole.with_lse);
        assert_eq!(whole.strides[3], whole.strides[0]);
        let step = attention(DType::Bf16, shape, views, None).unwrap();
        assert!(step.with_lse);
        let dense = step.strides[3];
        assert_eq!(
            (dense.batch, dense.row, dense.head),
            (4 * 3 * 64, 3 * 64, 64)
        );
        assert_eq!(attention(DType::F32, shape, views, None), None);
        for head_dim in [0, 12, 136] {
            let shape = AttentionShape { head_dim, ..shape };
            assert_eq!(attention(DType::F16, shape, views, None), None);
        }
        let shape = AttentionShape {
            kv_rows: 0,
            ..shape
        };
        assert_eq!(attention(DType::F16, shape, views, None), None);
    }
}
