//! What calls and the queue refuse before anything is launched.

use terrace_kernels::cube::*;
use terrace_kernels::{GateSegment, KernelError, ModSegment};

use crate::arena::{Buffer, queue};
use crate::device::Memory;

type Calls = Result<Vec<Call<Buffer>>, KernelError>;

fn operand(element: Element, len: usize) -> Operand<Buffer> {
    Operand {
        buffer: Memory::holding(queue(), &[0; 4096]).buffer(),
        offset: 0,
        len,
        element,
    }
}

fn f32s(len: usize) -> Operand<Buffer> {
    operand(Element::F32, len)
}

fn refused_length(calls: Calls, name: &str, sizes: (usize, usize)) {
    match calls {
        Err(KernelError::Length {
            operand,
            expected,
            found,
            ..
        }) => assert_eq!((operand, (expected, found)), (name, sizes)),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{name} was accepted"),
    }
}

fn refused_argument(calls: Calls, name: &str) {
    match calls {
        Err(KernelError::Argument { argument, .. }) => assert_eq!(argument, name),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{name} was accepted"),
    }
}

#[test]
fn a_type_that_the_device_lacks_is_refused() {
    let device = queue().device();
    if device.has(Element::Bf16) {
        return;
    }
    let call = Cast {
        x: f32s(8),
        y: operand(Element::Bf16, 8),
    };
    let error = call.calls(device).err().unwrap();
    let expected = format!("kernel cast: {} has no bf16 elements", device.name());
    assert!(error.to_string().starts_with(&expected), "{error}");
}

#[test]
fn elementwise_calls_refuse_other_lengths_and_types() {
    let device = queue().device();
    let function = Function::Silu;
    let activate = |x, y| Activate { function, x, y }.calls(device);
    refused_length(activate(f32s(8), f32s(9)), "y", (8, 9));
    refused_argument(activate(f32s(8), operand(Element::F16, 8)), "y");
    refused_argument(activate(operand(Element::U32, 8), f32s(8)), "x");
    let add = |a, b, y| Add { a, b, y }.calls(device);
    refused_length(add(f32s(8), f32s(7), f32s(8)), "b", (8, 7));
    refused_length(add(f32s(8), f32s(8), f32s(7)), "y", (8, 7));
    let gated = |rows, x, y| {
        GatedGelu {
            rows,
            width: 4,
            x,
            y,
        }
        .calls(device)
    };
    refused_length(gated(2, f32s(15), f32s(8)), "x", (16, 15));
    refused_length(gated(2, f32s(16), f32s(9)), "y", (8, 9));
    refused_argument(gated(usize::MAX, f32s(16), f32s(8)), "rows, 2, width");
}

#[test]
fn norms_and_gates_refuse_offsets_outside_their_data() {
    let device = queue().device();
    let norm = |x, weight, data, scale| {
        NormModulate {
            batch: 2,
            width: 4,
            segments: &[ModSegment {
                rows: 3,
                shift: 0,
                scale,
            }],
            norm: Norm::Rms {
                eps: 1e-5,
                weight: Some(weight),
            },
            mods: Some(Mods { data, stride: 8 }),
            x,
            y: f32s(24),
        }
        .calls(device)
    };
    assert_eq!(norm(f32s(24), f32s(4), f32s(16), 4).unwrap().len(), 1);
    refused_length(norm(f32s(23), f32s(4), f32s(16), 4), "x", (24, 23));
    refused_length(norm(f32s(24), f32s(5), f32s(16), 4), "norm.weight", (4, 5));
    refused_length(norm(f32s(24), f32s(4), f32s(16), 5), "mods.data", (17, 16));
    let half = operand(Element::F16, 4);
    refused_argument(norm(f32s(24), half, f32s(16), 4), "norm.weight");

    let gate = |data, gate| {
        GateAdd {
            batch: 1,
            width: 4,
            segments: &[GateSegment { rows: 2, gate }],
            mods: Mods { data, stride: 4 },
            residual: f32s(8),
            x: f32s(8),
            y: f32s(8),
        }
        .calls(device)
    };
    refused_length(gate(f32s(4), 1), "mods.data", (5, 4));
}

