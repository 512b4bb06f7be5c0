//! Nearest-neighbour indices as torch computes them.
//!
//! Invariant: the ratio is an f32, because torch's rounding decides the index at the borders of sizes
//! that do not divide (`nearest_neighbor_compute_source_index` in ATen's UpSample.h).

/// For each of `output` positions the input position that it reads, or `None` without input.
pub(super) fn sources(input: usize, output: usize) -> Option<Vec<usize>> {
    if input == 0 && output > 0 {
        return None;
    }
    let scale = input as f32 / output as f32;
    let source = |i: usize| {
        if input == output {
            i
        } else if output == input.saturating_mul(2) {
            i / 2
        } else {
            ((i as f32 * scale) as usize).min(input - 1)
        }
    };
    Some((0..output).map(source).collect())
}

/// As [`sources`], with the frame rule of CogVideoX: of an odd number of frames above 1 the first reads
/// the first input frame and the others read the other input frames.
pub(super) fn frame_sources(input: usize, output: usize) -> Option<Vec<usize>> {
    if output <= 1 || output.is_multiple_of(2) {
        return sources(input, output);
    }
    let rest = sources(input.checked_sub(1)?, output - 1)?;
    Some(
        std::iter::once(0)
            .chain(rest.into_iter().map(|i| i + 1))
            .collect(),
    )
}
