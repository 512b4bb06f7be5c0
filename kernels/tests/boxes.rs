//! Strided copies and noise against element-by-element loops; known answers of the generator.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{bits, same_in_all_pools, values};
use terrace_kernels::KernelError;
use terrace_kernels::cpu::*;

/// Known answers of Random123 (`kat_vectors`, philox4x32, 10 rounds).
#[test]
fn philox_gives_the_published_answers() {
    let cases = [
        (
            [0; 4],
            [0; 2],
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
        ),
        (
            [u32::MAX; 4],
            [u32::MAX; 2],
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
        ),
        (
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        ),
    ];
    for (counter, key, expected) in cases {
        assert_eq!(philox4x32(counter, key), expected);
    }
}

#[test]
fn noise_is_a_function_of_its_index() {
    let (seed, stream) = (0x1234_5678_9abc_def0, 3);
    let n = 40_003;
    let base = (1 << 34) + 2;
    let all = same_in_all_pools(|| {
        let mut out = vec![f32::NAN; n];
        noise_fill(seed, stream, base, &mut out).unwrap();
        out
    });
    for i in (0..n).step_by(97).chain(n - 9..n) {
        assert_eq!(
            all[i].to_bits(),
            normal(seed, stream, base + i as u64).to_bits()
        );
    }
    for (first, len) in [(1, 1), (2, 5), (3, 2), (4, 9), (7, 0)] {
        let mut part = vec![f32::NAN; len];
        noise_fill(seed, stream, base + first as u64, &mut part).unwrap();
        assert_eq!(bits(&part), bits(&all[first..first + len]));
    }
    assert_ne!(normal(seed, stream, 0), normal(seed + 1, stream, 0));
    assert_ne!(normal(seed, stream, 0), normal(seed, stream + 1, 0));
    assert!(matches!(
        noise_fill(1, 1, u64::MAX, &mut [0.0; 2]),
        Err(KernelError::Argument {
            argument: "first_index",
            ..
        })
    ));
}

/// Box-Muller written out from the words of one block.
#[test]
fn normals_come_in_pairs_from_the_words_of_their_block() {
    let (seed, stream, block) = (77u64 << 32 | 5, 9u64 << 32 | 1, 6u64);
    let words = philox4x32([6, 0, 1, 9], [5, 77]);
    for lane in 0..4 {
        let (a, b) = (words[lane / 2 * 2], words[lane / 2 * 2 + 1]);
        let radius = (-2.0 * ((f64::from(a) + 0.5) / 2f64.powi(32)).ln()).sqrt();
        let angle = std::f64::consts::TAU * f64::from(b) / 2f64.powi(32);
        let expected = radius
            * if lane % 2 == 0 {
                angle.cos()
            } else {
                angle.sin()
            };
        let found = f64::from(normal(seed, stream, 4 * block + lane as u64));
        assert!(
            (found - expected).abs() < 1e-6,
            "lane {lane}: {found}, {expected}"
        );
    }
}

#[test]
fn noise_has_the_moments_of_the_normal_distribution() {
    let n = 1 << 20;
    let mut out = vec![0.0; n];
    noise_fill(42, 0, 0, &mut out).unwrap();
    let moment = |p: i32| out.iter().map(|&v| f64::from(v).powi(p)).sum::<f64>() / n as f64;
    // Five standard errors of each moment.
    for (p, mean, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
        let error = (moment(p) - mean).abs();
        assert!(
            error < 5.0 * (variance / n as f64).sqrt(),
            "moment {p} is off by {error}"
        );
    }
    let lag = out
        .windows(2)
        .map(|w| f64::from(w[0]) * f64::from(w[1]))
        .sum::<f64>()
        / n as f64;
    assert!(lag.abs() < 5.0 / (n as f64).sqrt());
}

/// All index tuples of a box, the last dimension fastest.
fn tuples(extents: &[usize]) -> Vec<Vec<usize>> {
    extents.iter().fold(vec![vec![]], |list, &extent| {
        let longer = |t: &Vec<usize>| {
            let t = t.clone();
            (0..extent)
                .map(move |i| [t.clone(), vec![i]].concat())
                .collect::<Vec<_>>()
        };
        list.iter().flat_map(longer).collect()
    })
}

