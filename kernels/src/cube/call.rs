//! A launch described apart from the queue that takes it: kernel, grid, operands and scalars.
//!
//! Invariants: a call owns all that a launch needs but addresses; operands stand in the order in which
//! the kernel declares its arrays. Every kernel takes, right behind its arrays, one `u32` per array:
//! the vectors between the place that the queue binds and the operand ("lead"), because a queue may
//! only be able to bind at coarser steps than the plan's. All scalars fit 32 bits.

use std::sync::Arc;

use cubecl::InfoBuilder;
use cubecl::prelude::*;
use cubecl::server::MetadataBindingInfo;

use super::device::Device;
use super::operand::{Element, Operand};
use crate::{KernelError, check};

/// Cubes along the first dimension of a grid at most; every API allows as many.
const GRID: usize = 1 << 15;

/// A kernel of any kind, shared by the calls that launch it.
#[derive(Clone)]
pub struct Kernel {
    kernel: Arc<dyn CubeKernel>,
    id: KernelId,
}

impl KernelMetadata for Kernel {
    fn name(&self) -> &'static str {
        self.kernel.name()
    }

    fn id(&self) -> KernelId {
        self.id.clone()
    }

    fn address_type(&self) -> StorageType {
        self.kernel.address_type()
    }
}

impl CubeKernel for Kernel {
    fn define(&self) -> KernelDefinition {
        self.kernel.define()
    }
}

/// One launch, apart from the queue that takes it.
pub struct Call<B> {
    pub(super) name: &'static str,
    kernel: Kernel,
    grid: [u32; 3],
    operands: Vec<(Operand<B>, usize)>,
    scalars: Scalars,
}

impl<B> Call<B> {
    /// Name of the kernel in messages.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The kernel.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Cubes along each dimension; none is 0.
    pub fn grid(&self) -> [u32; 3] {
        self.grid
    }

    /// The operands in the order of the kernel's arrays.
    pub fn operands(&self) -> impl ExactSizeIterator<Item = &Operand<B>> {
        self.operands.iter().map(|(operand, _)| operand)
    }

    /// The block of lengths and scalars that the kernel reads, where `leads` has for each operand the
    /// elements between the bound place and its first one.
    ///
    /// # Errors
    /// [`KernelError::Argument`] when a lead splits a vector or does not fit 32 bits.
    pub fn info(&self, leads: &[usize]) -> Result<MetadataBindingInfo, KernelError> {
        let mut info = InfoBuilder::default();
        for ((operand, width), &lead) in self.operands.iter().zip(leads) {
            if lead % width != 0 {
                let expected = format!("a multiple of {width} elements");
                let found = lead.to_string();
                return Err(check::argument(self.name, "lead", expected, found));
            }
            let length = (lead + operand.len).div_ceil(*width) as u64;
            let address = AddressType::U32;
            info.metadata.register_array(length, length, address);
            info.scalars.push(word(self.name, "lead", lead / width)?);
        }
        self.scalars.0.iter().for_each(|scalar| match *scalar {
            Scalar::U32(value) => info.scalars.push(value),
            Scalar::F32(value) => info.scalars.push(value),
        });
        Ok(info.finish(AddressType::U32))
    }
}

/// Builds the calls of one kernel for one device.
pub(super) struct Builder<'a, R: Runtime, B> {
    name: &'static str,
    device: &'a Device<R>,
    operands: Vec<(Operand<B>, usize)>,
    scalars: Scalars,
    fault: Option<KernelError>,
}

impl<'a, R: Runtime, B: Clone> Builder<'a, R, B> {
    pub(super) fn new(name: &'static str, device: &'a Device<R>) -> Self {
        Self {
            name,
            device,
            operands: Vec::new(),
            scalars: Scalars::default(),
            fault: None,
        }
    }

