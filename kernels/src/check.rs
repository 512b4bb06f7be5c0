//! Checks shared by the kernels: element counts with overflow detected, operand lengths compared.
//!
//! Invariant: nothing here panics on any argument.

use crate::KernelError;

/// The product of `factors`, refused when it does not fit `usize`.
pub(crate) fn product(
    kernel: &'static str,
    argument: &'static str,
    factors: &[usize],
) -> Result<usize, KernelError> {
    let checked = factors.iter().try_fold(1usize, |a, &f| a.checked_mul(f));
    checked.ok_or_else(|| too_large(kernel, argument, format!("the product of {factors:?}")))
}

/// The sum of `terms`, refused when it does not fit `usize`.
pub(crate) fn sum(
    kernel: &'static str,
    argument: &'static str,
    terms: impl IntoIterator<Item = usize>,
) -> Result<usize, KernelError> {
    let mut total = 0usize;
    for term in terms {
        total = total
            .checked_add(term)
            .ok_or_else(|| too_large(kernel, argument, format!("{total} + {term}")))?;
    }
    Ok(total)
}

/// Refuses an operand whose length is not exactly `expected`.
pub(crate) fn length(
    kernel: &'static str,
    operand: &'static str,
    expected: usize,
    found: usize,
) -> Result<(), KernelError> {
    if expected == found {
        return Ok(());
    }
    Err(KernelError::Length {
        kernel,
        operand,
        expected,
        found,
    })
}

/// Refuses an optional operand that is given with another length.
pub(crate) fn optional_length<T>(
    kernel: &'static str,
    operand: &'static str,
    expected: usize,
    found: Option<&[T]>,
) -> Result<(), KernelError> {
    found.map_or(Ok(()), |data| length(kernel, operand, expected, data.len()))
}

/// A [`KernelError::Argument`] with its texts.
pub(crate) fn argument(
    kernel: &'static str,
    argument: &'static str,
    expected: impl Into<String>,
    found: impl Into<String>,
) -> KernelError {
    KernelError::Argument {
        kernel,
        argument,
        expected: expected.into(),
        found: found.into(),
    }
}

fn too_large(kernel: &'static str, name: &'static str, found: String) -> KernelError {
    argument(kernel, name, "a count that fits the address space", found)
}
