//! What takes calls: a queue of a device.
//!
//! Invariants: a call is prepared once, where everything is checked, and launched many times;
//! launches run in order. Errors of the device itself may come as late as
//! [`Queue::synchronise`], and then concern any launch since the last one.

use cubecl::prelude::Runtime;

use super::call::Call;
use super::device::Device;
use crate::KernelError;

/// Takes calls in order.
pub trait Queue {
    /// Who expands the kernels.
    type Runtime: Runtime;
    /// Memory that operands lie in.
    type Buffer: Clone;
    /// A call with its addresses.
    type Launch: Send + Sync;

    /// The device that calls are made for.
    fn device(&self) -> &Device<Self::Runtime>;

    /// Checks that the operands lie in their buffers, compiles the kernel and resolves addresses.
    ///
    /// # Errors
    /// [`KernelError`] when an operand ends behind its buffer or the kernel does not compile.
    fn prepare(&self, call: &Call<Self::Buffer>) -> Result<Self::Launch, KernelError>;

    /// Launches a prepared call.
    ///
    /// # Errors
    /// [`KernelError::Device`] when the device refuses it.
    ///
    /// # Safety
    /// Operands that the kernel writes overlap no other operand, but for exactly equal regions where
    /// the call allows that; nobody else touches them until the launch has ended.
    unsafe fn launch(&self, launch: &Self::Launch) -> Result<(), KernelError>;

    /// Waits until all launches have ended.
    ///
    /// # Errors
    /// [`KernelError::Device`] when the device failed since the last call.
    fn synchronise(&self) -> Result<(), KernelError>;
}
