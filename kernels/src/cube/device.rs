//! What kernels must know of the device that they are compiled for.
//!
//! Invariant: an element type that the device lacks is refused before anything is launched, since
//! CubeCL would only report it on the console.

use cubecl::prelude::*;

use super::operand::Element;
use crate::KernelError;

/// A device as kernels see it.
pub struct Device<R: Runtime> {
    client: ComputeClient<R>,
    name: String,
    lacking: Vec<Element>,
}

impl<R: Runtime> Device<R> {
    /// A device with the element types that its client reports; `name` is for messages.
    pub fn new(client: ComputeClient<R>, name: impl Into<String>) -> Self {
        let all = [Element::F32, Element::F16, Element::Bf16, Element::U32];
        let properties = client.properties();
        let lacking = all
            .into_iter()
            .filter(|element| !properties.supports_type(element.storage()))
            .collect();
        let name = name.into();
        Self {
            client,
            name,
            lacking,
        }
    }

    /// A device for kernels that are compiled here and run elsewhere: it refuses no element type.
    pub fn elsewhere(client: ComputeClient<R>, name: impl Into<String>) -> Self {
        Self {
            client,
            name: name.into(),
            lacking: Vec::new(),
        }
    }

    /// Name for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether kernels may have operands of this type.
    pub fn has(&self, element: Element) -> bool {
        !self.lacking.contains(&element)
    }

    pub(super) fn client(&self) -> ComputeClient<R> {
        self.client.clone()
    }

    /// Refuses an element type that the device lacks.
    pub(super) fn require(
        &self,
        kernel: &'static str,
        element: Element,
    ) -> Result<(), KernelError> {
        if self.has(element) {
            return Ok(());
        }
        Err(KernelError::ElementType {
            kernel,
            element: element.name(),
            device: self.name.clone(),
        })
    }
}
