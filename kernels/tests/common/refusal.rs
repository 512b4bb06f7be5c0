//! Shared by the tests of what kernels refuse.

#![allow(clippy::unwrap_used, clippy::panic)]

use terrace_kernels::KernelError;

const ZEROS: [f32; 4096] = [0.0; 4096];

/// Zeros, as an operand whose values do not matter.
pub fn zeros(n: usize) -> &'static [f32] {
    &ZEROS[..n]
}

/// Runs a kernel once per operand, that operand one element short, and once per operand one too long;
/// `sizes` are the right lengths, the last one that of the output.
pub fn refuses<F>(sizes: &[(&str, usize)], run: F)
where
    F: Fn(&[usize], &mut [f32]) -> Result<(), KernelError>,
{
    let right: Vec<usize> = sizes.iter().map(|&(_, n)| n).collect();
    let output = |lengths: &[usize]| vec![9.0; lengths[lengths.len() - 1]];
    run(&right, &mut output(&right)).unwrap();
    for (i, &(name, expected)) in sizes.iter().enumerate() {
        for found in [expected - 1, expected + 1, 0] {
            let mut lengths = right.clone();
            lengths[i] = found;
            let mut y = output(&lengths);
            match run(&lengths, &mut y) {
                Err(KernelError::Length {
                    operand,
                    expected: e,
                    found: f,
                    ..
                }) => {
                    assert_eq!((operand, e, f), (name, expected, found));
                }
                other => panic!("operand {name} of {found}: {other:?}"),
            }
            assert!(y.iter().all(|&v| v == 9.0), "a refused kernel wrote");
        }
    }
}

/// Asserts that the argument `name` was refused.
pub fn argument(result: Result<(), KernelError>, name: &str) {
    match result {
        Err(KernelError::Argument { argument, .. }) => assert_eq!(argument, name),
        other => panic!("expected a refusal of {name}, got {other:?}"),
    }
}
