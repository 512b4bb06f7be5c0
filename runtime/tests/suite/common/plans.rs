//! Small plans, each a whole program that a reader can follow.

use super::draft::{Draft, boxed, run_box, slot, whole};
use terrace_plan::{
    Action, BoxCopy, BufferId, CollectiveKind, DType, Epilogue, GridAxis, KernelCall, Operand,
    Pattern, Plan, PositionColumns, PositionKind, Rank, Region, StridedBox, Transfer, Weight,
    WeightLayout, WeightSource,
};

/// `y = residual + x` over `len` elements.
pub fn add(len: usize, residual: BufferId, x: BufferId, y: BufferId) -> Action {
    Action::Launch(KernelCall::GateAdd {
        rows: len,
        width: 1,
        gate: None,
        residual: slot(residual),
        x: slot(x),
        y: slot(y),
    })
}

/// One rank: `y = copy of x`, four elements.
pub fn copy_plan() -> Plan {
    let mut d = Draft::new("copy", 1);
    d.input("x", DType::F32, &[2, 2]);
    d.output("y", DType::F32, &[4]);
    let (x, y) = (d.state(0, 4), d.state(0, 4));
    d.bind_input(0, x, whole(4));
    d.bind_output(0, y, whole(4));
    d.step(
        0,
        "take",
        Action::Copy {
            src: x,
            dst: y,
            boxes: whole(4),
        },
    );
    d.plan()
}

/// One rank: `y = x + x`, carried into `x`.
pub fn doubling_plan(len: usize) -> Plan {
    let mut d = Draft::new("double", 1);
    d.input("x", DType::F32, &[len]);
    d.output("y", DType::F32, &[len]);
    d.carry(0, 0);
    let (x, y) = (d.state(0, len), d.state(0, len));
    d.bind_input(0, x, whole(len));
    d.bind_output(0, y, whole(len));
    d.step(0, "add", add(len, x, x, y));
    d.plan()
}

/// One rank: `y[2, n] = x[2, k] W^T + bias`, with the weight and bias as given.
pub fn linear_plan(n: usize, k: usize, weight: Weight, bias: Option<Weight>) -> Plan {
    let mut d = Draft::new("linear", 1);
    d.input("x", DType::F32, &[2, k]);
    d.output("y", DType::F32, &[2, n]);
    let weight = d.weight(weight);
    let bias = bias.map(|bias| d.weight(bias));
    let (x, y) = (d.state(0, 2 * k), d.state(0, 2 * n));
    d.bind_input(0, x, whole(2 * k));
    d.bind_output(0, y, whole(2 * n));
    d.step(
        0,
        "proj_out",
        Action::Launch(KernelCall::Linear {
            rows: 2,
            k,
            n,
            x: slot(x),
            weight,
            bias,
            epilogue: Epilogue::None,
            y: slot(y),
        }),
    );
    d.plan()
}

/// One rank: `y = x + table`, where `table` is the weight `positions` of `rows` rows of `width`.
pub fn table_plan(rows: usize, width: usize, table: Weight) -> Plan {
    let mut d = Draft::new("table", 1);
    d.input("x", DType::F32, &[rows, width]);
    d.output("y", DType::F32, &[rows, width]);
    let table = d.weight(table);
    let len = rows * width;
    let (x, y, none) = (d.state(0, len), d.state(0, len), d.state(0, 0));
    d.bind_input(0, x, whole(len));
    d.bind_output(0, y, whole(len));
    d.step(
        0,
        "pos_embed",
        Action::Launch(KernelCall::Join {
            batch: 1,
            text_rows: 0,
            video_rows: rows,
            width,
            text: slot(none),
            video: slot(x),
            positions: Some(Operand::Weight(table)),
            y: slot(y),
        }),
    );
    d.plan()
}

/// A weight of one stored tensor.
pub fn weight(name: &str, shape: &[usize], layout: WeightLayout) -> Weight {
    Weight {
        sources: vec![source(name, shape)],
        dtype: DType::F32,
        shape: shape.to_vec(),
        layout,
        boxes: Vec::new(),
        len: shape.iter().product(),
    }
}

/// A stored tensor without other names.
pub fn source(name: &str, shape: &[usize]) -> WeightSource {
    WeightSource {
        name: name.to_owned(),
        aliases: Vec::new(),
        shape: shape.to_vec(),
    }
}