fn at(offset: usize, index: &[usize], strides: &[usize]) -> usize {
    offset + index.iter().zip(strides).map(|(i, s)| i * s).sum::<usize>()
}

/// (extents, source length, offset and strides, destination length, offset and strides).
type Case = (
    Vec<usize>,
    (usize, usize, Vec<usize>),
    (usize, usize, Vec<usize>),
);

fn copy_cases() -> Vec<Case> {
    vec![
        // One element, by no dimensions at all.
        (vec![], (3, 2, vec![]), (4, 1, vec![])),
        // A slice of rows, merged into one run.
        (vec![4, 5], (40, 10, vec![5, 1]), (30, 7, vec![5, 1])),
        // Transposition, and a gap in the destination.
        (vec![6, 7], (50, 1, vec![1, 6]), (80, 3, vec![9, 1])),
        // The destination's innermost dimension comes first.
        (
            vec![3, 4, 5],
            (60, 0, vec![20, 5, 1]),
            (60, 0, vec![1, 15, 3]),
        ),
        // A repeated source row, a single source element, empty and single extents.
        (vec![3, 4], (9, 2, vec![0, 1]), (12, 0, vec![4, 1])),
        (vec![9], (9, 2, vec![0]), (12, 1, vec![1])),
        (vec![3, 0, 4], (0, 0, vec![4, 4, 1]), (0, 5, vec![4, 4, 1])),
        (
            vec![1, 3, 1],
            (3, 0, vec![99, 1, 99]),
            (3, 0, vec![0, 1, 0]),
        ),
        // Patches of 2 x 2 of [b, t, c, (h p), (w q)] gathered as [b, t, h, w, c, p, q].
        (
            vec![2, 3, 4, 3, 5, 2, 2],
            (2 * 3 * 5 * 8 * 6, 0, vec![720, 240, 12, 2, 48, 6, 1]),
            (2 * 3 * 4 * 3 * 20, 0, vec![720, 240, 60, 20, 4, 2, 1]),
        ),
        // Large enough to be divided: rows, one run, one strided run, a transposition.
        (
            vec![3, 300, 64],
            (60_000, 5, vec![19_500, 65, 1]),
            (60_000, 9, vec![64, 192, 1]),
        ),
        (vec![100_000], (100_003, 3, vec![1]), (100_001, 1, vec![1])),
        (vec![70_001], (140_003, 2, vec![2]), (210_003, 1, vec![3])),
        (
            vec![300, 301],
            (90_300, 0, vec![1, 300]),
            (90_300, 0, vec![301, 1]),
        ),
        // Eight dimensions.
        (
            vec![2; 8],
            (256, 0, vec![1, 2, 4, 8, 16, 32, 64, 128]),
            (256, 0, vec![128, 64, 32, 16, 8, 4, 2, 1]),
        ),
    ]
}

#[test]
fn copies_equal_the_loop_over_elements() {
    for (extents, (src_len, src_offset, src_strides), (dst_len, dst_offset, dst_strides)) in
        copy_cases()
    {
        let src: Vec<u32> = (0..src_len as u32)
            .map(|i| i.wrapping_mul(2_654_435_761))
            .collect();
        let found = same_in_all_pools(|| {
            let mut dst = vec![7; dst_len];
            CopyBox {
                extents: &extents,
                src: &src,
                src_offset,
                src_strides: &src_strides,
                dst: &mut dst,
                dst_offset,
                dst_strides: &dst_strides,
            }
            .run()
            .unwrap();
            dst
        });
        let mut expected = vec![7; dst_len];
        for index in tuples(&extents) {
            let from = at(src_offset, &index, &src_strides);
            expected[at(dst_offset, &index, &dst_strides)] = src[from];
        }
        assert_eq!(found, expected, "extents {extents:?}");
    }
}

