//! Strided boxes: regions of one buffer that go to regions of another.
//!
//! Invariants: a list of dimensions is made only for a box that lies inside its destination and whose
//! dimensions nest (ordered by stride, a step of one dimension leaves the extent of all smaller ones),
//! so no element is visited twice. Refused: more than 8 dimensions, lists of unequal length, boxes
//! outside their operand, overlapping destination strides.

use crate::{KernelError, check};

/// Dimensions of a box, at most.
pub const MAX_BOX_RANK: usize = 8;

/// One dimension of a box.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dim {
    pub extent: usize,
    pub to: usize,
    pub from: u64,
}

/// A checked box: dimensions by falling destination stride, with runs of both sides merged; none when
/// the box has at most one element.
#[derive(Debug)]
pub(crate) struct BoxDims {
    pub dims: Vec<Dim>,
    pub to_offset: usize,
    pub from_offset: u64,
    pub elements: usize,
}

impl BoxDims {
    /// Checks the box against a destination of `to_len` elements and source indices below `from_len`.
    pub fn new(
        kernel: &'static str,
        extents: &[usize],
        (to_len, to_offset, to_strides): (usize, usize, &[usize]),
        (from_len, from_offset, from_strides): (u64, u64, &[u64]),
    ) -> Result<Self, KernelError> {
        if extents.len() > MAX_BOX_RANK {
            let expected = format!("at most {MAX_BOX_RANK} dimensions");
            return Err(check::argument(
                kernel,
                "extents",
                expected,
                extents.len().to_string(),
            ));
        }
        check::length(
            kernel,
            "destination strides",
            extents.len(),
            to_strides.len(),
        )?;
        check::length(kernel, "source strides", extents.len(), from_strides.len())?;
        let elements = check::product(kernel, "extents", extents)?;
        let strides = to_strides.iter().zip(from_strides);
        let all = extents.iter().zip(strides);
        let mut dims: Vec<Dim> = all
            .map(|(&extent, (&to, &from))| Dim { extent, to, from })
            .collect();
        if elements == 0 {
            dims.clear();
        }
        dims.retain(|dim| dim.extent > 1);
        dims.sort_by_key(|dim| std::cmp::Reverse(dim.to));
        if elements > 0 {
            let to = dims.iter().map(|dim| (dim.extent as u64, dim.to as u64));
            inside(kernel, "destination", to_len as u64, to_offset as u64, to)?;
            let from = dims.iter().map(|dim| (dim.extent as u64, dim.from));
            inside(kernel, "source", from_len, from_offset, from)?;
            nested(kernel, &dims)?;
        }
        Ok(Self {
            dims: merged(&dims),
            to_offset,
            from_offset,
            elements,
        })
    }
}

/// Refuses a box whose last element lies at or behind `len`.
fn inside(
    kernel: &'static str,
    operand: &'static str,
    len: u64,
    offset: u64,
    dims: impl Iterator<Item = (u64, u64)>,
) -> Result<(), KernelError> {
    let mut last = Some(offset);
    for (extent, stride) in dims {
        let reach = (extent - 1).checked_mul(stride);
        last = last.zip(reach).and_then(|(a, b)| a.checked_add(b));
    }
    match last {
        Some(last) if last < len => Ok(()),
        _ => {
            let found = last.map_or("an index beyond 64 bits".to_string(), |last| {
                format!("index {last}")
            });
            Err(check::argument(
                kernel,
                operand,
                format!("inside its {len} elements"),
                found,
            ))
        }
    }
}

/// Refuses destination dimensions that could visit an element twice. `dims` are sorted and inside.
fn nested(kernel: &'static str, dims: &[Dim]) -> Result<(), KernelError> {
    let mut reach = 0;
    for dim in dims.iter().rev() {
        if dim.to <= reach {
            let found = dims
                .iter()
                .map(|dim| (dim.extent, dim.to))
                .collect::<Vec<_>>();
            let expected = "strides under which no element is written twice";
            let found = format!("(extent, stride) {found:?}");
            return Err(check::argument(
                kernel,
                "destination strides",
                expected,
                found,
            ));
        }
        reach += (dim.extent - 1) * dim.to;
    }
    Ok(())
}

/// Joins neighbouring dimensions that together are one run on both sides.
fn merged(dims: &[Dim]) -> Vec<Dim> {
    let mut result: Vec<Dim> = Vec::with_capacity(dims.len());
    for &dim in dims {
        if let Some(outer) = result.last_mut() {
            let from = dim.from.checked_mul(dim.extent as u64);
            if dim.to.checked_mul(dim.extent) == Some(outer.to) && from == Some(outer.from) {
                *outer = Dim {
                    extent: outer.extent * dim.extent,
                    to: dim.to,
                    from: dim.from,
                };
                continue;
            }
        }
        result.push(dim);
    }
    result
}