/// Rank `r` holds `parts[r]` elements of `x`, doubles them and gathers all; `y[r]` is what rank `r`
/// then has. Every rank runs: `0` double, `1` begin, `2` wait, `3` copy to the output.
pub fn gather_plan(parts: &[usize]) -> Plan {
    let (ranks, total) = (parts.len(), parts.iter().sum::<usize>());
    let offsets: Vec<usize> = (0..ranks).map(|r| parts[..r].iter().sum()).collect();
    let mut d = Draft::new("gather", ranks);
    d.input("x", DType::F32, &[total]);
    d.output("y", DType::F32, &[ranks, total]);
    let bytes = |from: usize, to: usize| {
        if from == to {
            0
        } else {
            4 * parts[from] as u64
        }
    };
    let matrix = (0..ranks).map(|from| (0..ranks).map(|to| bytes(from, to)).collect());
    let gather = d.collective(CollectiveKind::AllGather, matrix.collect());
    for rank in 0..ranks {
        let (mine, at) = (parts[rank], offsets[rank]);
        let (x, y) = (d.state(rank, mine), d.state(rank, total));
        let (double, all) = (d.arena(rank, mine), d.arena(rank, total));
        d.bind_input(rank, x, run_box(mine, at, 0));
        d.bind_output(rank, y, run_box(total, 0, rank * total));
        let others = || (0..ranks).filter(move |&peer| peer != rank);
        let sends = others()
            .filter(|_| mine > 0)
            .map(|peer| line(peer, mine, 0));
        let receives = others()
            .filter(|&peer| parts[peer] > 0)
            .map(|peer| line(peer, parts[peer], offsets[peer]));
        let pattern = Pattern {
            local: run_box(mine, 0, at),
            sends: sends.collect(),
            receives: receives.collect(),
        };
        let pattern = d.pattern(rank, pattern);
        d.step(rank, "ff", add(mine, x, x, double));
        let exchange = Action::Exchange {
            collective: gather,
            pattern,
            src: double,
            dst: all,
        };
        d.step(rank, "attn1", exchange);
        let wait = Action::Wait { collective: gather };
        d.step(rank, "attn1", wait);
        let copy = Action::Copy {
            src: all,
            dst: y,
            boxes: whole(total),
        };
        d.step(rank, "norm_out", copy);
    }
    d.plan()
}

/// Rows of `x[rows, columns]` are cut by `rows` offsets; an all-to-all cuts columns by `columns`
/// offsets instead. `y` is `x` again, delivered in column slabs.
pub fn transpose_plan(rows: &[usize], columns: &[usize]) -> Plan {
    let ranks = rows.len() - 1;
    let (height, width) = (rows[ranks], columns[ranks]);
    let (tall, wide) = (
        |r: usize| rows[r + 1] - rows[r],
        |r: usize| columns[r + 1] - columns[r],
    );
    let mut d = Draft::new("transpose", ranks);
    d.input("x", DType::F32, &[height, width]);
    d.output("y", DType::F32, &[height, width]);
    let bytes = |a: usize, b: usize| {
        if a == b {
            0
        } else {
            (4 * tall(a) * wide(b)) as u64
        }
    };
    let matrix = (0..ranks).map(|a| (0..ranks).map(|b| bytes(a, b)).collect());
    let swap = d.collective(CollectiveKind::AllToAll, matrix.collect());
    for rank in 0..ranks {
        let (x, y) = (
            d.state(rank, tall(rank) * width),
            d.state(rank, height * wide(rank)),
        );
        d.bind_input(rank, x, run_box(tall(rank) * width, rows[rank] * width, 0));
        let slab = boxed(
            &[height, wide(rank)],
            (0, &[wide(rank), 1]),
            (columns[rank], &[width, 1]),
        );
        d.bind_output(rank, y, slab);
        let sent = |peer: usize| StridedBox {
            extents: vec![tall(rank), wide(peer)],
            offset: columns[peer],
            strides: vec![width, 1],
        };
        let received = |peer: usize| StridedBox {
            extents: vec![tall(peer), wide(rank)],
            offset: rows[peer] * wide(rank),
            strides: vec![wide(rank), 1],
        };
        let pattern = Pattern {
            local: both(&sent(rank), &received(rank)),
            sends: transfers(ranks, rank, sent),
            receives: transfers(ranks, rank, received),
        };
        let pattern = d.pattern(rank, pattern);
        let exchange = Action::Exchange {
            collective: swap,
            pattern,
            src: x,
            dst: y,
        };
        d.step(rank, "to_heads", exchange);
        d.step(rank, "to_heads", Action::Wait { collective: swap });
    }
    d.plan()
}

