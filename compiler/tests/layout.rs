//! Copies between layouts against a model that lists elements one by one: every element that both
//! sides hold is written once, to its place, and nothing else is.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;
use terrace_compiler::ir::{Dim, Factor, Group, Name, Partition, Segment, Sharding};
use terrace_compiler::layout::{Layout, copies};
use terrace_plan::{Axis, BoxCopy, Coords, Mesh};

/// Where an element lies in the global tensor: an index per factor of its segments.
type Element = BTreeMap<Name, usize>;

/// Held ranges of groups.
type Held = BTreeMap<Vec<Name>, Range<usize>>;

const MESH: Mesh = Mesh {
    cfg: 1,
    ring: 3,
    ulysses: 1,
};

/// The rank that holds the second of three parts.
const MIDDLE: Coords = Coords {
    cfg: 0,
    ring: 1,
    ulysses: 0,
};

/// The cut of which the middle rank holds these ranges.
fn sharding(dims: &[Dim], held: &Held) -> Sharding {
    let size = |group: &[Name]| -> usize {
        let cut = dims.iter().flat_map(Dim::factors);
        cut.filter(|f| group.contains(&f.name))
            .map(|f| f.size)
            .product()
    };
    let cut = |(group, range): (&Vec<Name>, &Range<usize>)| {
        let offsets = vec![0, range.start, range.end, size(group)];
        let partition = Partition::new(vec![Axis::Ring], offsets);
        (Group(group.clone()), partition)
    };
    Sharding(held.iter().map(cut).collect())
}

/// The elements of a dense tensor that holds these ranges, in order.
fn elements(dims: &[Dim], held: &Held) -> Vec<Element> {
    let mut all = vec![Element::new()];
    for dim in dims {
        let inner: Vec<Element> = dim
            .segments
            .iter()
            .flat_map(|segment| of_segment(segment, held))
            .collect();
        all = all
            .iter()
            .flat_map(|outer| {
                inner.iter().map(|inner| {
                    let mut element = outer.clone();
                    element.extend(inner.clone());
                    element
                })
            })
            .collect();
    }
    all
}

fn of_segment(segment: &Segment, held: &Held) -> Vec<Element> {
    let mut all = vec![Element::new()];
    for factor in &segment.factors {
        all = all
            .iter()
            .flat_map(|outer| {
                (0..factor.size).map(|index| {
                    let mut element = outer.clone();
                    element.insert(factor.name.clone(), index);
                    element
                })
            })
            .collect();
    }
    let inside = |element: &Element| {
        held.iter().all(|(group, range)| {
            let cuts = segment.factors.iter().filter(|f| group.contains(&f.name));
            let raster = cuts.fold(None, |raster: Option<usize>, f| {
                Some(raster.unwrap_or(0) * f.size + element[&f.name])
            });
            raster.is_none_or(|raster| range.contains(&raster))
        })
    };
    all.retain(inside);
    all
}

/// For every position of the destination, the position of the source that it was copied from.
fn run(boxes: &[BoxCopy], len: usize) -> Result<Vec<Option<usize>>, TestCaseError> {
    let mut written = vec![None; len];
    for copy in boxes {
        let mut places = vec![(copy.src_offset, copy.dst_offset)];
        for (at, &extent) in copy.extents.iter().enumerate() {
            let (src_step, dst_step) = (copy.src_strides[at], copy.dst_strides[at]);
            places = places
                .iter()
                .flat_map(|(src, dst)| {
                    (0..extent).map(move |i| (src + i * src_step, dst + i * dst_step))
                })
                .collect();
        }
        for (src, dst) in places {
            prop_assert!(dst < len, "{dst} is outside of {len} elements: {copy:?}");
            prop_assert_eq!(written[dst], None, "{} is written twice: {:?}", dst, copy);
            written[dst] = Some(src);
        }
    }
    Ok(written)
}

/// Checks copies; `key` gives the source element that a destination element is a copy of.
fn check(
    boxes: &[BoxCopy],
    src: &[Element],
    dst: &[Element],
    key: impl Fn(&Element) -> Element,
) -> Result<(), TestCaseError> {
    let places: BTreeMap<&Element, usize> = src.iter().zip(0..).collect();
    let expected: Vec<Option<usize>> = dst.iter().map(|e| places.get(&key(e)).copied()).collect();
    prop_assert_eq!(run(boxes, dst.len())?, expected);
    Ok(())
}

/// Dimensions of these sizes: factors of segments of dimensions, all names different.
fn dims(sizes: &[Vec<Vec<usize>>]) -> Vec<Dim> {
    let mut count = 0;
    let mut factor = |size: &usize| {
        count += 1;
        Factor::new(&format!("f{count}"), *size)
    };
    let mut dims = Vec::new();
    for segments in sizes {
        let segments = segments.iter().map(|factors| Segment {
            factors: factors.iter().map(&mut factor).collect(),
        });
        let segments = segments.collect();
        dims.push(Dim::sum(&format!("d{}", dims.len()), segments));
    }
    dims
}

