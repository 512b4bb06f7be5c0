//! NCCL: exchanges between GPUs of several processes and hosts.
//!
//! The library is opened by its own name, which the bindings of `cudarc` do not try, and with the few
//! functions that are needed. Communicators do not block: a call that another rank keeps waiting ends
//! within its time limit, and the communicator is given up.
//!
//! Invariant: a communicator is used by one thread at a time; after a failure it is aborted and refuses
//! everything.

use super::device::Device;
use super::fault::CudaFault;
use super::library::Library;
use super::memory::DeviceAddress;
use super::stream::Stream;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Oldest version that CUDA 13 may be used with and whose communicators do not block: 2.22.
const OLDEST: usize = 22_200;
const SUCCESS: c_int = 0;
const IN_PROGRESS: c_int = 7;
/// The element type of all transfers.
const BYTES: c_int = 1;
const MAGIC: c_uint = 0xcafe_beef;
/// Marks a field of [`Config`] that the library decides.
const UNDEFINED: c_int = c_int::MIN;
/// Time between two looks at a call that has not ended.
const PAUSE: Duration = Duration::from_micros(50);

type Raw = *mut c_void;

/// What all ranks of a communicator have in common; made by one, given to all.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct UniqueId(pub [u8; 128]);

impl std::fmt::Debug for UniqueId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UniqueId").finish_non_exhaustive()
    }
}

/// The fields of `ncclConfig_t` since 2.18; the library fills in those that came later.
#[repr(C)]
struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
    cga_cluster_size: c_int,
    min_ctas: c_int,
    max_ctas: c_int,
    net_name: *const c_char,
    split_share: c_int,
}

impl Config {
    const fn new() -> Self {
        Self {
            size: size_of::<Self>(),
            magic: MAGIC,
            version: OLDEST as c_uint,
            blocking: 0,
            cga_cluster_size: UNDEFINED,
            min_ctas: UNDEFINED,
            max_ctas: UNDEFINED,
            net_name: std::ptr::null(),
            split_share: UNDEFINED,
        }
    }
}

/// The functions of the library.
struct Functions {
    // Unloading it would leave the functions without code.
    _library: libloading::Library,
    version: unsafe extern "C" fn(*mut c_int) -> c_int,
    unique_id: unsafe extern "C" fn(*mut UniqueId) -> c_int,
    init: unsafe extern "C" fn(*mut Raw, c_int, UniqueId, c_int, *mut Config) -> c_int,
    send: unsafe extern "C" fn(*const c_void, usize, c_int, c_int, Raw, *mut c_void) -> c_int,
    receive: unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, Raw, *mut c_void) -> c_int,
    group_start: unsafe extern "C" fn() -> c_int,
    group_end: unsafe extern "C" fn() -> c_int,
    state: unsafe extern "C" fn(Raw, *mut c_int) -> c_int,
    abort: unsafe extern "C" fn(Raw) -> c_int,
    text: unsafe extern "C" fn(c_int) -> *const c_char,
}

static FUNCTIONS: OnceLock<Result<Functions, CudaFault>> = OnceLock::new();

fn functions() -> Result<&'static Functions, CudaFault> {
    FUNCTIONS.get_or_init(load).as_ref().map_err(Clone::clone)
}

fn load() -> Result<Functions, CudaFault> {
    let name = Library::Nccl.file();
    // SAFETY: the library is made to be opened at run time; its initialisers have no precondition.
    let library = unsafe { libloading::Library::new(name) };
    let library = library.map_err(|_| CudaFault::Missing {
        library: Library::Nccl,
    })?;
    // SAFETY: the types are those of nccl.h since the oldest version that `require` admits.
    unsafe {
        Ok(Functions {
            version: symbol(&library, "ncclGetVersion")?,
            unique_id: symbol(&library, "ncclGetUniqueId")?,
            init: symbol(&library, "ncclCommInitRankConfig")?,
            send: symbol(&library, "ncclSend")?,
            receive: symbol(&library, "ncclRecv")?,
            group_start: symbol(&library, "ncclGroupStart")?,
            group_end: symbol(&library, "ncclGroupEnd")?,
            state: symbol(&library, "ncclCommGetAsyncError")?,
            abort: symbol(&library, "ncclCommAbort")?,
            text: symbol(&library, "ncclGetErrorString")?,
            _library: library,
        })
    }
}

