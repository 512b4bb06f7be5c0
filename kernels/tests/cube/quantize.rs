//! Rows in FP8.

use terrace_kernels::cube::*;
use terrace_kernels::f8e4m3;

use crate::arena::{Arena, FLOATS, rounded};
use crate::common::{bits, values};

/// Scales and codes of rows, four codes to a word, on the device and on the CPU.
fn both(element: Element, width: usize, skew: usize, x: &[f32]) -> [(Vec<f32>, Vec<u32>); 2] {
    let rows = x.len() / width;
    let run = |of_codes: bool| {
        let mut arena = Arena::new(skew);
        let from = arena.put(element, x);
        let codes = arena.poison(Element::U32, rows * width / 4);
        let scales = arena.poison(Element::F32, rows);
        let on = arena.upload();
        let call = QuantizeRows {
            rows,
            width,
            x: on.at(from),
            codes: on.at(codes),
            scales: on.at(scales),
        };
        let calls = call.calls(on.device());
        match of_codes {
            true => on.run_with(calls, Some(scales), codes),
            false => on.run_with(calls, Some(codes), scales),
        }
    };
    let mut expected = (Vec::new(), Vec::new());
    for row in rounded(element, x).chunks(width) {
        let scale = f8e4m3::scale(row);
        expected.0.push(scale.factor);
        expected.1.extend(row.chunks(4).map(|four| {
            let codes = four.iter().map(|v| f8e4m3::code(v * scale.inverse));
            u32::from_le_bytes(codes.collect::<Vec<_>>().try_into().unwrap())
        }));
    }
    [(run(false), bits(&run(true))), expected]
}

/// Asserts that scales and codes agree. Where a device divides less exactly, a tie may fall to the other
/// side: so many codes in a thousand may differ by one.
fn agree([found, expected]: [(Vec<f32>, Vec<u32>); 2], most: usize, what: &str) {
    for (found, expected) in found.0.iter().zip(&expected.0) {
        let near = (found / expected - 1.0).abs() < 1e-6;
        assert!(near, "{what}: scale {found}, expected {expected}");
    }
    let bytes = |words: &[u32]| -> Vec<u8> {
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        bytes.collect()
    };
    let (found, expected) = (bytes(&found.1), bytes(&expected.1));
    assert_eq!(found.len(), expected.len(), "{what}");
    let apart = found.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b));
    let differing: Vec<u8> = apart.filter(|&apart| apart > 0).collect();
    assert!(differing.iter().all(|&apart| apart == 1), "{what}");
    assert!(
        differing.len() * 1000 <= found.len() * most,
        "{what}: {} of {} codes differ",
        differing.len(),
        found.len()
    );
}

#[test]
fn rows_are_scaled_and_rounded_as_on_the_cpu() {
    let shapes = [
        (1, 4, 0),
        (7, 36, 0),
        (7, 36, 1),
        (70, 128, 2),
        (3, 3072, 0),
        (2, 1100, 3),
    ];
    for element in FLOATS {
        for (rows, width, skew) in shapes {
            let x: Vec<f32> = values(rows * width, 1).iter().map(|v| v * 9.0).collect();
            let what = format!("{rows} x {width} {element}, skew {skew}");
            agree(both(element, width, skew, &x), 1, &what);
        }
    }
}

/// Numbers of all sizes in rows whose scale is 1, ties among them.
#[test]
fn every_code_is_found() {
    let steps: Vec<f32> = (-1023i16..=1023).map(f32::from).collect();
    for factor in [448.0, 1.0, 0.03].map(|largest| largest / 1024.0) {
        let rows = steps.chunks(124).flat_map(|part| {
            let part = part.iter().map(move |v| v * factor);
            let first = [448.0, 0.0, 0.0, -448.0];
            let row = first.into_iter().chain(part);
            row.chain(std::iter::repeat(0.0)).take(128)
        });
        let x: Vec<f32> = rows.collect();
        agree(both(Element::F32, 128, 0, &x), 20, &format!("{factor}"));
    }
}

#[test]
fn rows_without_a_scale() {
    let mut x = values(4 * 64, 1);
    x[..64].fill(0.0);
    x[64 + 5] = f32::INFINITY;
    x[128 + 63] = f32::NAN;
    let [(scales, codes), _] = both(Element::F32, 64, 0, &x);
    assert_eq!(scales[0], 0.0);
    assert!(codes[..16].iter().all(|&word| word == 0));
    assert!(scales[1].is_nan() && scales[2].is_nan());
    assert!(scales[3].is_finite() && scales[3] > 0.0);
}

#[test]
fn rows_that_do_not_fill_words_are_refused() {
    let mut arena = Arena::new(0);
    let (x, codes) = (
        arena.poison(Element::F32, 12),
        arena.poison(Element::U32, 3),
    );
    let scales = arena.poison(Element::F32, 2);
    let on = arena.upload();
    let call = |rows, width, codes| QuantizeRows {
        rows,
        width,
        x: on.at(x),
        codes: on.at(codes),
        scales: on.at(scales),
    };
    let refusal = |call: QuantizeRows<_>| call.calls(on.device()).err().unwrap().to_string();
    let text = refusal(call(2, 6, codes));
    assert!(
        text.contains("width") && text.contains("multiple of 4"),
        "{text}"
    );
    let text = refusal(call(3, 4, codes));
    assert!(text.contains("scales"), "{text}");
    let text = refusal(call(3, 4, x));
    assert!(text.contains("codes") && text.contains("u32"), "{text}");
}