/// One to three dimensions of up to `segments` segments of up to three factors.
fn any_dims(segments: usize) -> impl Strategy<Value = Vec<Dim>> {
    let factors = prop::collection::vec(1usize..5, 1..4);
    let segments = prop::collection::vec(factors, 1..=segments);
    prop::collection::vec(segments, 1..4)
        .prop_map(|sizes| dims(&sizes))
        .prop_filter("few elements", |dims| {
            dims.iter().map(Dim::size).product::<usize>() <= 1500
        })
}

/// At most one group per segment: a run of factors, with its size.
fn any_groups(dims: &[Dim]) -> impl Strategy<Value = Vec<(Vec<Name>, usize)>> + use<> {
    let segments: Vec<Vec<Factor>> = dims
        .iter()
        .flat_map(|d| &d.segments)
        .map(|s| s.factors.clone())
        .collect();
    let picks = prop::collection::vec((0usize..3, 0usize..4), segments.len());
    picks.prop_map(move |picks| {
        let run = |(factors, (start, len)): (&Vec<Factor>, (usize, usize))| {
            let start = start.min(factors.len() - 1);
            let run = &factors[start..(start + len).min(factors.len())];
            let names = run.iter().map(|f| f.name.clone()).collect();
            (names, run.iter().map(|f| f.size).product())
        };
        let groups = segments.iter().zip(picks).map(run);
        groups
            .filter(|(names, _): &(Vec<Name>, usize)| !names.is_empty())
            .collect()
    })
}

/// Ranges of some of the groups; the others are held whole.
fn any_held(groups: Vec<(Vec<Name>, usize)>) -> impl Strategy<Value = Held> {
    let ends = prop::collection::vec((any::<bool>(), 0usize..100, 0usize..100), groups.len());
    ends.prop_map(move |ends| {
        let held = groups.iter().zip(ends).filter(|(_, (cut, ..))| *cut);
        held.map(|((names, size), (_, a, b))| {
            let (a, b) = (a % (size + 1), b % (size + 1));
            (names.clone(), a.min(b)..a.max(b))
        })
        .collect()
    })
}

/// Dimensions, groups, and what two sides hold of them.
fn any_sides(segments: usize) -> impl Strategy<Value = (Vec<Dim>, Held, Held)> {
    any_dims(segments).prop_flat_map(|dims| {
        let groups = any_groups(&dims);
        (Just(dims), groups).prop_flat_map(|(dims, groups)| {
            (Just(dims), any_held(groups.clone()), any_held(groups))
        })
    })
}

