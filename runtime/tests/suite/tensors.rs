//! Host tensors and the files that hold them.

use crate::common::{counting, text};
use proptest::prelude::*;
use safetensors::tensor::TensorView;
use std::collections::BTreeMap;
use std::path::Path;
use terrace_plan::DType;
use terrace_runtime::{HostTensor, StoredDType, TensorData, read_tensors, write_tensors};

fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

fn store(path: &Path, dtype: StoredDType, bytes: &[u8]) {
    let shape = vec![bytes.len() * 8 / dtype.bitsize()];
    let view = TensorView::new(dtype, shape, bytes).unwrap();
    std::fs::write(path, safetensors::serialize([("t", view)], None).unwrap()).unwrap();
}

fn tensor() -> impl Strategy<Value = HostTensor> {
    let shape = prop::collection::vec(0usize..4, 0..4);
    (shape, any::<bool>(), any::<u32>()).prop_map(|(shape, float, seed)| {
        let len = shape.iter().product::<usize>() as u32;
        let words = (0..len).map(|i| seed.wrapping_mul(i.wrapping_add(3)));
        if float {
            // Comparable, so no NaN.
            let data = words.map(|w| w as i32 as f32 / 1024.0).collect();
            HostTensor::f32(shape, data).unwrap()
        } else {
            HostTensor::u32(shape, words.collect()).unwrap()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_is_written_is_read(
        tensors in prop::collection::btree_map("[a-z_.]{1,9}", tensor(), 0..5),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.safetensors");
        write_tensors(&path, &tensors).unwrap();
        let first = std::fs::read(&path).unwrap();
        prop_assert_eq!(read_tensors(&path).unwrap(), tensors.clone());
        write_tensors(&path, &tensors).unwrap();
        prop_assert_eq!(std::fs::read(&path).unwrap(), first);
        prop_assert_eq!(entries(folder.path()), 1);
    }
}

#[test]
fn narrow_and_wide_numbers_are_converted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.safetensors");
    let halves = [half::f16::from_f32(1.5), half::f16::NEG_INFINITY];
    let brains = [half::bf16::from_f32(-2.0), half::bf16::from_f32(0.25)];
    let long: Vec<u8> = [7i64, u32::MAX.into()]
        .iter()
        .flat_map(|i| i.to_le_bytes())
        .collect();
    let short: Vec<u8> = [7i32, 0].iter().flat_map(|i| i.to_le_bytes()).collect();
    let cases = [
        (
            StoredDType::F16,
            bytemuck::cast_slice(&halves).to_vec(),
            TensorData::F32(vec![1.5, f32::NEG_INFINITY]),
        ),
        (
            StoredDType::BF16,
            bytemuck::cast_slice(&brains).to_vec(),
            TensorData::F32(vec![-2.0, 0.25]),
        ),
        (
            StoredDType::F64,
            [1.5f64, -1e-3].map(f64::to_le_bytes).concat(),
            TensorData::F32(vec![1.5, -1e-3]),
        ),
        (StoredDType::I64, long, TensorData::U32(vec![7, u32::MAX])),
        (StoredDType::I32, short, TensorData::U32(vec![7, 0])),
    ];
    for (dtype, bytes, expected) in cases {
        store(&path, dtype, &bytes);
        let read = read_tensors(&path).unwrap();
        assert_eq!(*read["t"].data(), expected, "{dtype:?}");
    }
}

#[test]
fn what_has_no_host_form_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.safetensors");
    let shown = path.display();
    store(&path, StoredDType::I64, &(-1i64).to_le_bytes());
    assert_eq!(
        text(read_tensors(&path)),
        format!("tensor `t` of {shown} holds -1, expected 0 to 4294967295")
    );
    store(&path, StoredDType::I8, &[1]);
    assert_eq!(
        text(read_tensors(&path)),
        format!("tensor `t` of {shown} is i8, expected f32, f64, f16, bf16, i64, i32 or u32")
    );
    let missing = folder.path().join("none.safetensors");
    assert_eq!(
        text(read_tensors(&missing)),
        format!(
            "cannot read {}: No such file or directory (os error 2)",
            missing.display()
        )
    );
}

#[test]
fn an_unwritable_output_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let tensors = BTreeMap::from([("t".to_owned(), counting(&[3]))]);
    let missing = folder.path().join("none").join("t.safetensors");
    assert_eq!(
        text(write_tensors(&missing, &tensors)),
        format!(
            "cannot write {}: No such file or directory (os error 2)",
            missing.display()
        )
    );
    assert_eq!(
        text(write_tensors(folder.path(), &tensors)),
        format!("cannot write {}: it is a folder", folder.path().display())
    );
    assert_eq!(entries(folder.path()), 0);
}

#[test]
fn a_failed_write_keeps_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.safetensors");
    std::fs::create_dir(&path).unwrap();
    let tensors = BTreeMap::from([("t".to_owned(), counting(&[3]))]);
    assert!(write_tensors(&path, &tensors).is_err());
    assert!(path.is_dir());
    assert_eq!(entries(folder.path()), 1);
}

#[test]
fn a_tensor_holds_what_its_shape_says() {
    assert_eq!(
        text(HostTensor::f32([2, 3], vec![0.0; 5])),
        "a tensor of shape [2, 3] cannot hold 5 elements"
    );
    assert_eq!(
        text(HostTensor::u32([usize::MAX, 2], vec![0])),
        format!(
            "a tensor of shape [{}, 2] cannot hold 1 elements",
            usize::MAX
        )
    );
    assert_eq!(
        text(counting(&[2, 2]).reshape([3])),
        "a tensor of shape [3] cannot hold 4 elements"
    );
    assert_eq!(
        text(counting(&[1]).as_u32()),
        "expected a tensor of u32, found f32"
    );
    assert_eq!(
        text(HostTensor::zeros([2], DType::Bf16)),
        "host tensors are f32 or u32, a port of bf16 cannot be read"
    );
    let huge = 1usize << 62;
    assert_eq!(
        text(HostTensor::zeros([huge], DType::F32)),
        format!("there is no memory for a tensor of shape [{huge}]")
    );
    let turned = counting(&[2, 3]).reshape([3, 2]).unwrap();
    assert_eq!(turned.shape(), [3, 2]);
}
