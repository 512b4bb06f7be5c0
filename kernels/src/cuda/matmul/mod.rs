//! Matrix products by cublasLt: `y[rows, n] = epilogue(x[rows, k] W[n, k]^T + bias)`.
//!
//! A [`Product`] is prepared once, with all descriptors, and queued as often as needed. One algorithm
//! serves a weight whatever the number of rows, and none divides `k` between blocks, so a row's bits do
//! not depend on how the rows were cut. f32 operands are multiplied in f32, never in TF32; FP8 ones with
//! a scale for each row, and with sums that are moved to full precision often enough (cublasLt's fast
//! accumulation, which is less exact, stays off).
//!
//! Refused: operands that do not begin at a multiple of 16 bytes, and sizes for which cublasLt has
//! nothing; callers have another kernel for those.

mod descriptor;

use super::device::Device;
use super::element::Float;
use super::fault::CudaFault;
use super::library::Library;
use super::memory::DeviceAddress;
use super::stream::Stream;
use cudarc::cublaslt::result as lt;
use cudarc::cublaslt::result::CublasError;
use cudarc::cublaslt::sys::{
    self, cublasLtMatmulAlgo_t, cublasLtMatmulAlgoConfigAttributes_t as Config,
    cublasLtMatmulHeuristicResult_t,
};
use descriptor::{Layout, Preferences};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, PoisonError};

/// The number of rows that algorithms are chosen for: the order of a video's.
const ROWS: usize = 8192;
/// Algorithms that are looked at.
const CANDIDATES: usize = 16;
/// Algorithms that are asked for where all are wanted.
const ALL: usize = 64;
/// Alignment of all operands in bytes; copies by TMA need it.
pub const ALIGNMENT: usize = 16;
/// Bytes of scratch that a queue needs for products.
pub const WORKSPACE: usize = 32 << 20;

/// What cublasLt does to a product before it stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProductEpilogue {
    /// Nothing.
    None,
    /// Adds the bias.
    Bias,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// Adds the bias, then the tanh approximation of GELU.
    BiasGeluTanh,
}

/// What is multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Factors {
    /// Numbers of the type of the result.
    OfResult,
    /// Codes of FP8 E4M3 with an f32 scale for each row of `x` and of `W`; `k` and `n` are multiples of
    /// [`ALIGNMENT`], and the result has 16 bits.
    F8E4M3,
}

/// What an algorithm is chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProductKind {
    /// Columns of `x`.
    pub k: usize,
    /// Columns of `y`.
    pub n: usize,
    /// What `x` and `W` hold.
    pub factors: Factors,
    /// Element type of the bias and `y`; sums are f32.
    pub element: Float,
    /// What follows the product.
    pub epilogue: ProductEpilogue,
}

/// Where the operands of a product lie.
#[derive(Clone, Copy, Debug)]
pub struct ProductOperands {
    /// `[rows, k]`.
    pub x: DeviceAddress,
    /// `[n, k]`.
    pub weight: DeviceAddress,
    /// `[n]`, for the epilogues with a bias.
    pub bias: DeviceAddress,
    /// `[rows, n]`; apart from all others.
    pub y: DeviceAddress,
    /// `[rows]` and `[n]`, f32, for FP8.
    pub scales: Option<Scales>,
    /// [`WORKSPACE`] bytes.
    pub workspace: DeviceAddress,
}

/// Where the scales of a product lie.
#[derive(Clone, Copy, Debug)]
pub struct Scales {
    /// Those of the rows of `x`.
    pub x: DeviceAddress,
    /// Those of the rows of `W`.
    pub weight: DeviceAddress,
}

/// cublasLt on one device, with the algorithms chosen so far.
#[derive(Debug)]
pub struct Blas {
    handle: Arc<Handle>,
    algorithms: Mutex<BTreeMap<ProductKind, Algorithm>>,
}

#[derive(Debug)]
struct Handle {
    raw: sys::cublasLtHandle_t,
    device: Device,
}

// SAFETY: NVIDIA documents the handle as usable from several threads at once.
unsafe impl Send for Handle {}
// SAFETY: as for `Send`.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: made by `Blas::open`, destroyed once.
            let _ = unsafe { lt::destroy_handle(self.raw) };
        }
    }
}

#[derive(Clone, Copy)]
struct Algorithm(cublasLtMatmulAlgo_t);

impl std::fmt::Debug for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Algorithm").finish_non_exhaustive()
    }
}

impl Blas {
    /// Opens cublasLt for `device`.
    ///
    /// # Errors
    /// When the library is absent, too old or fails.
    pub fn open(device: &Device) -> Result<Self, CudaFault> {
        Library::CublasLt.require()?;
        device.bind()?;
        let raw = lt::create_handle().map_err(|error| failed("cublasLtCreate", error))?;
        Ok(Self {
            handle: Arc::new(Handle {
                raw,
                device: device.clone(),
            }),
            algorithms: Mutex::default(),
        })
    }

