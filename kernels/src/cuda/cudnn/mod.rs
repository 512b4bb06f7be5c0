//! cuDNN: attention with log-sum-exp and convolution, through its graph interface.
//!
//! A plan is made for one shape, kept, and shared by all calls of that shape; a prepared call adds
//! addresses. Refused: operands that do not begin at a multiple of 16 bytes, and shapes for which
//! cuDNN has no plan.

mod attention;
mod conv3d;
mod descriptor;

pub use attention::{Attention, AttentionOperands, AttentionPlan, HeadStrides};
pub use conv3d::{Conv, ConvOperands, ConvPlan};

use super::device::Device;
use super::element::Float;
use super::fault::CudaFault;
use super::library::Library;
use super::memory::DeviceAddress;
use super::stream::Stream;
use cudarc::cudnn::sys::{
    self, cudnnBackendAttributeName_t as Name, cudnnBackendAttributeType_t as Type,
    cudnnBackendDescriptorType_t as Kind, cudnnBackendHeurMode_t, cudnnDataType_t, cudnnStatus_t,
};
use descriptor::Descriptor;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_void};
use std::sync::{Arc, Mutex, PoisonError};

/// Alignment of all operands in bytes.
const ALIGNMENT: usize = 16;
/// Implementations that are tried.
const CANDIDATES: usize = 8;

/// cuDNN for the work of one queue.
#[derive(Debug)]
pub struct Dnn {
    handle: Arc<Handle>,
    attention: Mutex<BTreeMap<AttentionPlan, Arc<Plan>>>,
    conv: Mutex<BTreeMap<ConvPlan, Arc<Plan>>>,
}

#[derive(Debug)]
struct Handle {
    raw: sys::cudnnHandle_t,
    device: Device,
    stream: Stream,
}

// SAFETY: a handle may move between threads; the plans that share it are made and run by the thread
// of one rank at a time.
unsafe impl Send for Handle {}
// SAFETY: as for `Send`; what `Dnn` does with a shared handle is documented as thread-safe once the
// stream is set, which happens before it is shared.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: made by `Dnn::open`, destroyed once.
            unsafe { sys::cudnnDestroy(self.raw) };
        }
    }
}

impl Dnn {
    /// Opens cuDNN for `stream`.
    ///
    /// # Errors
    /// When the library is absent, too old or fails.
    pub fn open(stream: &Stream) -> Result<Self, CudaFault> {
        Library::Cudnn.require()?;
        stream.device().bind()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the pointer is valid; the device's context is current.
        failed("cudnnCreate", unsafe { sys::cudnnCreate(&raw mut raw) })?;
        let handle = Handle {
            raw,
            device: stream.device().clone(),
            stream: stream.clone(),
        };
        // SAFETY: both are alive, and the handle keeps the stream.
        let set = unsafe { sys::cudnnSetStream(raw, handle.stream.raw().cast()) };
        failed("cudnnSetStream", set)?;
        Ok(Self {
            handle: Arc::new(handle),
            attention: Mutex::default(),
            conv: Mutex::default(),
        })
    }

    /// Finds the plan of `key`, or makes it.
    fn plan<K: Ord + Copy>(
        &self,
        known: &Mutex<BTreeMap<K, Arc<Plan>>>,
        key: K,
        make: impl FnOnce(&Arc<Handle>) -> Result<Plan, CudaFault>,
    ) -> Result<Arc<Plan>, CudaFault> {
        // Whole insertions alone change the map, so a panic elsewhere leaves it sound.
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = known.get(&key) {
            return Ok(Arc::clone(plan));
        }
        self.handle.device.bind()?;
        let plan = Arc::new(make(&self.handle)?);
        known.insert(key, Arc::clone(&plan));
        Ok(plan)
    }
}

/// What is computed: operations in order, and what they refer to.
struct Operations {
    list: Vec<Descriptor>,
    parts: Vec<Descriptor>,
}

/// An implementation of a graph of operations.
#[derive(Debug)]
struct Plan {
    plan: Descriptor,
    workspace: usize,
    // The plan refers to all of them; the handle goes last.
    _parts: Vec<Descriptor>,
    _handle: Arc<Handle>,
}