/// # Safety
/// `T` is the type of the function `name`.
unsafe fn symbol<T: Copy>(
    library: &libloading::Library,
    name: &'static str,
) -> Result<T, CudaFault> {
    // SAFETY: the same contract.
    let found = unsafe { library.get::<T>(name.as_bytes()) };
    found.map(|symbol| *symbol).map_err(|_| CudaFault::Symbol {
        library: Library::Nccl,
        function: name,
    })
}

/// Whether the library can be opened and has all functions.
pub(super) fn is_present() -> bool {
    functions().is_ok()
}

/// Makes sure that the library is there and new enough.
pub(super) fn require() -> Result<(), CudaFault> {
    let functions = functions()?;
    let mut version = 0;
    // SAFETY: the pointer is valid.
    let status = unsafe { (functions.version)(&raw mut version) };
    functions.result("ncclGetVersion", status)?;
    let found = usize::try_from(version).unwrap_or(0);
    Library::Nccl.at_least(found, OLDEST, version_text)
}

fn version_text(version: usize) -> String {
    let (major, rest) = (version / 10_000, version % 10_000);
    format!("{major}.{}.{}", rest / 100, rest % 100)
}

impl Functions {
    fn result(&self, call: &'static str, status: c_int) -> Result<(), CudaFault> {
        if status == SUCCESS || status == IN_PROGRESS {
            return Ok(());
        }
        // SAFETY: the library returns a text that lives as long as it is loaded, for any number.
        let text = unsafe { CStr::from_ptr((self.text)(status)) };
        Err(CudaFault::Call {
            library: Library::Nccl,
            call,
            reason: text.to_string_lossy().into_owned(),
        })
    }
}

impl UniqueId {
    /// Makes an id; it holds an address of this process at which the other ranks call.
    ///
    /// # Errors
    /// When NCCL is absent, too old or finds no network interface.
    pub fn new() -> Result<Self, CudaFault> {
        Library::Nccl.require()?;
        let functions = functions()?;
        let mut id = Self([0; 128]);
        // SAFETY: the pointer is valid for the 128 bytes of an id.
        let status = unsafe { (functions.unique_id)(&raw mut id) };
        functions.result("ncclGetUniqueId", status)?;
        Ok(id)
    }
}

/// A transfer to or from a peer.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Rank of the peer in the communicator.
    pub peer: usize,
    /// First byte.
    pub address: DeviceAddress,
    /// Number of bytes, not zero.
    pub bytes: usize,
}

/// A rank's end of a group that exchanges.
#[derive(Debug)]
pub struct Communicator {
    device: Device,
    /// Null once it is aborted.
    raw: Mutex<Handle>,
    /// Set before a thread waits for the lock in order to abort.
    given_up: AtomicBool,
    timeout: Duration,
}

#[derive(Debug)]
struct Handle(Raw);

// SAFETY: a communicator may be used from any thread, one at a time; the lock sees to that.
unsafe impl Send for Handle {}

impl Communicator {
    /// Joins the group of `ranks` ranks that share `id`, as number `rank`, with `device`.
    ///
    /// # Errors
    /// When NCCL is absent, fails, or not all ranks have come within `timeout`.
    pub fn connect(
        device: &Device,
        id: UniqueId,
        rank: usize,
        ranks: usize,
        timeout: Duration,
    ) -> Result<Self, CudaFault> {
        Library::Nccl.require()?;
        device.bind()?;
        let (mut raw, mut config) = (std::ptr::null_mut(), Config::new());
        let functions = functions()?;
        // SAFETY: all pointers are valid; the device's context is current.
        let status = unsafe {
            (functions.init)(
                &raw mut raw,
                number(ranks),
                id,
                number(rank),
                &raw mut config,
            )
        };
        functions.result("ncclCommInitRankConfig", status)?;
        let communicator = Self {
            device: device.clone(),
            raw: Mutex::new(Handle(raw)),
            given_up: AtomicBool::new(false),
            timeout,
        };
        // A failure drops the communicator, which aborts it.
        communicator.settle(raw, "joining the other ranks")?;
        Ok(communicator)
    }

