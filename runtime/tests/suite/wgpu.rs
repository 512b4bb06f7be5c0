//! What the wgpu backend refuses. Its numbers are tested by the parity tests that run on every device.

use crate::common::{Draft, on, slot, text, weight, whole};
use safetensors::tensor::TensorView;
use terrace_plan::{Action, DType, Epilogue, KernelCall, Plan, WeightLayout};
use terrace_runtime::backend::wgpu::Wgpu;
use terrace_runtime::{Checkpoint, StoredDType};

/// A plan that hands its input on and has `len` more elements of state.
fn idle(len: usize) -> Plan {
    let mut d = Draft::new("idle", 1);
    d.input("x", DType::F32, &[1]);
    d.output("y", DType::F32, &[1]);
    let x = d.state(0, 1);
    d.bind_input(0, x, whole(1));
    d.bind_output(0, x, whole(1));
    d.state(0, len);
    d.plan()
}

#[test]
fn an_adapter_that_does_not_exist_names_those_that_do() {
    let refused = text(Wgpu::open(4000));
    assert!(
        refused.starts_with("there is no adapter wgpu:4000; use wgpu:0 "),
        "{refused}"
    );
    assert!(refused.ends_with("or use --device cpu"), "{refused}");
}

#[test]
fn a_region_beyond_the_largest_buffer_names_need_and_limit() {
    let refused = text(on(
        Wgpu::open(0).unwrap(),
        idle(1 << 40),
        &Checkpoint::empty(),
    ));
    let begin = format!(
        "rank 0: its state has {} bytes, but kernels on ",
        (4u64 << 40) + 64
    );
    assert!(refused.starts_with(&begin), "{refused}");
    assert!(refused.contains("bytes of a buffer at most"), "{refused}");
}

#[test]
fn a_type_that_the_adapter_lacks_names_those_that_it_has() {
    let mut d = Draft::new("product", 1);
    d.input("x", DType::F32, &[4]);
    d.output("y", DType::F32, &[3]);
    let (x, y) = (d.state(0, 4), d.state(0, 3));
    d.bind_input(0, x, whole(4));
    d.bind_output(0, y, whole(3));
    let mut narrow = weight("w", &[3, 4], WeightLayout::Linear);
    narrow.dtype = DType::Bf16;
    let call = KernelCall::Linear {
        rows: 1,
        k: 4,
        n: 3,
        x: slot(x),
        weight: d.weight(narrow),
        bias: None,
        epilogue: Epilogue::None,
        y: slot(y),
    };
    d.step(0, "product", Action::Launch(call));
    let zeros = [0u8; 48];
    let view = TensorView::new(StoredDType::F32, vec![3, 4], &zeros).unwrap();
    let bytes = safetensors::serialize([("w", view)], None).unwrap();
    let checkpoint = Checkpoint::from_bytes(&[("weights", bytes.leak())]).unwrap();
    let refused = text(on(Wgpu::open(0).unwrap(), d.plan(), &checkpoint));
    assert!(refused.starts_with("weight `w` is bf16, but "), "{refused}");
    assert!(refused.contains(" has f32"), "{refused}");
}