impl Plan {
    /// The first implementation of operations that cuDNN's heuristics name and that can be made, the best being number
    /// `first` of those that are named; `what` is for messages.
    fn of(
        handle: &Arc<Handle>,
        Operations { list, mut parts }: Operations,
        first: usize,
        what: impl Fn() -> String,
    ) -> Result<Self, CudaFault> {
        let all: Vec<&Descriptor> = list.iter().collect();
        let graph = Descriptor::new(Kind::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?
            .refer(Name::CUDNN_ATTR_OPERATIONGRAPH_OPS, &all)?
            .set(
                Name::CUDNN_ATTR_OPERATIONGRAPH_HANDLE,
                Type::CUDNN_TYPE_HANDLE,
                &[handle.raw],
            )?
            .finish()?;
        let mode = cudnnBackendHeurMode_t::CUDNN_HEUR_MODE_A;
        let heuristics = Descriptor::new(Kind::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?
            .refer(Name::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, &[&graph])?
            .set(
                Name::CUDNN_ATTR_ENGINEHEUR_MODE,
                Type::CUDNN_TYPE_HEUR_MODE,
                &[mode],
            )?
            .finish()?;
        let engine = || Descriptor::new(Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
        let engines: Vec<Descriptor> = (0..CANDIDATES)
            .map(|_| engine())
            .collect::<Result<_, _>>()?;
        let count = heuristics.descriptors(Name::CUDNN_ATTR_ENGINEHEUR_RESULTS, &engines)?;
        let mut reason = "it names no implementation".to_owned();
        for config in engines[..count].iter().skip(first) {
            match Self::implement(handle, config) {
                Ok((plan, workspace)) => {
                    parts.extend(list);
                    parts.push(graph);
                    parts.push(heuristics);
                    parts.extend(engines);
                    return Ok(Self {
                        plan,
                        workspace,
                        _parts: parts,
                        _handle: Arc::clone(handle),
                    });
                }
                Err(fault) => reason = fault.to_string(),
            }
        }
        Err(CudaFault::Unsupported {
            library: Library::Cudnn,
            operation: what(),
            reason,
        })
    }

    fn implement(handle: &Handle, config: &Descriptor) -> Result<(Descriptor, usize), CudaFault> {
        let plan = Descriptor::new(Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?
            .refer(Name::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, &[config])?
            .set(
                Name::CUDNN_ATTR_EXECUTION_PLAN_HANDLE,
                Type::CUDNN_TYPE_HANDLE,
                &[handle.raw],
            )?
            .finish()?;
        let bytes = plan.integer(Name::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)?;
        Ok((plan, usize::try_from(bytes).unwrap_or(0)))
    }
}

/// A plan with addresses.
#[derive(Debug)]
struct Prepared {
    addresses: Descriptor,
    plan: Arc<Plan>,
    handle: Arc<Handle>,
}

impl Prepared {
    /// `tensors`: the id of each tensor and where it lies; host numbers must outlive the result.
    fn new(
        handle: &Arc<Handle>,
        plan: &Arc<Plan>,
        tensors: &[(i64, *mut c_void)],
        workspace: DeviceAddress,
    ) -> Result<Self, CudaFault> {
        let (ids, addresses): (Vec<i64>, Vec<*mut c_void>) = tensors.iter().copied().unzip();
        let pointers = Type::CUDNN_TYPE_VOID_PTR;
        let addresses = Descriptor::new(Kind::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?
            .integers(Name::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, &ids)?
            .set(
                Name::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
                pointers,
                &addresses,
            )?
            .set(
                Name::CUDNN_ATTR_VARIANT_PACK_WORKSPACE,
                pointers,
                &[pointer(workspace)],
            )?
            .finish()?;
        Ok(Self {
            handle: Arc::clone(handle),
            plan: Arc::clone(plan),
            addresses,
        })
    }

    /// # Safety
    /// The tensors are allocated until the plan has ended, as large as it says, and so is the scratch;
    /// nothing that is not ordered before or after it writes them or reads its results.
    unsafe fn run(&self) -> Result<(), CudaFault> {
        self.handle.device.bind()?;
        // SAFETY: plan and addresses belong together; the caller vouches for the addresses.
        let status = unsafe {
            sys::cudnnBackendExecute(self.handle.raw, self.plan.plan.raw(), self.addresses.raw())
        };
        failed("cudnnBackendExecute", status)
    }
}

const fn pointer(address: DeviceAddress) -> *mut c_void {
    address.0 as *mut c_void
}

fn aligned(addresses: &[DeviceAddress], what: impl Fn() -> String) -> Result<(), CudaFault> {
    let odd = |address: &DeviceAddress| !address.0.is_multiple_of(ALIGNMENT as u64);
    if !addresses.iter().any(odd) {
        return Ok(());
    }
    Err(CudaFault::Unsupported {
        library: Library::Cudnn,
        operation: what(),
        reason: format!("an operand does not begin at a multiple of {ALIGNMENT} bytes"),
    })
}

const fn data_type(element: Float) -> cudnnDataType_t {
    match element {
        Float::F32 => cudnnDataType_t::CUDNN_DATA_FLOAT,
        Float::F16 => cudnnDataType_t::CUDNN_DATA_HALF,
        Float::Bf16 => cudnnDataType_t::CUDNN_DATA_BFLOAT16,
    }
}

/// Sizes come from checked plans, whose tensors fit the memory of a machine.
const fn size(value: usize) -> i64 {
    value.cast_signed() as i64
}

fn failed(call: &'static str, status: cudnnStatus_t) -> Result<(), CudaFault> {
    if status == cudnnStatus_t::CUDNN_STATUS_SUCCESS {
        return Ok(());
    }
    let mut text = [0u8; 1024];
    // SAFETY: the library writes a text that ends in zero, as long as the buffer at most.
    unsafe { sys::cudnnGetLastErrorString(text.as_mut_ptr().cast(), text.len()) };
    let text = CStr::from_bytes_until_nul(&text).map_or("", |text| text.to_str().unwrap_or(""));
    let (library, reason) = (Library::Cudnn, format!("{status:?} {text}"));
    // The thousands are the kind of a status.
    let refused = [
        cudnnStatus_t::CUDNN_STATUS_BAD_PARAM as u32 / 1000,
        cudnnStatus_t::CUDNN_STATUS_NOT_SUPPORTED as u32 / 1000,
    ];
    if refused.contains(&(status as u32 / 1000)) {
        return Err(CudaFault::Unsupported {
            library,
            operation: call.to_owned(),
            reason,
        });
    }
    Err(CudaFault::Call {
        library,
        call,
        reason,
    })
}
