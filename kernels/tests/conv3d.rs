//! The causal convolution against f64 arithmetic written here, on every instruction set, in pools of 1,
//! 2 and 3 threads, and chunk by chunk.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{bits, close, same_in_all_pools, values};
use terrace_kernels::cpu::*;

/// Sizes of a case.
#[derive(Clone, Copy)]
struct Case {
    batch: usize,
    frames: usize,
    height: usize,
    width: usize,
    cin: usize,
    cout: usize,
    kernel: [usize; 3],
}

impl Case {
    fn frame(&self) -> usize {
        self.height * self.width * self.cin
    }

    fn input(&self) -> usize {
        self.batch * self.frames * self.frame()
    }

    fn output(&self) -> usize {
        self.batch * self.frames * self.height * self.width * self.cout
    }

    fn weight(&self) -> Vec<f32> {
        values(
            self.cout * self.cin * self.kernel.iter().product::<usize>(),
            2,
        )
    }

    fn cached(&self) -> usize {
        self.batch * (self.kernel[0] - 1) * self.frame()
    }

    /// The input under a tap, zero outside the frame; frames before the first come from the cache.
    fn at(&self, x: &[f32], cache: Option<&[f32]>, b: usize, at: [isize; 3], c: usize) -> f64 {
        let [f, row, column] = at;
        let inside = |v: isize, n: usize| (0..n as isize).contains(&v);
        if !inside(row, self.height) || !inside(column, self.width) {
            return 0.0;
        }
        let keep = self.kernel[0] as isize - 1;
        let (data, frame) = match cache {
            Some(cache) if f < 0 => (cache, b as isize * keep + keep + f),
            _ => (x, b as isize * self.frames as isize + f.max(0)),
        };
        let pixel = row as usize * self.width + column as usize;
        f64::from(data[frame as usize * self.frame() + pixel * self.cin + c])
    }

    fn naive(&self, x: &[f32], cache: Option<&[f32]>, weight: &[f32]) -> Vec<f64> {
        let [kt, kh, kw] = self.kernel;
        let mut y = Vec::new();
        for pixel in 0..self.batch * self.frames * self.height * self.width {
            let (line, column) = (pixel / self.width, pixel % self.width);
            let (image, row) = (line / self.height, line % self.height);
            let (b, frame) = (image / self.frames, image % self.frames);
            for cout in 0..self.cout {
                let mut sum = 0.0;
                for (i, &w) in weight
                    .chunks_exact(self.cin * kt * kh * kw)
                    .nth(cout)
                    .unwrap()
                    .iter()
                    .enumerate()
                {
                    let (c, tap) = (i / (kt * kh * kw), i % (kt * kh * kw));
                    let at = [
                        frame as isize + (tap / (kh * kw)) as isize - (kt as isize - 1),
                        row as isize + (tap / kw % kh) as isize - (kh / 2) as isize,
                        column as isize + (tap % kw) as isize - (kw / 2) as isize,
                    ];
                    sum += f64::from(w) * self.at(x, cache, b, at, c);
                }
                y.push(sum);
            }
        }
        y
    }

    fn run(
        &self,
        x: &[f32],
        cache: Option<&[f32]>,
        weight: &PackedConv3d,
        set: InstructionSet,
    ) -> Vec<f32> {
        let mut y = vec![f32::NAN; self.output()];
        Conv3d {
            batch: self.batch,
            frames: self.frames,
            height: self.height,
            width: self.width,
            x,
            cache,
            weight,
            bias: None,
            residual: None,
            y: &mut y,
        }
        .run_with(set)
        .unwrap();
        y
    }
}

fn case(grid: [usize; 4], cin: usize, cout: usize, kernel: [usize; 3]) -> Case {
    let [batch, frames, height, width] = grid;
    Case {
        batch,
        frames,
        height,
        width,
        cin,
        cout,
        kernel,
    }
}

