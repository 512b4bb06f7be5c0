//! Strided copies.

use terrace_kernels::cpu;
use terrace_kernels::cube::*;

use crate::arena::{Arena, FLOATS};
use crate::common::{bits, values};

/// `(extents, (src_offset, src_strides), (dst_offset, dst_strides))`, inside 500 elements each.
type Case = (
    &'static [usize],
    (usize, &'static [usize]),
    (usize, &'static [usize]),
);

const CASES: [Case; 11] = [
    (&[], (3, &[]), (499, &[])),
    (&[0, 4], (0, &[4, 1]), (0, &[4, 1])),
    (&[480], (0, &[1]), (16, &[1])),
    (&[477], (1, &[1]), (2, &[1])),
    (&[10, 32], (0, &[40, 1]), (4, &[48, 1])),
    (&[10, 30], (0, &[40, 1]), (5, &[41, 1])),
    (&[20, 16], (0, &[1, 24]), (0, &[20, 1])),
    (&[20, 16], (0, &[1, 24]), (7, &[1, 30])),
    (&[3, 5, 8], (2, &[0, 40, 1]), (0, &[40, 8, 1])),
    (&[7, 20], (11, &[0, 0]), (1, &[60, 2])),
    (
        &[2, 1, 3, 2, 2, 1, 4, 2],
        (0, &[200, 9, 60, 20, 8, 1, 2, 1]),
        (3, &[1, 1, 32, 96, 16, 400, 4, 2]),
    ),
];

#[test]
fn boxes_of_every_kind_are_copied() {
    let (from, to) = (values(500, 1), values(500, 2));
    for (case, (extents, src, dst)) in CASES.into_iter().enumerate() {
        for (element, skew) in FLOATS.into_iter().flat_map(|e| [(e, 0), (e, 1)]) {
            let mut arena = Arena::new(skew);
            let (from_at, to_at) = (arena.put(element, &from), arena.put(element, &to));
            let on = arena.upload();
            let call = CopyBox {
                extents,
                src: on.at(from_at),
                src_offset: src.0,
                src_strides: src.1,
                dst: on.at(to_at),
                dst_offset: dst.0,
                dst_strides: dst.1,
            };
            let found = on.run(call.calls(on.device()), to_at);
            let mut expected = crate::arena::rounded(element, &to);
            cpu::CopyBox {
                extents,
                src: &crate::arena::rounded(element, &from),
                src_offset: src.0,
                src_strides: src.1,
                dst: &mut expected,
                dst_offset: dst.0,
                dst_strides: dst.1,
            }
            .run()
            .unwrap();
            assert_eq!(bits(&found), bits(&expected), "case {case} in {element}");
        }
    }
}

/// Integers, and bits that are no number, arrive as they are.
#[test]
fn bits_are_copied_as_they_are() {
    let x = [1u32, 0x7fc0_1234, 0xffff_ffff, 0x0000_0001, 0x7f80_0001].map(f32::from_bits);
    for element in [Element::F32, Element::U32] {
        let mut arena = Arena::new(0);
        let (from, to) = (arena.put(Element::F32, &x), arena.poison(Element::F32, 5));
        let on = arena.upload();
        let [src, dst] = [from, to].map(|region| Operand {
            element,
            ..on.at(region)
        });
        let call = CopyBox {
            extents: &[5],
            src,
            src_offset: 0,
            src_strides: &[1],
            dst,
            dst_offset: 0,
            dst_strides: &[1],
        };
        assert_eq!(bits(&on.run(call.calls(on.device()), to)), bits(&x));
    }
}
