//! The explain printer.

use crate::build::{Spec, header, mesh};
use terrace_plan::explain::{Balance, Explanation, Part, Quantity, RankSteps, Tokens, steps};
use terrace_plan::*;

/// CogVideoX-2b at its default size, 226 text tokens and 13 x 30 x 45 video tokens, cut over four ranks.
fn four_ranks() -> Plan {
    let mut plan = Spec::cut(mesh(1, 2, 2), &[0, 1, 2, 3, 4], &[0, 15, 30]).plan();
    plan.header = Header {
        graph: "denoise-step".into(),
        ..header(plan.mesh)
    };
    let cut =
        |factors: &str, sizes: &[usize], repeat, axes: &[Axis], offsets: &[usize]| NamedPartition {
            factors: factors.into(),
            sizes: sizes.to_vec(),
            repeat,
            axes: axes.to_vec(),
            offsets: offsets.to_vec(),
        };
    let rows = [Axis::Ring, Axis::Ulysses];
    plan.partitions = vec![
        cut("h.w", &[30, 45], 13, &rows, &[0, 338, 675, 1013, 1350]),
        cut("txt", &[226], 1, &rows, &[0, 50, 113, 163, 226]),
        cut("n", &[30], 1, &[Axis::Ulysses], &[0, 15, 30]),
    ];
    plan
}