#[test]
fn copies_serve_other_element_types() {
    let mut bytes = [0u8; 4];
    let (extents, strides) = (&[2, 2][..], &[1, 2][..]);
    let (src_strides, dst_strides) = (&[2, 1][..], strides);
    let (src_offset, dst_offset) = (0, 0);
    let (src, dst) = (&[1u8, 2, 3, 4][..], &mut bytes[..]);
    CopyBox {
        extents,
        src,
        src_offset,
        src_strides,
        dst,
        dst_offset,
        dst_strides,
    }
    .run()
    .unwrap();
    assert_eq!(bytes, [1, 3, 2, 4]);
    let mut floats = [0f32; 4];
    let (src, dst) = (&values(4, 1)[..], &mut floats[..]);
    CopyBox {
        extents,
        src,
        src_offset,
        src_strides,
        dst,
        dst_offset,
        dst_strides,
    }
    .run()
    .unwrap();
    assert_eq!(floats[1], src[2]);
}

#[test]
fn noise_boxes_equal_single_numbers() {
    for (extents, (_, index_offset, index_strides), (out_len, out_offset, out_strides)) in
        copy_cases()
    {
        let wide: Vec<u64> = index_strides.iter().map(|&s| s as u64).collect();
        let found = same_in_all_pools(|| {
            let mut out = vec![7.0; out_len];
            NoiseBox {
                seed: 11,
                stream: 2,
                extents: &extents,
                out: &mut out,
                out_offset,
                out_strides: &out_strides,
                index_offset: index_offset as u64,
                index_strides: &wide,
            }
            .run()
            .unwrap();
            out
        });
        let mut expected = vec![7.0; out_len];
        for index in tuples(&extents) {
            let number = at(index_offset, &index, &index_strides) as u64;
            expected[at(out_offset, &index, &out_strides)] = normal(11, 2, number);
        }
        assert_eq!(bits(&found), bits(&expected), "extents {extents:?}");
    }
}

/// (extents, source offset and strides, destination offset and strides, refused argument).
type Refused = (
    &'static [usize],
    usize,
    &'static [usize],
    usize,
    &'static [usize],
    &'static str,
);

#[test]
fn boxes_that_do_not_fit_are_refused() {
    let cases: [Refused; 10] = [
        (&[3, 4], 1, &[4, 1], 0, &[4, 1], "source"),
        (&[3, 4], 0, &[4, 1], 1, &[4, 1], "destination"),
        (&[1], 12, &[1], 0, &[1], "source"),
        (&[2, 2], 0, &[2, 1], 0, &[0, 1], "destination strides"),
        (&[3, 3], 0, &[3, 1], 0, &[2, 1], "destination strides"),
        (&[2; 9], 0, &[1; 9], 0, &[1; 9], "extents"),
        (&[usize::MAX, 2], 0, &[0, 0], 0, &[2, 1], "extents"),
        (&[2], 0, &[usize::MAX], 0, &[1], "source"),
        (&[2], 0, &[1], 0, &[usize::MAX], "destination"),
        (&[3], usize::MAX, &[usize::MAX], 0, &[1], "source"),
    ];
    for (extents, src_offset, src_strides, dst_offset, dst_strides, name) in cases {
        let mut dst = [5u8; 12];
        let src = &[1u8; 12][..];
        let copy = CopyBox {
            extents,
            src,
            src_offset,
            src_strides,
            dst: &mut dst,
            dst_offset,
            dst_strides,
        };
        match copy.run() {
            Err(KernelError::Argument { argument, .. }) => assert_eq!(argument, name),
            other => panic!("{extents:?} gave {other:?}"),
        }
        assert_eq!(dst, [5; 12], "a refused copy wrote");
    }
    let mut dst = [0u8; 4];
    let (extents, src_strides, dst_strides) = (&[2, 2][..], &[1][..], &[2, 1][..]);
    let (src, src_offset, dst_offset) = (&[0u8; 4][..], 0, 0);
    let copy = CopyBox {
        extents,
        src,
        src_offset,
        src_strides,
        dst: &mut dst,
        dst_offset,
        dst_strides,
    };
    assert!(matches!(
        copy.run(),
        Err(KernelError::Length {
            expected: 2,
            found: 1,
            ..
        })
    ));
}
