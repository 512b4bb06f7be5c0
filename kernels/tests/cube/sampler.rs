//! The scheduler's update, and noise.

use terrace_kernels::cpu;
use terrace_kernels::cube::*;

use crate::arena::{Arena, close};
use crate::common::{bits, values};

const COEFFICIENTS: [f32; 7] = [6.5, 0.75, -0.5, 1.25, -0.375, 0.625, 0.3];

#[test]
fn estimates_match_those_of_the_cpu() {
    for (len, skew) in [(1, 0), (1000, 0), (1000, 1), (70_003, 0)] {
        let [pred, uncond, latents] = [1, 2, 3].map(|salt| values(len, salt));
        for guided in [false, true] {
            let mut arena = Arena::new(skew);
            let [pred_at, uncond_at, latents_at] =
                [&pred, &uncond, &latents].map(|v| arena.put(Element::F32, v));
            let coefficients = arena.put(Element::F32, &COEFFICIENTS);
            let y = arena.poison(Element::F32, len);
            let on = arena.upload();
            let call = Denoise {
                uncond: guided.then(|| on.at(uncond_at)),
                pred: on.at(pred_at),
                latents: on.at(latents_at),
                coefficients: on.at(coefficients),
                y: on.at(y),
            };
            let found = on.run(call.calls(on.device()), y);
            let mut expected = vec![0.0; len];
            cpu::Denoise {
                pred_uncond: if guided { &uncond } else { &pred },
                pred_text: guided.then_some(&pred[..]),
                guidance: COEFFICIENTS[0],
                latents: &latents,
                c0: COEFFICIENTS[1],
                c1: COEFFICIENTS[2],
                x0: &mut expected,
            }
            .run()
            .unwrap();
            close(Element::F32, &found, &expected, 2e-6);
        }
    }
}

#[test]
fn next_latents_match_those_of_the_cpu() {
    let len = 4004;
    let [latents, x0, previous, noise] = [1, 2, 3, 4].map(|salt| values(len, salt));
    for (old, noisy, skew) in [
        (false, false, 0),
        (true, false, 1),
        (false, true, 0),
        (true, true, 0),
    ] {
        let mut arena = Arena::new(skew);
        let [a, b, c, d] = [&latents, &x0, &previous, &noise].map(|v| arena.put(Element::F32, v));
        let coefficients = arena.put(Element::F32, &COEFFICIENTS);
        let y = arena.poison(Element::F32, len);
        let on = arena.upload();
        let call = Advance {
            latents: on.at(a),
            x0: on.at(b),
            previous: old.then(|| on.at(c)),
            noise: noisy.then(|| on.at(d)),
            coefficients: on.at(coefficients),
            y: on.at(y),
        };
        let found = on.run(call.calls(on.device()), y);
        let mut expected = vec![0.0; len];
        cpu::Advance {
            latents: &latents,
            x0: &x0,
            x0_old: old.then_some(&previous[..]),
            noise: noisy.then_some(&noise[..]),
            c2: COEFFICIENTS[3],
            c3: COEFFICIENTS[4],
            c4: COEFFICIENTS[5],
            c5: COEFFICIENTS[6],
            y: &mut expected,
        }
        .run()
        .unwrap();
        close(Element::F32, &found, &expected, 1e-6);
    }
}

/// The numbers of `extents` from `index` on, laid out with `to` and counted with `from` steps.
fn noise(key: [u32; 4], extents: &[usize], to: &[usize], index: u64, from: &[u64]) -> Vec<f32> {
    let mut arena = Arena::new(1);
    let len = 1 + extents
        .iter()
        .zip(to)
        .map(|(n, step)| (n - 1) * step)
        .sum::<usize>();
    let key = arena.words(&key);
    let out = arena.put(Element::F32, &vec![0.5; len + 3]);
    let on = arena.upload();
    let call = NoiseBox {
        key: on.at(key),
        extents,
        out: on.at(out),
        out_offset: 3,
        out_strides: to,
        index_offset: index,
        index_strides: from,
    };
    on.run(call.calls(on.device()), out)
}

#[test]
fn normal_numbers_are_those_of_the_cpu() {
    for (seed, stream, first) in [
        (0, 0, 0),
        (42, 7, 5),
        (u64::MAX - 9, 1 << 40, (1 << 32) - 40_000),
    ] {
        let key = [
            seed as u32,
            (seed >> 32) as u32,
            stream as u32,
            (stream >> 32) as u32,
        ];
        let len = 40_000;
        let found = noise(key, &[len], &[1], first, &[1]);
        assert_eq!(found[..3], [0.5; 3]);
        for (i, &f) in found[3..].iter().enumerate() {
            let expected = cpu::normal(seed, stream, first + i as u64);
            // A few units in the last place; small numbers come from a difference of angles.
            let most = 6e-7 * expected.abs().max(0.5);
            assert!(
                (f - expected).abs() <= most,
                "{i}: {f}, expected {expected}"
            );
        }
    }
}

/// A box, cut or permuted, has the bits that its numbers have in the whole.
#[test]
fn noise_boxes_do_not_depend_on_the_cut() {
    let key = [1, 2, 3, 4];
    let whole = noise(key, &[3 * 10 * 9], &[1], 0, &[1]);
    let found = noise(key, &[3, 4, 9], &[1, 3, 12], 5 * 9, &[90, 9, 1]);
    for (t, h, w) in (0..3).flat_map(|t| (0..4).flat_map(move |h| (0..9).map(move |w| (t, h, w)))) {
        let global = t * 90 + (h + 5) * 9 + w;
        let local = t + h * 3 + w * 12;
        assert_eq!(
            bits(&found[3 + local..][..1]),
            bits(&whole[3 + global..][..1])
        );
    }
}

#[test]
fn noise_beyond_the_output_or_32_bits_is_refused() {
    let mut arena = Arena::new(0);
    let (key, out) = (arena.words(&[0; 4]), arena.poison(Element::F32, 10));
    let on = arena.upload();
    let refused = |extents: &[usize], to: &[usize], index: u64, from: &[u64]| {
        let call = NoiseBox {
            key: on.at(key),
            extents,
            out: on.at(out),
            out_offset: 1,
            out_strides: to,
            index_offset: index,
            index_strides: from,
        };
        call.calls(on.device()).is_err()
    };
    assert!(!refused(&[9], &[1], 0, &[1]));
    assert!(!refused(&[9], &[1], (1 << 32) - 9, &[1]));
    assert!(refused(&[10], &[1], 0, &[1]));
    assert!(refused(&[9], &[1], (1 << 32) - 8, &[1]));
    assert!(refused(&[3, 3], &[1, 1], 0, &[3, 1]));
    assert!(refused(&[9], &[1, 1], 0, &[1]));
}
