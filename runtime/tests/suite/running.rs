//! Plans that run: copies, kernels, exchanges over uneven parts, carries, lists that run once.

use crate::common::{
    Draft, add, boxed, copy_plan, counting, doubling_plan, gather_plan, options, positions_plan,
    ring_plan, session, through, transpose_plan, whole,
};
use std::sync::Arc;
use terrace_plan::{DType, Region};
use terrace_runtime::{
    Checkpoint, Cpu, HostTensor, MemoryUse, RankMemory, Session, SessionOptions, WeightCache,
};

#[test]
fn a_copy_keeps_every_element() {
    let mut session = session(copy_plan()).unwrap();
    assert_eq!(
        through(&mut session, &counting(&[2, 2])),
        [0.0, 1.0, 2.0, 3.0]
    );
    assert_eq!(session.get("y").unwrap().shape(), [4]);
    assert_eq!(session.plan().header.graph, "copy");
}

#[test]
fn integers_pass_through_unchanged() {
    let mut d = Draft::new("ids", 1);
    d.input("ids", DType::U32, &[3]);
    d.output("same", DType::U32, &[3]);
    let x = d.buffer(0, Region::State, DType::U32, 3);
    d.bind_input(0, x, whole(3));
    d.bind_output(0, x, whole(3));
    let mut session = session(d.plan()).unwrap();
    let ids = HostTensor::u32([3], vec![7, 0, u32::MAX]).unwrap();
    session.set("ids", &ids).unwrap();
    session.run().unwrap();
    assert_eq!(session.get("same").unwrap(), ids);
}

#[test]
fn uneven_parts_are_gathered_on_every_rank() {
    for parts in [&[5][..], &[2, 3], &[1, 0, 4], &[3, 1, 0, 2], &[0, 0, 2, 0]] {
        let total: usize = parts.iter().sum();
        let mut session = session(gather_plan(parts)).unwrap();
        let x = counting(&[total]);
        let doubled: Vec<f32> = (0..total).map(|i| 2.0 * i as f32).collect();
        for _ in 0..3 {
            let y = through(&mut session, &x);
            assert_eq!(y, doubled.repeat(parts.len()), "{parts:?}");
        }
    }
}

#[test]
fn uneven_rows_become_uneven_columns() {
    let cuts: [(&[usize], &[usize]); 4] = [
        (&[0, 7], &[0, 5]),
        (&[0, 2, 7], &[0, 4, 5]),
        (&[0, 3, 4, 7], &[0, 2, 2, 5]),
        (&[0, 0, 3, 6, 7], &[0, 1, 3, 4, 5]),
    ];
    for (rows, columns) in cuts {
        let x = counting(&[7, 5]);
        let mut session = session(transpose_plan(rows, columns)).unwrap();
        assert_eq!(
            through(&mut session, &x),
            x.as_f32().unwrap(),
            "{rows:?} {columns:?}"
        );
    }
}

#[test]
fn blocks_travel_round_the_ring() {
    for ranks in 2..=4 {
        let mut session = session(ring_plan(ranks, 3)).unwrap();
        let x = counting(&[ranks, 3]);
        let sum = |column: usize| (0..ranks).map(|r| (3 * r + column) as f32).sum::<f32>();
        let row = [sum(0), sum(1), sum(2)];
        for _ in 0..2 {
            assert_eq!(through(&mut session, &x), row.repeat(ranks));
        }
    }
}

#[test]
fn outputs_are_carried_into_inputs() {
    let mut session = session(doubling_plan(2)).unwrap();
    let x = HostTensor::f32([2], vec![1.0, 3.0]).unwrap();
    assert_eq!(through(&mut session, &x), [2.0, 6.0]);
    session.run().unwrap();
    session.run().unwrap();
    assert_eq!(session.get("y").unwrap().as_f32().unwrap(), [8.0, 24.0]);
    // A value set anew wins over the carried one.
    assert_eq!(through(&mut session, &x), [2.0, 6.0]);
}

#[test]
fn the_first_list_runs_once_and_inputs_keep_their_values() {
    for region in [Region::State, Region::Arena] {
        let mut session = session(positions_plan(region)).unwrap();
        let x = HostTensor::f32([2, 2], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        session.set("x", &x).unwrap();
        for _ in 0..3 {
            session.run().unwrap();
            let y = session.get("y").unwrap();
            assert_eq!(y.as_f32().unwrap(), [1.0, 3.0, 3.0, 5.0], "{region:?}");
        }
    }
}

#[test]
fn strided_ports_are_cut_and_put_together() {
    // Each of two ranks holds every second column.
    let mut d = Draft::new("columns", 2);
    d.input("x", DType::F32, &[3, 4]);
    d.output("y", DType::F32, &[4, 3]);
    for rank in 0..2 {
        let (x, y) = (d.state(rank, 6), d.state(rank, 6));
        d.bind_input(rank, x, boxed(&[3, 2], (rank, &[4, 2]), (0, &[2, 1])));
        d.bind_output(rank, y, boxed(&[3, 2], (0, &[2, 1]), (3 * rank, &[1, 6])));
        d.step(rank, "add", add(6, x, x, y));
    }
    let mut session = session(d.plan()).unwrap();
    let y = through(&mut session, &counting(&[3, 4]));
    let transposed = [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11].map(|i| 2.0 * i as f32);
    assert_eq!(y, transposed);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let (rows, x) = ([0, 1200, 2000], counting(&[2000, 300]));
    let plan = Arc::new(transpose_plan(&rows, &[0, 100, 300]));
    for threads in [0, 1, 3] {
        let mut session = Session::new(
            Arc::new(Cpu),
            Arc::clone(&plan),
            &Checkpoint::empty(),
            &WeightCache::new(),
            SessionOptions {
                threads,
                ..options()
            },
        )
        .unwrap();
        assert_eq!(through(&mut session, &x), x.as_f32().unwrap());
    }
}

#[test]
fn memory_is_known_by_rank() {
    let session = session(gather_plan(&[2, 30])).unwrap();
    let expected = [(128 + 64, 64 + 128), (128 + 128, 128 + 128)];
    let ranks = expected.map(|(arena, state)| RankMemory { arena, state });
    let ranks = ranks.to_vec();
    assert_eq!(session.memory(), MemoryUse { ranks, weights: 0 });
}

#[test]
fn sessions_of_one_plan_run_beside_each_other() {
    std::thread::scope(|scope| {
        for offset in 0..3 {
            scope.spawn(move || {
                let mut session = session(gather_plan(&[1, 2])).unwrap();
                let x: Vec<f32> = (0..3).map(|i| (i + offset) as f32).collect();
                let y: Vec<f32> = x.iter().map(|x| 2.0 * x).collect();
                for _ in 0..20 {
                    let x = HostTensor::f32([3], x.clone()).unwrap();
                    assert_eq!(through(&mut session, &x), y.repeat(2));
                }
            });
        }
    });
}
