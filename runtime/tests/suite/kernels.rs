//! Kernels through plans: operands, strides, stages and epilogues reach them as the plan says.
//!
//! Each pair of plans computes the same in two ways, so that the kernels' own numbers, which their
//! crate tests, need not be repeated here.

use crate::common::{Draft, on, open, slot, weight, whole};
use safetensors::tensor::TensorView;
use terrace_plan::{
    Action, Activation, Affine, AttentionShape, BufferId, ConvShape, DType, Epilogue, Gate,
    GateSegment, Heads, KernelCall, Mods, Plan, Slot, Stage, WeightLayout,
};
use terrace_runtime::{Checkpoint, Cpu, HostTensor, StoredDType};

/// Numbers without a pattern in `-1..1`.
fn noise(len: usize) -> Vec<f32> {
    let wave = |i: usize| ((i * i * 7 + i * 13 + 5) % 97) as f32 / 48.5 - 1.0;
    (0..len).map(wave).collect()
}

fn checkpoint() -> Checkpoint {
    let data: &'static [f32] = noise(12).leak();
    let view =
        |shape| TensorView::new(StoredDType::F32, shape, bytemuck::cast_slice(data)).unwrap();
    let tensors = [("w", view(vec![3, 4])), ("c", view(vec![3, 4, 1, 1, 1]))];
    let bytes = safetensors::serialize(tensors, None).unwrap();
    Checkpoint::from_bytes(&[("weights", bytes.leak())]).unwrap()
}

/// One run with noise in every input; the output `y`.
fn result(plan: Plan) -> Vec<f32> {
    let mut session = open(plan, &checkpoint()).unwrap();
    for port in session.plan().inputs.clone() {
        let data = noise(port.shape.iter().product());
        let value = HostTensor::f32(port.shape, data).unwrap();
        session.set(&port.name, &value).unwrap();
    }
    session.run().unwrap();
    session.get("y").unwrap().as_f32().unwrap().to_vec()
}

/// A plan of one rank with an input per entry of `inputs` and one output; `build` gets their buffers.
fn plan(
    inputs: &[usize],
    output: usize,
    build: impl FnOnce(&mut Draft, &[BufferId], BufferId),
) -> Plan {
    let mut d = Draft::new("kernels", 1);
    let mut buffers = Vec::new();
    for (port, &len) in inputs.iter().enumerate() {
        d.input(&format!("x{port}"), DType::F32, &[len]);
        let buffer = d.state(0, len);
        d.bind_input(0, buffer, whole(len));
        buffers.push(buffer);
    }
    d.output("y", DType::F32, &[output]);
    let y = d.state(0, output);
    d.bind_output(0, y, whole(output));
    build(&mut d, &buffers, y);
    d.plan()
}

fn launch(d: &mut Draft, call: KernelCall) {
    d.step(0, "kernel", Action::Launch(call));
}

fn close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().any(|x| *x != 0.0));
    for (x, y) in a.iter().zip(b) {
        assert!((x - y).abs() < 1e-5, "{x} {y}");
    }
}

const BATCH: usize = 2;
const HEADS: usize = 2;
const DIM: usize = 4;
const ROWS: usize = 5;

/// Queries (0), keys (1) or values (2) of a packed `[batch, rows, 3, heads, head_dim]`, from `row` on.
fn packed(qkv: BufferId, part: usize, row: usize) -> Heads {
    let width = HEADS * DIM;
    Heads {
        slot: Slot {
            buffer: qkv,
            offset: row * 3 * width + part * width,
        },
        batch_stride: ROWS * 3 * width,
        row_stride: 3 * width,
        head_stride: DIM,
    }
}

fn shape(kv_rows: usize) -> AttentionShape {
    AttentionShape {
        batch: BATCH,
        heads: HEADS,
        q_rows: ROWS,
        kv_rows,
        head_dim: DIM,
        scale: 0.5,
        products: DType::F32,
    }
}

fn whole_attention(zero_bias: bool) -> Plan {
    let elements = BATCH * ROWS * HEADS * DIM;
    let bias = HEADS * ROWS * ROWS;
    plan(&[3 * elements, bias], elements, |d, x, y| {
        // A buffer of the state that nothing has written holds zeros; copying it makes it live.
        let (zeros, still) = (d.state(0, bias), d.state(0, 0));
        let boxes = Vec::new();
        let copy = Action::Copy {
            src: still,
            dst: zeros,
            boxes,
        };
        d.step(0, "zeros", copy);
        let call = KernelCall::Attention {
            shape: shape(ROWS),
            q: packed(x[0], 0, 0),
            k: packed(x[0], 1, 0),
            v: packed(x[0], 2, 0),
            bias: zero_bias.then(|| slot(zeros)),
            y: Heads {
                slot: slot(y),
                batch_stride: ROWS * HEADS * DIM,
                row_stride: HEADS * DIM,
                head_stride: DIM,
            },
        };
        launch(d, call);
    })
}

#[test]
fn attention_in_blocks_is_attention() {
    let elements = BATCH * ROWS * HEADS * DIM;
    let blocks = plan(&[3 * elements, HEADS * ROWS * ROWS], elements, |d, x, y| {
        let state = d.arena(0, BATCH * ROWS * HEADS * (DIM + 2));
        for (stage, row, rows) in [(Stage::First, 0, 3), (Stage::Next, 3, 2)] {
            let call = KernelCall::AttentionStep {
                shape: shape(rows),
                q: packed(x[0], 0, 0),
                k: packed(x[0], 1, row),
                v: packed(x[0], 2, row),
                stage,
                state: slot(state),
            };
            launch(d, call);
        }
        let call = KernelCall::AttentionFinish {
            rows: BATCH * ROWS,
            heads: HEADS,
            head_dim: DIM,
            state: slot(state),
            y: slot(y),
        };
        launch(d, call);
    });
    let expected = result(whole_attention(false));
    close(&result(blocks), &expected);
    close(&result(whole_attention(true)), &expected);
}

