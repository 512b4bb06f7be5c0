//! Box copies: what is packed on one side and unpacked on the other is what is copied at once.

use proptest::prelude::*;
use terrace_plan::StridedBox;
use terrace_runtime::Boxes;

/// Elements of a buffer that regions lie in.
const ELEMENTS: usize = 4096;

/// A region of one to three dimensions whose elements are all different.
fn region(extents: &[usize], gaps: &[usize], offset: usize) -> StridedBox {
    let mut strides = vec![1; extents.len()];
    for dim in (0..extents.len()).rev() {
        let inner = strides.get(dim + 1).zip(extents.get(dim + 1));
        strides[dim] = inner.map_or(1, |(stride, extent)| stride * extent) + gaps[dim];
    }
    StridedBox {
        extents: extents.to_vec(),
        offset,
        strides,
    }
}

/// Regions of equal extents on both sides.
fn regions() -> impl Strategy<Value = Vec<(StridedBox, StridedBox)>> {
    let pair = (
        prop::collection::vec(1usize..5, 1..4),
        any::<[[usize; 3]; 2]>(),
        0usize..9,
    );
    let pair = pair.prop_map(|(extents, gaps, offset)| {
        let side = |gaps: [usize; 3], offset| region(&extents, &gaps.map(|gap| gap % 3), offset);
        (side(gaps[0], offset), side(gaps[1], 2 * offset))
    });
    prop::collection::vec(pair, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn packing_and_unpacking_is_copying(pairs in regions()) {
        let (sends, receives): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let src: Vec<u32> = (1..=ELEMENTS as u32).collect();
        let (mut expected, mut found) = (vec![0; ELEMENTS], vec![0; ELEMENTS]);
        let direct = Boxes::matched(&sends, &receives).unwrap();
        direct.apply(&src, &mut expected).unwrap();
        let (pack, unpack) = (Boxes::packed(&sends).unwrap(), Boxes::unpacked(&receives).unwrap());
        prop_assert_eq!(pack.elements(), direct.elements());
        prop_assert_eq!(pack.dst_end(), pack.elements());
        let mut line = vec![0; pack.elements()];
        pack.apply(&src, &mut line).unwrap();
        unpack.apply(&line, &mut found).unwrap();
        prop_assert!(found == expected);
    }
}
