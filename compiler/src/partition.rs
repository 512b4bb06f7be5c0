//! Partition arithmetic: offsets that cut a length into nearly equal parts.
//!
//! Offsets are exact integers; no part differs from another by more than one unit, and parts that
//! are merged pairwise (a Ulysses group inside a ring position) stay as even as their sum allows.

/// Offsets of `parts` nearly equal parts of `length`: `round_half_up(k * length / parts)`.
///
/// `parts` must be positive.
pub fn even_offsets(length: usize, parts: usize) -> Vec<usize> {
    (0..=parts)
        .map(|k| (2 * k * length + parts) / (2 * parts))
        .collect()
}

/// Offsets of `length` units poured over parts that already carry `loads`, so that the totals are
/// as equal as can be: the lowest loads are filled first, and what is left over after the last
/// whole level goes to the first parts at that level.
pub fn fill_offsets(length: usize, loads: &[usize]) -> Vec<usize> {
    let poured = |level: usize| -> usize { loads.iter().map(|&l| level.saturating_sub(l)).sum() };
    let mut low = 0;
    let mut high = loads.iter().max().copied().unwrap_or(0) + length;
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if poured(middle) <= length {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    let mut rest = length - poured(low);
    let mut offsets = vec![0];
    let mut end = 0;
    for &load in loads {
        end += low.saturating_sub(load);
        if load <= low && rest > 0 {
            end += 1;
            rest -= 1;
        }
        offsets.push(end);
    }
    offsets
}

/// The offsets that remain when every `group` neighbouring parts become one.
pub fn merge_parts(offsets: &[usize], group: usize) -> Vec<usize> {
    offsets.iter().copied().step_by(group).collect()
}

/// Lengths of the parts.
pub fn lengths(offsets: &[usize]) -> Vec<usize> {
    offsets.windows(2).map(|w| w[1] - w[0]).collect()
}
