//! Products in fewer bits: how far every reference case is from the reference, and the same bits on every
//! cut without a ring.

use crate::cases::{cases, relative_error};
use crate::device::device;
use terrace::Device;
use terrace_compiler::SliceGranularity;
use terrace_plan::{DType, Mesh};

/// The largest relative L2 error of any case in a type, and the least of the largest: what is rounded
/// to fewer bits is further off.
const ERRORS: [(DType, f64, f64); 3] = [
    (DType::Bf16, 2e-3, 4.5e-3),
    (DType::I8, 4.5e-3, 8e-3),
    (DType::F8E4M3, 8e-3, 2.5e-2),
];

#[test]
fn rounded_products_are_as_close_as_is_stated() {
    if device() != Device::Cpu {
        return;
    }
    let cases = cases();
    for (dtype, least, most) in ERRORS {
        let mut errors: Vec<f64> = Vec::new();
        for case in &cases {
            let one = case.run_in(dtype, Mesh::ONE, SliceGranularity::Cell);
            let error = relative_error(&one, case.expected());
            assert!(error <= most, "{case} in {dtype}: {error:e}");
            errors.push(error);
            let mesh = Mesh {
                ulysses: 2,
                ..Mesh::ONE
            };
            if case.config.num_attention_heads > 1 {
                let two = case.run_in(dtype, mesh, SliceGranularity::Cell);
                assert!(two == one, "{case} in {dtype} on two ranks");
            }
        }
        let largest = errors.iter().copied().fold(0.0, f64::max);
        assert!(largest >= least, "{dtype}: {largest:e}");
    }
}