/// A host layout: the same factors in any order, in dimensions of any number of them.
fn any_host(dims: &[Dim]) -> impl Strategy<Value = Vec<Dim>> + use<> {
    let factors: Vec<Factor> = dims.iter().flat_map(Dim::factors).cloned().collect();
    let order = Just(factors).prop_shuffle();
    (order, prop::collection::vec(1usize..4, 9)).prop_map(|(factors, lengths)| {
        let mut rest = factors.as_slice();
        let mut dims = Vec::new();
        for length in lengths {
            if rest.is_empty() {
                break;
            }
            let (taken, left) = rest.split_at(length.min(rest.len()));
            let segment = Segment {
                factors: taken.to_vec(),
            };
            dims.push(Dim::sum(&format!("y{}", dims.len()), vec![segment]));
            rest = left;
        }
        dims
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// What a rank sends to another: two cuts of one tensor, sums included.
    #[test]
    fn between_parts((dims, src, dst) in any_sides(3)) {
        let (here, there) = (sharding(&dims, &src), sharding(&dims, &dst));
        let from = Layout::part(&dims, &here, &MESH, MIDDLE);
        let to = Layout::part(&dims, &there, &MESH, MIDDLE);
        let boxes = copies(&from, &to).unwrap();
        check(&boxes, &elements(&dims, &src), &elements(&dims, &dst), Element::clone)?;
    }

    /// Ports: the caller's tensor has the factors in another order, patches and all.
    #[test]
    fn between_a_host_tensor_and_a_part(
        (dims, held, host) in any_sides(1).prop_flat_map(|(dims, held, _)| {
            let host = any_host(&dims);
            (Just(dims), Just(held), host)
        }),
    ) {
        let cut = sharding(&dims, &held);
        let (whole, part) = (Layout::whole(&host), Layout::part(&dims, &cut, &MESH, MIDDLE));
        let (outside, inside) = (elements(&host, &Held::new()), elements(&dims, &held));
        check(&copies(&whole, &part).unwrap(), &outside, &inside, Element::clone)?;
        check(&copies(&part, &whole).unwrap(), &inside, &outside, Element::clone)?;
    }

    /// One segment of a sum, cut alike on both sides.
    #[test]
    fn from_a_sum_to_one_of_its_segments(
        (dims, held, _) in any_sides(3),
        at in 0usize..3,
        segment in 0usize..3,
    ) {
        let at = at % dims.len();
        let mut alone = dims.clone();
        let segment = segment % dims[at].segments.len();
        alone[at].segments = vec![dims[at].segments[segment].clone()];
        let cut = sharding(&dims, &held);
        let from = Layout::part(&dims, &cut, &MESH, MIDDLE);
        let to = Layout::part(&alone, &cut, &MESH, MIDDLE);
        let boxes = copies(&from, &to).unwrap();
        check(&boxes, &elements(&dims, &held), &elements(&alone, &held), Element::clone)?;
    }

    /// Takes, concatenations and repeats work on a factor that is not cut.
    #[test]
    fn of_a_range_of_a_factor_and_of_a_repeated_one(
        (dims, held, _) in any_sides(2),
        pick in 0usize..20,
        ends in (0usize..5, 0usize..5),
    ) {
        let free: Vec<&Factor> = dims
            .iter()
            .flat_map(Dim::factors)
            .filter(|f| !held.keys().any(|group| group.contains(&f.name)))
            .collect();
        prop_assume!(!free.is_empty());
        let factor = free[pick % free.len()];
        let (a, b) = (ends.0 % factor.size, ends.1 % factor.size);
        let range = a.min(b)..a.max(b) + 1;
        let cut = sharding(&dims, &held);
        let part = || Layout::part(&dims, &cut, &MESH, MIDDLE);
        let whole = elements(&dims, &held);

        let taken = part().taking(&factor.name, range.clone());
        let mut narrow = held.clone();
        narrow.insert(vec![factor.name.clone()], range);
        let narrow = elements(&dims, &narrow);
        check(&copies(&part(), &taken).unwrap(), &whole, &narrow, Element::clone)?;
        check(&copies(&taken, &part()).unwrap(), &narrow, &whole, Element::clone)?;

        let mut first = held.clone();
        first.insert(vec![factor.name.clone()], 0..1);
        let once = elements(&dims, &first);
        let boxes = copies(&part().repeating(&factor.name), &part()).unwrap();
        let key = |element: &Element| {
            let mut key = element.clone();
            if let Some(index) = key.get_mut(&factor.name) {
                *index = 0;
            }
            key
        };
        check(&boxes, &once, &whole, key)?;
    }

    /// Cuts of groups that have no common raster are refused, never copied wrongly.
    #[test]
    fn between_any_cuts_is_right_or_refused(
        (dims, src, dst) in any_dims(2).prop_flat_map(|dims| {
            let (here, there) = (any_groups(&dims), any_groups(&dims));
            (Just(dims), here.prop_flat_map(any_held), there.prop_flat_map(any_held))
        }),
    ) {
        let (here, there) = (sharding(&dims, &src), sharding(&dims, &dst));
        let from = Layout::part(&dims, &here, &MESH, MIDDLE);
        let to = Layout::part(&dims, &there, &MESH, MIDDLE);
        if let Some(boxes) = copies(&from, &to) {
            check(&boxes, &elements(&dims, &src), &elements(&dims, &dst), Element::clone)?;
        }
    }
}

#[test]
fn other_factors_have_no_copy() {
    let (a, b) = ([Dim::new("a", 2)], [Dim::new("b", 2)]);
    assert_eq!(copies(&Layout::whole(&a), &Layout::whole(&b)), None);
}

#[test]
fn a_ragged_slice_of_a_row_major_frame_is_at_most_three_boxes() {
    let tokens = [Dim::product("v", &[("h", 30), ("w", 45)])];
    let frame = [Dim::new("w", 45), Dim::new("h", 30)];
    let held = Held::from([(vec!["h".into(), "w".into()], 338..675)]);
    let cut = sharding(&tokens, &held);
    let part = Layout::part(&tokens, &cut, &MESH, MIDDLE);
    assert_eq!(copies(&Layout::whole(&frame), &part).unwrap().len(), 2);
    assert_eq!(copies(&Layout::whole(&tokens), &part).unwrap().len(), 1);
    let held = Held::from([(vec!["h".into(), "w".into()], 340..650)]);
    let cut = sharding(&tokens, &held);
    let part = Layout::part(&tokens, &cut, &MESH, MIDDLE);
    assert_eq!(copies(&part, &Layout::whole(&frame)).unwrap().len(), 3);
}