fn linear(d: &mut Draft, x: BufferId, epilogue: Epilogue, y: BufferId) {
    let weight = d.weight(weight("w", &[3, 4], WeightLayout::Linear));
    let call = KernelCall::Linear {
        rows: 6,
        k: 4,
        n: 3,
        x: slot(x),
        weight,
        bias: None,
        epilogue,
        y: slot(y),
    };
    launch(d, call);
}

#[test]
fn a_convolution_of_one_element_is_a_matrix_product() {
    let product = plan(&[24, 18], 18, |d, x, y| {
        let residual = slot(x[1]);
        linear(
            d,
            x[0],
            Epilogue::Residual {
                residual,
                gate: None,
            },
            y,
        );
    });
    let convolution = plan(&[24, 18], 18, |d, x, y| {
        let weight = d.weight(weight("c", &[3, 4, 1, 1, 1], WeightLayout::Conv3d));
        let call = KernelCall::Conv3d {
            shape: ConvShape {
                batch: 1,
                grid: [1, 2, 3],
                cin: 4,
                cout: 3,
                kernel: [1, 1, 1],
            },
            x: slot(x[0]),
            cache: None,
            weight,
            bias: None,
            residual: Some(slot(x[1])),
            y: slot(y),
        };
        launch(d, call);
    });
    close(&result(convolution), &result(product));
}

#[test]
fn fused_epilogues_are_what_follows_unfused() {
    for (epilogue, function) in [
        (Epilogue::Gelu, Activation::Gelu),
        (Epilogue::GeluTanh, Activation::GeluTanh),
        (Epilogue::Silu, Activation::Silu),
    ] {
        let fused = plan(&[24], 18, |d, x, y| linear(d, x[0], epilogue, y));
        let unfused = plan(&[24], 18, |d, x, y| {
            let product = d.arena(0, 18);
            linear(d, x[0], Epilogue::None, product);
            let call = KernelCall::Activate {
                len: 18,
                function,
                x: slot(product),
                y: slot(y),
            };
            launch(d, call);
        });
        close(&result(fused), &result(unfused));
    }
}

/// Two batch items of one row and two rows, gated by vectors at 0 and 4 of nine values per item.
fn gate(mods: BufferId) -> Gate {
    Gate {
        mods: Mods {
            slot: slot(mods),
            stride: 9,
        },
        batch: 2,
        segments: vec![
            GateSegment { rows: 1, gate: 0 },
            GateSegment { rows: 2, gate: 4 },
        ],
    }
}

#[test]
fn a_gated_residual_may_be_the_result_itself() {
    let inputs = [24, 18, 18];
    let copy = |d: &mut Draft, src, dst| {
        let boxes = whole(18);
        d.step(0, "copy", Action::Copy { src, dst, boxes });
    };
    let unfused = plan(&inputs, 18, |d, x, y| {
        let product = d.arena(0, 18);
        linear(d, x[0], Epilogue::None, product);
        let call = KernelCall::GateAdd {
            rows: 6,
            width: 3,
            gate: Some(gate(x[2])),
            residual: slot(x[1]),
            x: slot(product),
            y: slot(y),
        };
        launch(d, call);
    });
    let expected = result(unfused);
    let apart = plan(&inputs, 18, |d, x, y| {
        let (residual, gate) = (slot(x[1]), Some(gate(x[2])));
        linear(d, x[0], Epilogue::Residual { residual, gate }, y);
    });
    close(&result(apart), &expected);
    let in_place = plan(&inputs, 18, |d, x, y| {
        copy(d, x[1], y);
        let (residual, gate) = (slot(y), Some(gate(x[2])));
        linear(d, x[0], Epilogue::Residual { residual, gate }, y);
    });
    close(&result(in_place), &expected);
    let added_in_place = plan(&inputs, 18, |d, x, y| {
        linear(d, x[0], Epilogue::None, y);
        let call = KernelCall::GateAdd {
            rows: 6,
            width: 3,
            gate: Some(gate(x[2])),
            residual: slot(x[1]),
            x: slot(y),
            y: slot(y),
        };
        launch(d, call);
    });
    close(&result(added_in_place), &expected);
}

#[test]
fn a_call_that_the_cpu_lacks_names_its_step() {
    let plan = plan(&[4], 4, |d, x, y| {
        let call = KernelCall::GroupNorm {
            batch: 1,
            grid: [1, 1, 1],
            channels: 4,
            groups: 2,
            eps: 1e-6,
            affine: Affine {
                weight: None,
                bias: None,
            },
            spatial: None,
            activation: Some(Activation::Gelu),
            x: slot(x[0]),
            y: slot(y),
        };
        launch(d, call);
    });
    assert_eq!(
        crate::common::text(on(Cpu, plan, &Checkpoint::empty())),
        "cannot prepare rank 0, step 0 of 1, group_norm at `kernel`: kernel group_norm does not \
         support activation gelu, expected silu or none; compile the plan for this backend"
    );
}
