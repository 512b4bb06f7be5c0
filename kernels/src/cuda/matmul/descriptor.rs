//! Descriptors of cublasLt: made, given attributes, destroyed.
//!
//! Invariant: a descriptor that products share is never changed.

use super::{ALIGNMENT, Factors, ProductEpilogue, ProductKind, Scales, WORKSPACE, failed};
use crate::cuda::element::Float;
use crate::cuda::fault::CudaFault;
use crate::cuda::memory::DeviceAddress;
use cudarc::cublaslt::result as lt;
use cudarc::cublaslt::sys::{
    self, cublasComputeType_t, cublasLtEpilogue_t, cublasLtMatmulDescAttributes_t as Attribute,
    cublasLtMatmulMatrixScale_t as ScaleMode, cublasLtMatmulPreferenceAttributes_t as Preference,
    cudaDataType,
};

/// `CUBLAS_OP_T` of cublas.h.
const TRANSPOSED: i32 = 1;

/// The descriptors of a product. cublasLt counts columns first, so a dense row-major matrix is its
/// own transpose: it computes `y^T = W x^T`, with `W` given as `[k, n]` and transposed.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) operation: Operation,
    pub(super) weight: Matrix,
    pub(super) x: Matrix,
    pub(super) y: Matrix,
}

impl Layout {
    pub(super) fn new(kind: ProductKind, rows: usize) -> Result<Self, CudaFault> {
        let ProductKind {
            k,
            n,
            factors,
            element,
            epilogue,
        } = kind;
        let result = data_type(element);
        let factor = match factors {
            Factors::OfResult => result,
            Factors::F8E4M3 => cudaDataType::CUDA_R_8F_E4M3,
        };
        Ok(Self {
            operation: Operation::new(element, epilogue)?,
            weight: Matrix::new(factor, k, n)?,
            x: Matrix::new(factor, k, rows)?,
            y: Matrix::new(result, n, rows)?,
        })
    }
}

#[derive(Debug)]
pub(super) struct Operation(pub(super) sys::cublasLtMatmulDesc_t);

// SAFETY: a descriptor is plain memory of the library, changed only while it is owned exclusively.
unsafe impl Send for Operation {}
// SAFETY: as for `Send`; shared use only reads.
unsafe impl Sync for Operation {}

impl Operation {
    fn new(element: Float, epilogue: ProductEpilogue) -> Result<Self, CudaFault> {
        let compute = cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let raw = lt::create_matmul_desc(compute, cudaDataType::CUDA_R_32F)
            .map_err(|error| failed("cublasLtMatmulDescCreate", error))?;
        let operation = Self(raw);
        operation.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &TRANSPOSED)?;
        let code = match epilogue {
            ProductEpilogue::None => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_DEFAULT,
            ProductEpilogue::Bias => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS,
            ProductEpilogue::GeluTanh => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU,
            ProductEpilogue::BiasGeluTanh => cublasLtEpilogue_t::CUBLASLT_EPILOGUE_GELU_BIAS,
        };
        operation.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &code)?;
        if has_bias(epilogue) {
            operation.set(
                Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,
                &data_type(element),
            )?;
        }
        Ok(operation)
    }

    pub(super) fn set_bias(
        &self,
        epilogue: ProductEpilogue,
        bias: DeviceAddress,
    ) -> Result<(), CudaFault> {
        if !has_bias(epilogue) {
            return Ok(());
        }
        self.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias.0)
    }

    /// The scale of an element of the result is that of its column, a row of `W`, times that of its row.
    pub(super) fn set_scales(&self, scales: Scales) -> Result<(), CudaFault> {
        let mode = ScaleMode::CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
        self.set(Attribute::CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &mode)?;
        self.set(Attribute::CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &mode)?;
        self.set(
            Attribute::CUBLASLT_MATMUL_DESC_A_SCALE_POINTER,
            &scales.weight.0,
        )?;
        self.set(Attribute::CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &scales.x.0)
    }

    fn set<T>(&self, attribute: Attribute, value: &T) -> Result<(), CudaFault> {
        let value: *const T = value;
        // SAFETY: the descriptor is alive; the library copies as many bytes as the value has.
        let set = unsafe {
            lt::set_matmul_desc_attribute(self.0, attribute, value.cast(), size_of::<T>())
        };
        set.map_err(|error| failed("cublasLtMatmulDescSetAttribute", error))
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once.
        let _ = unsafe { lt::destroy_matmul_desc(self.0) };
    }
}