#[test]
fn heads_refuse_odd_widths_and_overlapping_rows() {
    let device = queue().device();
    let rope = |parts, text_rows, dim, qkv, table| {
        QkNormRope {
            batch: 1,
            rows: 2,
            text_rows,
            parts,
            heads: 1,
            dim,
            q: None,
            k: None,
            table: Some(table),
            qkv,
        }
        .calls(device)
    };
    refused_argument(rope(1, 0, 4, f32s(8), f32s(16)), "parts");
    refused_argument(rope(3, 3, 4, f32s(24), f32s(16)), "text_rows");
    refused_argument(rope(3, 0, 3, f32s(18), f32s(12)), "dim");
    refused_length(rope(3, 0, 4, f32s(24), f32s(15)), "table", (16, 15));

    let view = |data, row_stride| HeadsView {
        data,
        batch_stride: 16,
        row_stride,
        head_stride: 4,
    };
    let attention = |head_dim, k, y| {
        Attention {
            batch: 1,
            heads: 2,
            q_rows: 2,
            kv_rows: 2,
            head_dim,
            scale: 1.0,
            q: view(f32s(1000), 8),
            k,
            v: view(f32s(1000), 8),
            bias: None,
            y,
        }
        .calls(device)
    };
    let (k, y) = (view(f32s(16), 8), view(f32s(16), 8));
    assert_eq!(attention(4, k.clone(), y.clone()).unwrap().len(), 1);
    refused_argument(attention(0, k.clone(), y.clone()), "head_dim");
    refused_argument(attention(129, k.clone(), y.clone()), "head_dim");
    refused_length(attention(4, view(f32s(15), 8), y), "k", (16, 15));
    refused_argument(attention(4, k, view(f32s(16), 4)), "y");
}

#[test]
fn products_refuse_other_sizes_and_gates_of_other_rows() {
    let device = queue().device();
    let gate = |rows| LinearGate {
        mods: Mods {
            data: f32s(8),
            stride: 0,
        },
        batch: 1,
        segments: if rows == 3 {
            &[GateSegment { rows: 3, gate: 0 }]
        } else {
            &[GateSegment { rows: 4, gate: 0 }]
        },
    };
    let linear = |x, weight, residual, rows| {
        Linear {
            rows: 3,
            n: 2,
            k: 4,
            x,
            weight,
            bias: None,
            epilogue: LinearEpilogue::Residual {
                residual,
                gate: Some(gate(rows)),
            },
            y: f32s(6),
        }
        .calls(device)
    };
    assert_eq!(linear(f32s(12), f32s(8), f32s(6), 3).unwrap().len(), 1);
    refused_length(linear(f32s(11), f32s(8), f32s(6), 3), "x", (12, 11));
    refused_length(linear(f32s(12), f32s(9), f32s(6), 3), "weight", (8, 9));
    refused_length(linear(f32s(12), f32s(8), f32s(5), 3), "residual", (6, 5));
    refused_argument(linear(f32s(12), f32s(8), f32s(6), 4), "gate.segments");
    let ids = operand(Element::U32, 8);
    refused_argument(linear(f32s(12), ids, f32s(6), 3), "weight");
}

#[test]
fn boxes_refuse_what_leaves_an_operand_or_writes_twice() {
    let device = queue().device();
    let copy = |extents: &[usize], src: &[usize], dst: &[usize], to| {
        CopyBox {
            extents,
            src: f32s(16),
            src_offset: 0,
            src_strides: src,
            dst: to,
            dst_offset: 0,
            dst_strides: dst,
        }
        .calls(device)
    };
    refused_argument(copy(&[17], &[1], &[1], f32s(32)), "source");
    refused_argument(copy(&[16], &[1], &[1], f32s(15)), "destination");
    refused_argument(
        copy(&[4, 4], &[4, 1], &[2, 1], f32s(16)),
        "destination strides",
    );
    refused_argument(copy(&[1; 9], &[1; 9], &[1; 9], f32s(16)), "extents");
    refused_argument(copy(&[4], &[1], &[1], operand(Element::U32, 16)), "dst");
}

#[test]
fn a_call_without_work_has_no_launch() {
    let function = Function::Silu;
    let (x, y) = (f32s(0), f32s(0));
    let none = Activate { function, x, y }.calls(queue().device());
    assert!(none.unwrap().is_empty());
}

#[test]
fn the_queue_refuses_operands_behind_their_buffer_and_huge_ones() {
    let queue = queue();
    let mut x = f32s(8);
    x.offset = 1020;
    let (a, b, y) = (x, f32s(8), f32s(8));
    let calls = Add { a, b, y }.calls(queue.device()).unwrap();
    match queue.prepare(&calls[0]) {
        Err(KernelError::Length {
            expected, found, ..
        }) => assert_eq!((expected, found), (4112, 4096)),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("an operand behind its buffer was accepted"),
    }
    #[cfg(feature = "wgpu")]
    match queue.empty(1 << 50) {
        Err(KernelError::Device { reason, .. }) => assert!(reason.contains("binds"), "{reason}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a huge buffer was accepted"),
    }
    let mut x = f32s(8);
    (x.offset, x.len) = (1 << 32, 0);
    let (function, y) = (Function::Silu, f32s(0));
    refused_argument(Activate { function, x, y }.calls(queue.device()), "operand");
}
