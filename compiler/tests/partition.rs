//! Partition arithmetic: offsets cover everything, parts are as even as can be.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use terrace_compiler::partition::{even_offsets, fill_offsets, lengths, merge_parts};

/// Difference of the largest and the smallest.
fn spread(totals: &[usize]) -> usize {
    totals.iter().max().unwrap() - totals.iter().min().unwrap()
}

/// Totals after the units were handed out one by one, each to the first of the lowest loads.
fn poured_one_by_one(length: usize, loads: &[usize]) -> Vec<usize> {
    let mut totals = loads.to_vec();
    for _ in 0..length {
        let lowest = *totals.iter().min().unwrap();
        let first = totals.iter().position(|&t| t == lowest).unwrap();
        totals[first] += 1;
    }
    totals
}

fn totals(loads: &[usize], offsets: &[usize]) -> Vec<usize> {
    let added = lengths(offsets);
    loads.iter().zip(added).map(|(load, n)| load + n).collect()
}

proptest! {
    #[test]
    fn even_parts_cover_all_and_differ_by_one(length in 0usize..100_000, parts in 1usize..300) {
        let offsets = even_offsets(length, parts);
        prop_assert_eq!(offsets.len(), parts + 1);
        prop_assert_eq!((offsets[0], offsets[parts]), (0, length));
        prop_assert!(offsets.is_sorted());
        prop_assert!(spread(&lengths(&offsets)) <= 1);
    }

    /// What makes a Ulysses group inside a ring position as even as the ring alone.
    #[test]
    fn merged_parts_stay_even(length in 0usize..100_000, ring in 1usize..20, ulysses in 1usize..20) {
        let merged = merge_parts(&even_offsets(length, ring * ulysses), ulysses);
        prop_assert_eq!(&merged, &even_offsets(length, ring));
        prop_assert_eq!(merged.len(), ring + 1);
    }

    #[test]
    fn merging_keeps_every_end_of_a_group(
        groups in (1usize..6).prop_flat_map(|group| {
            prop::collection::vec(prop::collection::vec(0usize..50, group), 1..8)
        }),
    ) {
        let group = groups[0].len();
        let whole: Vec<usize> = groups.iter().map(|g| g.iter().sum()).collect();
        let mut offsets = vec![0];
        for n in groups.concat() {
            offsets.push(offsets[offsets.len() - 1] + n);
        }
        let merged = merge_parts(&offsets, group);
        prop_assert_eq!(lengths(&merged), whole);
    }

    #[test]
    fn filling_gives_the_totals_of_pouring_one_by_one(
        length in 0usize..400,
        loads in prop::collection::vec(0usize..120, 1..24),
    ) {
        let offsets = fill_offsets(length, &loads);
        prop_assert_eq!((offsets[0], offsets[loads.len()]), (0, length));
        prop_assert!(offsets.is_sorted());
        prop_assert_eq!(totals(&loads, &offsets), poured_one_by_one(length, &loads));
    }

    /// Cells carry `t` tokens each, so they alone balance to `t` tokens; text that is long enough
    /// takes up the rest to within one token.
    #[test]
    fn text_balances_cells_to_one_token(
        cells in 1usize..3000,
        tokens_per_cell in 1usize..25,
        parts in 1usize..65,
        spare in 0usize..500,
    ) {
        let loads: Vec<usize> = lengths(&even_offsets(cells, parts))
            .iter()
            .map(|n| n * tokens_per_cell)
            .collect();
        prop_assert!(spread(&loads) <= tokens_per_cell);
        let highest = loads.iter().max().unwrap();
        let gap: usize = loads.iter().map(|l| highest - l).sum();
        let offsets = fill_offsets(gap + spare, &loads);
        prop_assert!(spread(&totals(&loads, &offsets)) <= 1);
    }

    /// Less text than that never goes where the load is highest.
    #[test]
    fn short_text_never_raises_the_highest_load(
        loads in prop::collection::vec(0usize..120, 1..24),
        share in 0usize..100,
    ) {
        let highest = *loads.iter().max().unwrap();
        let gap: usize = loads.iter().map(|l| highest - l).sum();
        let totals = totals(&loads, &fill_offsets(gap * share / 100, &loads));
        prop_assert_eq!(*totals.iter().max().unwrap(), highest);
    }
}

#[test]
fn the_joint_sequence_of_the_large_model_is_4444_tokens_on_every_one_of_four() {
    let cells = even_offsets(30 * 45, 4);
    assert_eq!(cells, [0, 338, 675, 1013, 1350]);
    let loads: Vec<usize> = lengths(&cells).iter().map(|n| 13 * n).collect();
    let text = fill_offsets(226, &loads);
    assert_eq!(text, [0, 50, 113, 163, 226]);
    assert_eq!(totals(&loads, &text), [4444; 4]);
}

#[test]
fn no_text_is_no_text_anywhere() {
    assert_eq!(fill_offsets(0, &[3, 1, 2]), [0, 0, 0, 0]);
}