#[derive(Debug)]
pub(super) struct Matrix(pub(super) sys::cublasLtMatrixLayout_t);

// SAFETY: a descriptor is plain memory of the library and never changed.
unsafe impl Send for Matrix {}
// SAFETY: as for `Send`.
unsafe impl Sync for Matrix {}

impl Matrix {
    /// `rows` are dense in memory.
    fn new(element: cudaDataType, rows: usize, columns: usize) -> Result<Self, CudaFault> {
        let (rows, columns) = (rows as u64, columns as u64);
        lt::create_matrix_layout(element, rows, columns, rows.cast_signed())
            .map(Self)
            .map_err(|error| failed("cublasLtMatrixLayoutCreate", error))
    }
}

impl Drop for Matrix {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once.
        let _ = unsafe { lt::destroy_matrix_layout(self.0) };
    }
}

/// What algorithms are asked for.
pub(super) struct Preferences(pub(super) sys::cublasLtMatmulPreference_t);

impl Preferences {
    pub(super) fn new() -> Result<Self, CudaFault> {
        let raw = lt::create_matmul_pref();
        let preferences =
            Self(raw.map_err(|error| failed("cublasLtMatmulPreferenceCreate", error))?);
        preferences.set(
            Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            &WORKSPACE,
        )?;
        let none = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_NONE;
        preferences.set(
            Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
            &(none as u32),
        )?;
        for attribute in [
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            preferences.set(attribute, &(ALIGNMENT as u32))?;
        }
        Ok(preferences)
    }

    fn set<T>(&self, attribute: Preference, value: &T) -> Result<(), CudaFault> {
        let value: *const T = value;
        // SAFETY: the preference is alive; the library copies as many bytes as the value has.
        let set = unsafe {
            lt::set_matmul_pref_attribute(self.0, attribute, value.cast(), size_of::<T>())
        };
        set.map_err(|error| failed("cublasLtMatmulPreferenceSetAttribute", error))
    }
}

impl Drop for Preferences {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once.
        let _ = unsafe { lt::destroy_matmul_pref(self.0) };
    }
}

const fn has_bias(epilogue: ProductEpilogue) -> bool {
    match epilogue {
        ProductEpilogue::None | ProductEpilogue::GeluTanh => false,
        ProductEpilogue::Bias | ProductEpilogue::BiasGeluTanh => true,
    }
}

const fn data_type(element: Float) -> cudaDataType {
    match element {
        Float::F32 => cudaDataType::CUDA_R_32F,
        Float::F16 => cudaDataType::CUDA_R_16F,
        Float::Bf16 => cudaDataType::CUDA_R_16BF,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        DeviceAddress, Factors, Layout, Preferences, ProductEpilogue, ProductKind, Scales,
    };
    use crate::cuda::element::Float;

    #[test]
    #[ignore = "needs cublasLt: `.ci/cuda --libraries` brings it"]
    fn cublaslt_takes_the_description_of_a_product() {
        Preferences::new().unwrap();
        for element in [Float::F32, Float::F16, Float::Bf16] {
            for epilogue in [
                ProductEpilogue::None,
                ProductEpilogue::Bias,
                ProductEpilogue::GeluTanh,
                ProductEpilogue::BiasGeluTanh,
            ] {
                let (k, n) = (64, 48);
                let kind = ProductKind {
                    k,
                    n,
                    factors: Factors::OfResult,
                    element,
                    epilogue,
                };
                let layout = Layout::new(kind, 5).unwrap();
                let bias = DeviceAddress(256);
                layout.operation.set_bias(epilogue, bias).unwrap();
            }
        }
    }

    #[test]
    #[ignore = "needs cublasLt: `.ci/cuda --libraries` brings it"]
    fn cublaslt_takes_the_description_of_a_scaled_product() {
        for element in [Float::F16, Float::Bf16] {
            let kind = ProductKind {
                k: 64,
                n: 48,
                factors: Factors::F8E4M3,
                element,
                epilogue: ProductEpilogue::Bias,
            };
            let layout = Layout::new(kind, 5).unwrap();
            let scales = Scales {
                x: DeviceAddress(256),
                weight: DeviceAddress(512),
            };
            layout.operation.set_scales(scales).unwrap();
        }
    }
}