    /// Queues all `sends` and `receives` as one. Messages between two ranks are matched in order.
    ///
    /// # Errors
    /// When the communicator was aborted, NCCL fails, or the call does not end in time.
    ///
    /// # Safety
    /// All ranges are allocated until the exchange has ended; nothing that is not ordered before or
    /// after it writes what is sent or touches what is received.
    pub unsafe fn exchange(
        &self,
        sends: &[Message],
        receives: &[Message],
        stream: &Stream,
    ) -> Result<(), CudaFault> {
        self.device.bind()?;
        if sends.is_empty() && receives.is_empty() {
            return Ok(());
        }
        let handle = self.usable()?;
        let functions = functions()?;
        let queue = stream.raw().cast::<c_void>();
        // SAFETY: no precondition.
        functions.result("ncclGroupStart", unsafe { (functions.group_start)() })?;
        let mut queued = Ok(());
        for message in sends {
            // SAFETY: the communicator is alive; the caller vouches for the range.
            let status = unsafe {
                let from = message.address.0 as *const c_void;
                (functions.send)(
                    from,
                    message.bytes,
                    BYTES,
                    number(message.peer),
                    handle.0,
                    queue,
                )
            };
            queued = queued.and(functions.result("ncclSend", status));
        }
        for message in receives {
            // SAFETY: as above.
            let status = unsafe {
                let to = message.address.0 as *mut c_void;
                (functions.receive)(
                    to,
                    message.bytes,
                    BYTES,
                    number(message.peer),
                    handle.0,
                    queue,
                )
            };
            queued = queued.and(functions.result("ncclRecv", status));
        }
        // The group is ended whatever happened in it, so that the thread can go on.
        // SAFETY: begun above on this thread.
        let ended = functions.result("ncclGroupEnd", unsafe { (functions.group_end)() });
        queued.and(ended)?;
        self.settle(handle.0, "an exchange")
    }

    /// Whether the group still works.
    ///
    /// # Errors
    /// What has failed on any of its connections, or that it was aborted.
    pub fn check(&self) -> Result<(), CudaFault> {
        let handle = self.usable()?;
        state(handle.0).map(|_| ())
    }

    /// Ends everything that is under way, on the device as well, also what another thread waits for. Idempotent.
    pub fn abort(&self) {
        self.given_up.store(true, Ordering::Release);
        let mut handle = self.lock();
        let raw = std::mem::replace(&mut handle.0, std::ptr::null_mut());
        if raw.is_null() || self.device.bind().is_err() {
            return;
        }
        if let Ok(functions) = functions() {
            // SAFETY: alive until here, and never used again.
            unsafe { (functions.abort)(raw) };
        }
    }

    fn usable(&self) -> Result<MutexGuard<'_, Handle>, CudaFault> {
        let handle = self.lock();
        if handle.0.is_null() {
            return Err(aborted());
        }
        Ok(handle)
    }

    /// Waits until a call on `raw` has ended.
    fn settle(&self, raw: Raw, what: &'static str) -> Result<(), CudaFault> {
        let since = Instant::now();
        while state(raw)? == IN_PROGRESS {
            if self.given_up.load(Ordering::Acquire) {
                return Err(aborted());
            }
            if since.elapsed() > self.timeout {
                return Err(CudaFault::Timeout {
                    what,
                    seconds: self.timeout.as_secs(),
                });
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Handle> {
        // The handle changes by one assignment, so a panic elsewhere leaves it sound.
        self.raw.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        // Destroying would wait for ranks that may never come.
        self.abort();
    }
}

fn aborted() -> CudaFault {
    CudaFault::Call {
        library: Library::Nccl,
        call: "exchange",
        reason: "the communicator was aborted after an earlier failure".to_owned(),
    }
}

/// Success or in progress; anything else is an error.
fn state(raw: Raw) -> Result<c_int, CudaFault> {
    let functions = functions()?;
    let mut state = SUCCESS;
    // SAFETY: the communicator is alive; the pointer is valid.
    let status = unsafe { (functions.state)(raw, &raw mut state) };
    functions.result("ncclCommGetAsyncError", status)?;
    functions.result("a call of another rank", state)?;
    Ok(state)
}

/// Ranks and group sizes come from plans whose check has passed; they are far below the limit.
fn number(value: usize) -> c_int {
    c_int::try_from(value).unwrap_or(c_int::MAX)
}
