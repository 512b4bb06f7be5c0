//! Checks of header, mesh, partitions and ports.

use super::violation::{PartitionFault, PlanViolation, Side, Violations};
use crate::geometry::product;
use crate::{Axis, Header, Mesh, NamedPartition, Plan, Port};
use std::collections::BTreeSet;

/// Number of elements of every port; `None` when it overflows.
pub(super) struct PortSizes {
    pub(super) inputs: Vec<Option<usize>>,
    pub(super) outputs: Vec<Option<usize>>,
}

pub(super) fn check_header(plan: &Plan, found: &mut Violations) {
    if plan.header.format != Header::FORMAT {
        found.push(PlanViolation::Format {
            expected: Header::FORMAT,
            found: plan.header.format,
        });
    }
    let mesh = plan.mesh.to_string();
    if plan.header.fingerprint.mesh != mesh {
        found.push(PlanViolation::MeshText {
            expected: mesh,
            found: plan.header.fingerprint.mesh.clone(),
        });
    }
}

/// Whether the mesh is legal and has as many ranks as the body.
pub(super) fn check_mesh(plan: &Plan, found: &mut Violations) -> bool {
    let before = found.count();
    for axis in Axis::ALL {
        let size = plan.mesh.size(axis);
        let (legal, expected) = match axis {
            Axis::Cfg => (size == 1 || size == 2, "1 or 2"),
            Axis::Ring | Axis::Ulysses => (size >= 1, "at least 1"),
        };
        if !legal {
            found.push(PlanViolation::MeshSize {
                axis,
                expected,
                found: size,
            });
        }
    }
    let Mesh { cfg, ring, ulysses } = plan.mesh;
    let ranks = product(&[cfg, ring, ulysses]).unwrap_or(usize::MAX);
    if ranks != plan.ranks.len() {
        found.push(PlanViolation::RankCount {
            expected: ranks,
            found: plan.ranks.len(),
        });
    }
    found.count() == before
}

pub(super) fn check_partitions(plan: &Plan, found: &mut Violations) {
    for (index, partition) in plan.partitions.iter().enumerate() {
        if let Err(fault) = check_partition(&plan.mesh, partition) {
            found.push(PlanViolation::Partition {
                index,
                factors: partition.factors.clone(),
                fault,
            });
        }
    }
}

fn check_partition(mesh: &Mesh, partition: &NamedPartition) -> Result<(), PartitionFault> {
    let sizes = &partition.sizes;
    let names = partition.factors.split('.').count();
    if names != sizes.len() {
        return Err(PartitionFault::Sizes {
            expected: names,
            found: sizes.len(),
        });
    }
    let overflow = || PartitionFault::Overflow {
        sizes: sizes.clone(),
        repeat: partition.repeat,
    };
    let size = product(sizes).ok_or_else(overflow)?;
    size.checked_mul(partition.repeat).ok_or_else(overflow)?;
    let mut parts = 1;
    let mut seen = BTreeSet::new();
    for &axis in &partition.axes {
        if !seen.insert(axis) {
            return Err(PartitionFault::AxisTwice { axis });
        }
        // At most the number of ranks, as no axis appears twice.
        parts *= mesh.size(axis);
    }
    if partition.offsets.len() != parts + 1 {
        return Err(PartitionFault::Count {
            expected: parts + 1,
            found: partition.offsets.len(),
        });
    }
    check_offsets(&partition.offsets, size)
}

fn check_offsets(offsets: &[usize], size: usize) -> Result<(), PartitionFault> {
    let last = offsets.len() - 1;
    let mut before = 0;
    for (index, &offset) in offsets.iter().enumerate() {
        let expected = if index == 0 {
            (offset != 0).then(|| "0".to_owned())
        } else if index == last {
            (offset != size).then(|| size.to_string())
        } else {
            (offset < before || offset > size).then(|| format!("{before} to {size}"))
        };
        if let Some(expected) = expected {
            return Err(PartitionFault::Offset {
                index,
                expected,
                found: offset,
            });
        }
        before = offset;
    }
    Ok(())
}

pub(super) fn check_ports(plan: &Plan, found: &mut Violations) -> PortSizes {
    PortSizes {
        inputs: port_sizes(Side::Input, &plan.inputs, found),
        outputs: port_sizes(Side::Output, &plan.outputs, found),
    }
}

fn port_sizes(side: Side, ports: &[Port], found: &mut Violations) -> Vec<Option<usize>> {
    let mut names = BTreeSet::new();
    let mut sizes = Vec::with_capacity(ports.len());
    for port in ports {
        if !names.insert(&port.name) {
            found.push(PlanViolation::PortName {
                side,
                name: port.name.clone(),
            });
        }
        let elements = product(&port.shape)
            .filter(|n| n.checked_mul(port.dtype.bytes()).is_some_and(addressable));
        if elements.is_none() {
            found.push(PlanViolation::PortSize {
                side,
                name: port.name.clone(),
                shape: port.shape.clone(),
            });
        }
        sizes.push(elements);
    }
    sizes
}

/// Whether an allocation may have this many bytes.
pub(super) fn addressable(bytes: usize) -> bool {
    isize::try_from(bytes).is_ok()
}