#[test]
fn four_ranks_hold_4444_tokens_each() {
    let plan = four_ranks();
    assert_eq!(plan.check(), Ok(()));
    let it = Explanation::of(&plan);
    for rank in &it.ranks {
        assert_eq!(rank.tokens.unwrap().total, 4444);
    }
    let balance = it.token_balance.unwrap();
    assert_eq!((balance.min, balance.max), (4444, 4444));
    let text = it.to_text();
    assert!(text.contains("4444 on every rank"), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn rows_are_counted_as_rows() {
    let mut plan = four_ranks();
    plan.partitions[0].offsets = [0, 8, 15, 23, 30].map(|row| 45 * row).to_vec();
    let it = Explanation::of(&plan);
    assert_eq!(it.cuts[0].quantity, Quantity::Rows);
    assert_eq!(it.cuts[0].tokens_per_unit, 13 * 45);
    assert_eq!(it.cuts[0].offsets, [0, 8, 15, 23, 30]);
    assert_eq!(it.ranks[1].parts[0], Some(Part { start: 8, end: 15 }));
    assert_eq!(it.ranks[1].tokens, Some(tokens(63, 7 * 45 * 13)));
    let imbalance = it.cuts[0].balance.unwrap().imbalance_percent;
    assert!((imbalance - (8.0 / 7.5 - 1.0) * 100.0).abs() < 1e-9);
}

fn tokens(text: usize, video: usize) -> Tokens {
    Tokens {
        text,
        video,
        total: text + video,
    }
}

#[test]
fn balance_is_what_the_average_rank_waits() {
    assert_eq!(Balance::of(&[]), None);
    let even = Balance::of(&[0, 0]).unwrap();
    assert_eq!(even.imbalance_percent, 0.0);
    let uneven = Balance::of(&[1, 3]).unwrap();
    assert_eq!((uneven.min, uneven.max, uneven.mean), (1, 3, 2.0));
    assert_eq!(uneven.imbalance_percent, 50.0);
}

#[test]
fn uneven_ranks_have_a_row_each() {
    insta::assert_snapshot!(Explanation::of(&Spec::eight().plan()).to_text());
}

#[test]
fn one_rank_needs_no_table() {
    insta::assert_snapshot!(Explanation::of(&Spec::one().plan()).to_text());
}

#[test]
fn bytes_agree_with_the_table_of_collectives() {
    let plan = Spec::eight().plan();
    let it = Explanation::of(&plan);
    let table: u64 = plan
        .collectives
        .iter()
        .flat_map(|collective| collective.bytes.iter().flatten())
        .sum();
    let links: u64 = it.links.iter().map(|link| link.bytes).sum();
    let kinds: u64 = it.traffic.iter().map(|kind| kind.bytes).sum();
    let traffic = || it.ranks.iter().flat_map(|rank| &rank.traffic);
    let sent: u64 = traffic().map(|it| it.sent).sum();
    let received: u64 = traffic().map(|it| it.received).sum();
    assert_eq!([links, kinds, sent, received], [table; 4]);
    let count: usize = it.traffic.iter().map(|kind| kind.count).sum();
    assert_eq!(count, plan.collectives.len());
}

#[test]
fn memory_and_work_are_counted() {
    let plan = Spec::two().plan();
    let it = Explanation::of(&plan);
    let rank = &it.ranks[0];
    assert_eq!((rank.memory.arena, rank.memory.state), (768, 256));
    assert_eq!(rank.memory.weights[0].bytes, 4 * (36 + 6));
    assert_eq!(rank.memory.total, 768 + 256 + 168);
    assert_eq!(rank.call.flops, 2 * 3 * 6 * 6);
    assert_eq!((rank.call.copies, rank.call.exchanges), (1, 2));
    let kernels: Vec<&str> = rank.call.launches.iter().map(|it| &*it.kernel).collect();
    assert_eq!(kernels, ["activate", "gate_add", "linear"]);
    assert_eq!(rank.init.launches[0].kernel, "position_table");
}

#[test]
fn without_cuts_the_tokens_are_those_that_are_joined() {
    let call = KernelCall::Join {
        batch: 2,
        text_rows: 226,
        video_rows: 17_550,
        width: 1,
        text: crate::kernels::x(0),
        video: crate::kernels::x(0),
        positions: None,
        y: crate::kernels::out(0),
    };
    let plan = crate::kernels::plan(vec![call], Vec::new());
    let it = Explanation::of(&plan);
    assert_eq!(it.ranks[0].tokens, Some(tokens(226, 17_550)));
}

#[test]
fn json_comes_back() {
    let it = Explanation::of(&Spec::eight().plan());
    let json = it.to_json().unwrap();
    assert_eq!(serde_json::from_str::<Explanation>(&json).unwrap(), it);
    let lines = steps(&Spec::eight().plan(), Rank(3)).unwrap();
    let json = lines.to_json().unwrap();
    assert_eq!(serde_json::from_str::<RankSteps>(&json).unwrap(), lines);
}

#[test]
fn json_names_every_fact() {
    insta::assert_snapshot!(Explanation::of(&Spec::two().plan()).to_json().unwrap());
}

#[test]
fn dot_draws_ranks_and_bytes() {
    let mut plan = Spec::two().plan();
    plan.header.graph = "a \"quoted\" \\ name\u{1b}".into();
    insta::assert_snapshot!(Explanation::of(&plan).to_dot());
}

#[test]
fn steps_are_one_line_each() {
    insta::assert_snapshot!(steps(&Spec::two().plan(), Rank(1)).unwrap().to_text());
}

#[test]
fn a_rank_that_does_not_exist_is_told() {
    let error = steps(&Spec::two().plan(), Rank(2)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "rank 2 does not exist: the plan has 2 ranks, counted from 0"
    );
}

#[test]
fn control_characters_do_not_reach_a_terminal() {
    let mut plan = Spec::two().plan();
    plan.header.producer = "\u{1b}[31mred".into();
    plan.origins[0] = "line\nbreak".into();
    plan.inputs[0].name = "bell\u{7}".into();
    let text = Explanation::of(&plan).to_text() + &steps(&plan, Rank(0)).unwrap().to_text();
    assert!(text.contains("producer  ?[31mred"), "{text}");
    assert!(text.contains("; line?break\n"), "{text}");
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
}

#[test]
fn many_ranks_stay_readable() {
    let ranks = 64;
    let rows: Vec<usize> = (0..=ranks).map(|r| r * 5 / 2).collect();
    let heads: Vec<usize> = (0..=8).map(|u| u * 6).collect();
    let plan = Spec::cut(mesh(1, 8, 8), &rows, &heads).plan();
    assert_eq!(plan.check(), Ok(()));
    let text = Explanation::of(&plan).to_text();
    let longest = text.lines().map(str::len).max().unwrap();
    assert!(longest <= 120, "{longest}: {text}");
}