    /// The next array of the kernel, of vectors of `width` elements.
    pub(super) fn array(mut self, operand: &Operand<B>, width: usize) -> Self {
        let end = operand.offset.checked_add(operand.len);
        let fits = end.and_then(|end| u32::try_from(end).ok());
        if fits.is_none() {
            let found = format!("{} elements behind {}", operand.len, operand.offset);
            let expected = "below 2^32 elements";
            self.refuse(check::argument(self.name, "operand", expected, found));
        }
        if let Err(error) = self.device.require(self.name, operand.element) {
            self.refuse(error);
        }
        self.operands.push((operand.clone(), width));
        self
    }

    /// The next array, or one that the kernel does not read when the operand is absent.
    pub(super) fn maybe(
        self,
        operand: Option<&Operand<B>>,
        other: &Operand<B>,
        width: usize,
    ) -> Self {
        self.array(operand.unwrap_or(other), width)
    }

    /// The next scalar of 32 bits, which is a number of elements.
    pub(super) fn u32(mut self, value: usize) -> Self {
        match word(self.name, "size", value) {
            Ok(value) => self.scalars.0.push(Scalar::U32(value)),
            Err(error) => self.refuse(error),
        }
        self
    }

    /// The next scalars of 32 bits.
    pub(super) fn u32s(self, values: impl IntoIterator<Item = usize>) -> Self {
        values.into_iter().fold(self, Self::u32)
    }

    /// The next floating-point scalar.
    pub(super) fn f32(mut self, value: f32) -> Self {
        self.scalars.0.push(Scalar::F32(value));
        self
    }

    /// The launch of `kernel` over `grid`; none when a side of the grid is 0.
    pub(super) fn over(
        self,
        grid: [usize; 3],
        kernel: impl CubeKernel,
    ) -> Result<Vec<Call<B>>, KernelError> {
        if let Some(error) = self.fault {
            return Err(error);
        }
        if grid.contains(&0) {
            return Ok(Vec::new());
        }
        let [x, y, z] = grid.map(|side| word(self.name, "grid", side));
        Ok(vec![Call {
            name: self.name,
            kernel: Kernel {
                id: kernel.id(),
                kernel: Arc::new(kernel),
            },
            grid: [x?, y?, z?],
            operands: self.operands,
            scalars: self.scalars,
        }])
    }

    fn refuse(&mut self, error: KernelError) {
        self.fault.get_or_insert(error);
    }
}

/// Scalars in the order of the kernel's arguments; types are apart on the device, order counts per
/// type.
#[derive(Default)]
struct Scalars(Vec<Scalar>);

enum Scalar {
    U32(u32),
    F32(f32),
}

/// Settings of a kernel whose cubes have `units` units.
pub(super) fn units(units: [u32; 2]) -> KernelSettings {
    let [x, y] = units;
    KernelSettings::default()
        .cube_dim(CubeDim::new_2d(x, y))
        .address_type(AddressType::U32)
}

/// An array argument of a kernel.
pub(super) fn array() -> ArrayCompilationArg {
    ArrayCompilationArg { inplace: None }
}

/// A list of `count` scalar arguments of a kernel.
pub(super) fn list(count: usize) -> SequenceCompilationArg<u32> {
    std::iter::repeat_n((), count).collect()
}

/// A grid of at least `cubes` cubes, to be counted by `CUBE_POS`.
pub(super) fn line(cubes: usize) -> [usize; 3] {
    [cubes.min(GRID), cubes.div_ceil(GRID), 1]
}

fn word(kernel: &'static str, argument: &'static str, value: usize) -> Result<u32, KernelError> {
    u32::try_from(value)
        .map_err(|_| check::argument(kernel, argument, "below 2^32", value.to_string()))
}

/// The common element type of the activations of a call.
pub(super) fn same_element<B>(
    kernel: &'static str,
    first: (&'static str, &Operand<B>),
    others: &[(&'static str, &Operand<B>)],
) -> Result<Element, KernelError> {
    let element = first.1.float(kernel, first.0)?;
    for (name, operand) in others {
        operand.is(kernel, name, element)?;
    }
    Ok(element)
}