    /// Prepares a product of `rows` rows.
    ///
    /// # Errors
    /// [`CudaFault::Unsupported`] when cublasLt has nothing for the sizes or an operand is not aligned.
    pub fn prepare(
        &self,
        kind: ProductKind,
        rows: usize,
        operands: ProductOperands,
    ) -> Result<Product, CudaFault> {
        self.handle.device.bind()?;
        fits(kind, &operands)?;
        self.prepare_by(self.algorithm(kind)?, kind, rows, operands)
    }

    /// Prepares the product with every algorithm that cublasLt names for so many rows, those that divide `k` between
    /// blocks too: what the one of [`Blas::prepare`] is measured against.
    ///
    /// # Errors
    /// As for [`Blas::prepare`].
    pub fn prepare_all(
        &self,
        kind: ProductKind,
        rows: usize,
        operands: ProductOperands,
    ) -> Result<Vec<Product>, CudaFault> {
        self.handle.device.bind()?;
        fits(kind, &operands)?;
        let mut all = Vec::new();
        for algorithm in self.named(kind, rows, ALL)? {
            match self.prepare_by(algorithm, kind, rows, operands) {
                Err(CudaFault::Unsupported { .. }) => {}
                product => all.push(product?),
            }
        }
        Ok(all)
    }

    /// A product with an algorithm.
    fn prepare_by(
        &self,
        algorithm: Algorithm,
        kind: ProductKind,
        rows: usize,
        operands: ProductOperands,
    ) -> Result<Product, CudaFault> {
        let layout = Layout::new(kind, rows)?;
        layout.operation.set_bias(kind.epilogue, operands.bias)?;
        if let Some(scales) = operands.scales {
            layout.operation.set_scales(scales)?;
        }
        self.check(kind, &layout, &algorithm)?;
        Ok(Product {
            handle: Arc::clone(&self.handle),
            layout,
            algorithm,
            operands,
        })
    }

    /// The algorithm of all products of a kind.
    fn algorithm(&self, kind: ProductKind) -> Result<Algorithm, CudaFault> {
        // Whole insertions alone change the map, so a panic elsewhere leaves it sound.
        let mut known = self
            .algorithms
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(algorithm) = known.get(&kind) {
            return Ok(*algorithm);
        }
        let algorithm = self.choose(kind)?;
        known.insert(kind, algorithm);
        Ok(algorithm)
    }

    /// The first algorithm that sums each element in one block.
    fn choose(&self, kind: ProductKind) -> Result<Algorithm, CudaFault> {
        let named = self.named(kind, ROWS, CANDIDATES)?;
        let whole = named.into_iter().find(|algorithm| is_whole(&algorithm.0));
        whole.ok_or_else(|| unsupported(kind, "no algorithm sums an element in one block"))
    }

    /// At most `most` algorithms, those first that cublasLt expects to be the fastest for `rows` rows.
    fn named(
        &self,
        kind: ProductKind,
        rows: usize,
        most: usize,
    ) -> Result<Vec<Algorithm>, CudaFault> {
        let layout = Layout::new(kind, rows)?;
        // Some versions name nothing for a bias that is nowhere; only the alignment of the address counts.
        let somewhere = DeviceAddress(ALIGNMENT as u64);
        layout.operation.set_bias(kind.epilogue, somewhere)?;
        if kind.factors == Factors::F8E4M3 {
            layout.operation.set_scales(Scales {
                x: somewhere,
                weight: somewhere,
            })?;
        }
        let preference = Preferences::new()?;
        let mut found = vec![MaybeUninit::<cublasLtMatmulHeuristicResult_t>::uninit(); most];
        let mut count = 0;
        // SAFETY: all descriptors are alive; the list has room for as many results as are asked for.
        let status = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                self.handle.raw,
                layout.operation.0,
                layout.weight.0,
                layout.x.0,
                layout.y.0,
                layout.y.0,
                preference.0,
                i32::try_from(most).unwrap_or(i32::MAX),
                found.as_mut_ptr().cast(),
                &raw mut count,
            )
        };
        status
            .result()
            .map_err(|error| unsupported(kind, &error.to_string()))?;
        let count = usize::try_from(count).unwrap_or(0).min(most);
        // SAFETY: the library has written the first `count` results.
        let results = found[..count]
            .iter()
            .map(|it| unsafe { it.assume_init_ref() });
        let sound = results.filter(|it| it.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS);
        Ok(sound.map(|it| Algorithm(it.algo)).collect())
    }

    /// Whether the algorithm of a kind works for other rows than those it was chosen for.
    fn check(
        &self,
        kind: ProductKind,
        layout: &Layout,
        algorithm: &Algorithm,
    ) -> Result<(), CudaFault> {
        let mut result = MaybeUninit::<cublasLtMatmulHeuristicResult_t>::uninit();
        // SAFETY: all descriptors and the algorithm are alive; the result has room.
        let status = unsafe {
            sys::cublasLtMatmulAlgoCheck(
                self.handle.raw,
                layout.operation.0,
                layout.weight.0,
                layout.x.0,
                layout.y.0,
                layout.y.0,
                &raw const algorithm.0,
                result.as_mut_ptr(),
            )
        };
        status
            .result()
            .map_err(|error| unsupported(kind, &error.to_string()))?;
        // SAFETY: the library writes the result when it succeeds.
        let result = unsafe { result.assume_init_ref() };
        if result.workspaceSize > WORKSPACE {
            return Err(unsupported(kind, "it needs more scratch than there is"));
        }
        Ok(())
    }
}