/// Each of two ranks or more holds `len` elements and adds the blocks of all ranks, which travel round the ring while
/// the block before is added: two blocks in turn, so that one is read while the other arrives.
pub fn ring_plan(ranks: usize, len: usize) -> Plan {
    let mut d = Draft::new("ring", ranks);
    d.input("x", DType::F32, &[ranks, len]);
    d.output("y", DType::F32, &[ranks, len]);
    let bytes = |a: usize, b: usize| {
        if b == (a + 1) % ranks {
            4 * len as u64
        } else {
            0
        }
    };
    let matrix: Vec<Vec<u64>> = (0..ranks)
        .map(|a| (0..ranks).map(|b| bytes(a, b)).collect())
        .collect();
    let shifts: Vec<_> = (1..ranks)
        .map(|_| d.collective(CollectiveKind::RingShift, matrix.clone()))
        .collect();
    for rank in 0..ranks {
        let (x, y) = (d.state(rank, len), d.state(rank, len));
        let blocks = [d.arena(rank, len), d.arena(rank, len)];
        d.bind_input(rank, x, run_box(len, rank * len, 0));
        d.bind_output(rank, y, run_box(len, 0, rank * len));
        let pattern = Pattern {
            local: Vec::new(),
            sends: vec![line((rank + 1) % ranks, len, 0)],
            receives: vec![line((rank + ranks - 1) % ranks, len, 0)],
        };
        let pattern = d.pattern(rank, pattern);
        for dst in [blocks[0], y] {
            let boxes = whole(len);
            d.step(rank, "begin", Action::Copy { src: x, dst, boxes });
        }
        for (turn, &shift) in shifts.iter().enumerate() {
            let (src, dst) = (blocks[turn % 2], blocks[(turn + 1) % 2]);
            let exchange = Action::Exchange {
                collective: shift,
                pattern,
                src,
                dst,
            };
            d.step(rank, "shift", exchange);
            if turn > 0 {
                d.step(rank, "merge", add(len, y, src, y));
            }
            d.step(rank, "shift", Action::Wait { collective: shift });
        }
        let last = blocks[(ranks - 1) % 2];
        d.step(rank, "merge", add(len, y, last, y));
    }
    d.plan()
}

/// `y = x + table`, where the list that runs once computes the table. The input lies in `region`; in
/// the arena it shares its buffer with the scratch of the first list, and is overwritten by the second.
pub fn positions_plan(region: Region) -> Plan {
    let mut d = Draft::new("positions", 1);
    d.input("x", DType::F32, &[2, 2]);
    d.output("y", DType::F32, &[2, 2]);
    let scratch = d.arena(0, 4);
    let x = match region {
        Region::Arena => scratch,
        Region::State => d.state(0, 4),
    };
    let (table, y) = (d.state(0, 4), d.state(0, 4));
    d.bind_input(0, x, whole(4));
    d.bind_output(0, y, whole(4));
    let columns = vec![PositionColumns {
        axis: GridAxis::W,
        dim: 2,
        start: 0.0,
        step: 0.0,
    }];
    let call = KernelCall::PositionTable {
        kind: PositionKind::SinCos,
        columns,
        zero_rows: 0,
        t: 1,
        grid_w: 2,
        first_cell: 0,
        cells: 2,
        y: slot(scratch),
    };
    d.init(0, "pos_embed", Action::Launch(call));
    let copy = Action::Copy {
        src: scratch,
        dst: table,
        boxes: whole(4),
    };
    d.init(0, "pos_embed", copy);
    d.step(0, "join", add(4, x, table, y));
    if region == Region::Arena {
        d.step(0, "join", add(4, x, table, x));
    }
    d.plan()
}

fn line(peer: usize, len: usize, offset: usize) -> Transfer {
    Transfer {
        peer: Rank(peer),
        boxes: vec![StridedBox {
            extents: vec![len],
            offset,
            strides: vec![1],
        }],
    }
}

fn both(src: &StridedBox, dst: &StridedBox) -> Vec<BoxCopy> {
    boxed(
        &src.extents,
        (src.offset, &src.strides),
        (dst.offset, &dst.strides),
    )
}

/// The transfers with all peers between which something moves.
fn transfers(ranks: usize, rank: usize, region: impl Fn(usize) -> StridedBox) -> Vec<Transfer> {
    (0..ranks)
        .filter(|&peer| peer != rank && !region(peer).extents.contains(&0))
        .map(|peer| Transfer {
            peer: Rank(peer),
            boxes: vec![region(peer)],
        })
        .collect()
}