#[test]
fn convolutions_of_many_shapes_match_f64() {
    let cases = [
        case([1, 1, 1, 1], 1, 1, [1, 1, 1]),
        case([2, 3, 4, 5], 3, 17, [3, 3, 3]),
        case([1, 2, 3, 7], 16, 3, [3, 3, 3]),
        case([1, 4, 2, 2], 40, 33, [3, 3, 3]),
        case([2, 2, 5, 3], 7, 5, [1, 3, 3]),
        case([1, 5, 2, 3], 5, 8, [3, 1, 1]),
        case([1, 1, 13, 17], 4, 6, [2, 5, 1]),
        case([3, 2, 2, 2], 70, 20, [1, 1, 1]),
        case([1, 2, 1, 1], 2, 2, [4, 7, 3]),
    ];
    for case in cases {
        let (x, weight, cache) = (
            values(case.input(), 1),
            case.weight(),
            values(case.cached(), 3),
        );
        let packed = PackedConv3d::pack(case.cout, case.cin, case.kernel, &weight).unwrap();
        for cache in [None, Some(&cache[..])] {
            let expected = case.naive(&x, cache, &weight);
            let mut fused: Option<Vec<u32>> = None;
            for set in InstructionSet::available() {
                let y = same_in_all_pools(|| bits(&case.run(&x, cache, &packed, set)));
                let found: Vec<f32> = y.iter().map(|&v| f32::from_bits(v)).collect();
                close(&found, &expected, 2e-5);
                if set.name() != "portable" {
                    assert_eq!(fused.get_or_insert_with(|| y.clone()), &y, "{set}");
                }
            }
        }
    }
}

#[test]
fn bias_and_residual_are_added() {
    let case = case([1, 2, 3, 4], 5, 18, [3, 3, 3]);
    let (x, weight) = (values(case.input(), 1), case.weight());
    let packed = PackedConv3d::pack(case.cout, case.cin, case.kernel, &weight).unwrap();
    let (bias, residual) = (values(case.cout, 4), values(case.output(), 5));
    let mut expected = case.naive(&x, None, &weight);
    for (i, v) in expected.iter_mut().enumerate() {
        *v += f64::from(bias[i % case.cout]) + f64::from(residual[i]);
    }
    let mut y = vec![f32::NAN; case.output()];
    Conv3d {
        batch: case.batch,
        frames: case.frames,
        height: case.height,
        width: case.width,
        x: &x,
        cache: None,
        weight: &packed,
        bias: Some(&bias),
        residual: Some(&residual),
        y: &mut y,
    }
    .run()
    .unwrap();
    close(&y, &expected, 1e-5);
}

/// A video in chunks, each with the cache of the one before, has the bits of the whole.
#[test]
fn chunks_equal_the_whole() {
    let whole = case([2, 7, 5, 9], 33, 20, [3, 3, 3]);
    let (x, weight) = (values(whole.input(), 1), whole.weight());
    let packed = PackedConv3d::pack(whole.cout, whole.cin, whole.kernel, &weight).unwrap();
    let set = instruction_set();
    let all = whole.run(&x, None, &packed, set);
    let out_frame = 5 * 9 * whole.cout;
    let mut cache: Option<Vec<f32>> = None;
    let mut first = 0;
    for frames in [1, 2, 4] {
        let chunk = Case { frames, ..whole };
        let part: Vec<f32> = x
            .chunks_exact(7 * whole.frame())
            .flat_map(|item| item[first * whole.frame()..][..frames * whole.frame()].to_vec())
            .collect();
        let y = chunk.run(&part, cache.as_deref(), &packed, set);
        for (b, y) in y.chunks_exact(frames * out_frame).enumerate() {
            let expected = &all[(b * 7 + first) * out_frame..][..frames * out_frame];
            assert_eq!(bits(y), bits(expected));
        }
        let mut next = vec![f32::NAN; chunk.cached()];
        ConvCache {
            batch: 2,
            frames,
            frame: whole.frame(),
            keep: 2,
            cache: cache.as_deref(),
            x: &part,
            y: &mut next,
        }
        .run()
        .unwrap();
        (cache, first) = (Some(next), first + frames);
    }
}

/// A pixel's bits depend on what its taps see and on whether its row and column are even, not on the size of the
/// frame.
#[test]
fn a_crop_has_the_bits_of_the_whole_inside() {
    let whole = case([1, 2, 12, 30], 20, 24, [3, 3, 3]);
    let (x, weight) = (values(whole.input(), 1), whole.weight());
    let packed = PackedConv3d::pack(whole.cout, whole.cin, whole.kernel, &weight).unwrap();
    let set = instruction_set();
    let all = whole.run(&x, None, &packed, set);
    let crop = Case {
        height: 6,
        width: 11,
        ..whole
    };
    let mut part = Vec::new();
    for (frame, row) in (0..2).flat_map(|f| (0..6).map(move |r| (f, r + 4))) {
        part.extend_from_slice(&x[((frame * 12 + row) * 30 + 8) * 20..][..11 * 20]);
    }
    let y = crop.run(&part, None, &packed, set);
    for (frame, row) in (0..2).flat_map(|f| (1..5).map(move |r| (f, r))) {
        let found = &y[((frame * 6 + row) * 11 + 1) * 24..][..9 * 24];
        let expected = &all[((frame * 12 + row + 4) * 30 + 9) * 24..][..9 * 24];
        assert_eq!(bits(found), bits(expected));
    }
}