/// A product that is ready to be queued.
#[derive(Debug)]
pub struct Product {
    handle: Arc<Handle>,
    layout: Layout,
    algorithm: Algorithm,
    operands: ProductOperands,
}

impl Product {
    /// Queues the product.
    ///
    /// # Errors
    /// When cublasLt fails.
    ///
    /// # Safety
    /// The operands that the product was prepared with are allocated until it has ended, as long as
    /// its kind and rows say; nothing that is not ordered before or after it writes them or reads `y`.
    pub unsafe fn run(&self, stream: &Stream) -> Result<(), CudaFault> {
        self.handle.device.bind()?;
        let (one, zero) = (1.0f32, 0.0f32);
        let pointer = |address: DeviceAddress| address.0 as *mut c_void;
        let Layout {
            operation,
            weight,
            x,
            y,
        } = &self.layout;
        // SAFETY: descriptors and algorithm belong together, as `prepare` has checked; the caller
        // vouches for the operands; the scalars are read before the call returns.
        let status = unsafe {
            sys::cublasLtMatmul(
                self.handle.raw,
                operation.0,
                (&raw const one).cast(),
                pointer(self.operands.weight),
                weight.0,
                pointer(self.operands.x),
                x.0,
                (&raw const zero).cast(),
                pointer(self.operands.y),
                y.0,
                pointer(self.operands.y),
                y.0,
                &raw const self.algorithm.0,
                pointer(self.operands.workspace),
                WORKSPACE,
                stream.raw().cast(),
            )
        };
        status
            .result()
            .map_err(|error| failed("cublasLtMatmul", error))
    }
}

/// Refuses operands that begin anywhere, and scales that do not belong to the factors.
fn fits(kind: ProductKind, operands: &ProductOperands) -> Result<(), CudaFault> {
    let ProductOperands {
        x,
        weight,
        bias,
        y,
        scales,
        ..
    } = *operands;
    let of_scales = scales.map(|scales| [scales.x, scales.weight]);
    let mut starts = [x, weight, bias, y]
        .into_iter()
        .chain(of_scales.into_iter().flatten());
    if starts.any(|a| !a.0.is_multiple_of(ALIGNMENT as u64)) {
        return Err(unsupported(kind, "an operand is not aligned to 16 bytes"));
    }
    if scales.is_some() != (kind.factors == Factors::F8E4M3) {
        return Err(unsupported(kind, "FP8 has scales, other types have none"));
    }
    Ok(())
}

/// Whether one block sums an element over the whole of `k`.
fn is_whole(algorithm: &cublasLtMatmulAlgo_t) -> bool {
    let attribute = |attribute| {
        let (mut value, mut written) = (0u32, 0);
        // SAFETY: the algorithm came from the library; the value has the size of these attributes.
        let status = unsafe {
            sys::cublasLtMatmulAlgoConfigGetAttribute(
                algorithm,
                attribute,
                (&raw mut value).cast(),
                size_of::<u32>(),
                &raw mut written,
            )
        };
        status.result().is_ok().then_some(value)
    };
    let parts = attribute(Config::CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
    let reduction = attribute(Config::CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
    parts.is_none_or(|parts| parts <= 1) && reduction.is_none_or(|scheme| scheme == 0)
}

fn failed(call: &'static str, error: CublasError) -> CudaFault {
    CudaFault::Call {
        library: Library::CublasLt,
        call,
        reason: error.to_string(),
    }
}

fn unsupported(kind: ProductKind, reason: &str) -> CudaFault {
    CudaFault::Unsupported {
        library: Library::CublasLt,
        operation: format!(
            "a product of k={} and n={} in {}{} with epilogue {:?}",
            kind.k,
            kind.n,
            match kind.factors {
                Factors::OfResult => "",
                Factors::F8E4M3 => "FP8 with scales of rows (compute capability 9.0 alone) to ",
            },
            kind.element,
            kind.epilogue
        ),
        reason: reason.to_owned(),
    }
}
