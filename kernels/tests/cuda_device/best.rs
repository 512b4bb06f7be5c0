//! What libraries choose against all that they name, by time, at the sizes of a guided 5b step: 49 frames of 480 x 720.
//!
//! Each prints its figures as one JSON object behind the word `measured`. Run them alone:
//! `cargo test --release ... --test cuda_device -- --include-ignored --nocapture --test-threads 1 best::`.

use crate::common::values;
use crate::gpu::{gpu, put};
use std::time::Instant;
use terrace_kernels::cuda::{
    AttentionOperands, AttentionPlan, Blas, CudaFault, DeviceAddress, DeviceMemory, Dnn, Factors,
    Float, HeadStrides, Priority, ProductEpilogue, ProductKind, ProductOperands, Scales, Stream,
    WORKSPACE,
};

/// Rows of both predictions, and tokens of one.
const ROWS: usize = 2 * TOKENS;
const TOKENS: usize = 17776;
const HEADS: usize = 48;
const HEAD_DIM: usize = 64;
/// `k` and `n` of a block's products.
const SIZES: [[usize; 2]; 4] = [[3072, 9216], [3072, 3072], [3072, 12288], [12288, 3072]];
/// Times that each is measured, in turn, and runs of each time.
const ROUNDS: usize = 5;
const RUNS: usize = 4;
/// What the chosen one may take of the shortest time.
const MOST: f64 = 1.0 / 0.95;

/// Memory with as many bytes, which hold noise in bf16 again and again.
fn noise(bytes: usize) -> DeviceMemory {
    let some: Vec<u8> = values(1 << 20, 9)
        .iter()
        .flat_map(|&x| half::bf16::from_f32(x).to_ne_bytes())
        .collect();
    let mut all = some.repeat(bytes.div_ceil(some.len()));
    all.truncate(bytes);
    let mut memory = gpu().allocate("a test", bytes).unwrap();
    memory.fill(&all).unwrap();
    memory
}

/// Median seconds of each; none for what does not run.
fn seconds<T>(
    all: &[T],
    stream: &Stream,
    run: impl Fn(&T) -> Result<(), CudaFault>,
) -> Vec<Option<f64>> {
    let mut times = vec![Vec::new(); all.len()];
    for round in 0..=ROUNDS {
        for (one, times) in all.iter().zip(&mut times) {
            let begun = Instant::now();
            let told = (0..RUNS).try_for_each(|_| run(one));
            let ended = told.and_then(|()| stream.synchronize());
            // The first round warms up.
            if ended.is_ok() && round > 0 {
                times.push(begun.elapsed().as_secs_f64() / RUNS as f64);
            }
        }
    }
    let middle = times.iter_mut().map(|times| {
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied()
    });
    middle.collect()
}

/// Prints the figures and compares the first one, which is chosen, with the best.
fn judge(what: &str, flops: f64, times: &[Option<f64>]) {
    let chosen = times[0].unwrap();
    let best = times.iter().flatten().copied().fold(chosen, f64::min);
    let named = times.len() - 1;
    println!(
        "measured {{\"what\": \"{what}\", \"flops\": {flops}, \"chosen\": {chosen}, \"best\": {best}, \"named\": {named}}}"
    );
    assert!(chosen <= MOST * best, "{what}: {chosen} s against {best} s");
}

fn product(factors: Factors, [k, n]: [usize; 2]) {
    let bytes = match factors {
        Factors::OfResult => 2,
        Factors::F8E4M3 => 1,
    };
    let kind = ProductKind {
        k,
        n,
        factors,
        element: Float::Bf16,
        epilogue: ProductEpilogue::Bias,
    };
    let [x, weight] = [ROWS, n].map(|rows| noise(rows * k * bytes));
    let bias = put(Float::Bf16, &values(n, 3));
    let scales = [ROWS, n].map(|rows| put(Float::F32, &vec![0.01; rows]));
    let y = gpu().allocate("a test", 2 * ROWS * n).unwrap();
    let workspace = gpu().allocate("scratch", WORKSPACE).unwrap();
    let operands = ProductOperands {
        x: x.address(),
        weight: weight.address(),
        bias: bias.address(),
        y: y.address(),
        scales: (factors == Factors::F8E4M3).then(|| Scales {
            x: scales[0].address(),
            weight: scales[1].address(),
        }),
        workspace: workspace.address(),
    };
    let stream = gpu().stream(Priority::Normal).unwrap();
    let blas = Blas::open(gpu()).unwrap();
    let mut all = vec![blas.prepare(kind, ROWS, operands).unwrap()];
    all.extend(blas.prepare_all(kind, ROWS, operands).unwrap());
    // SAFETY: all operands are allocated until the queue has been waited for, and nobody else knows them.
    let times = seconds(&all, &stream, |product| unsafe { product.run(&stream) });
    let what = format!("product {ROWS} x {k} x {n}, {factors:?}");
    judge(&what, 2.0 * (ROWS * k) as f64 * n as f64, &times);
}

#[test]
#[ignore = "needs a GPU of NVIDIA's"]
fn products_in_bf16_take_the_time_of_the_best_algorithm() {
    SIZES
        .into_iter()
        .for_each(|size| product(Factors::OfResult, size));
}

#[test]
#[ignore = "needs a GPU of NVIDIA's"]
fn products_in_fp8_take_the_time_of_the_best_algorithm() {
    SIZES
        .into_iter()
        .for_each(|size| product(Factors::F8E4M3, size));
}

#[test]
#[ignore = "needs a GPU of NVIDIA's"]
fn attention_takes_the_time_of_the_best_implementation() {
    let width = HEADS * HEAD_DIM;
    let rows = |row| HeadStrides {
        batch: TOKENS * row,
        row,
        head: HEAD_DIM,
    };
    let packed = rows(3 * width);
    let key = AttentionPlan {
        element: Float::Bf16,
        batch: 2,
        heads: HEADS,
        q_rows: TOKENS,
        kv_rows: TOKENS,
        head_dim: HEAD_DIM,
        strides: [packed, packed, packed, rows(width)],
        with_lse: false,
    };
    let from = noise(2 * ROWS * 3 * width);
    let y = gpu().allocate("a test", 2 * ROWS * width).unwrap();
    let scratch = gpu().allocate("scratch", 1 << 30).unwrap();
    let part = |part: usize| from.address().plus(2 * part * width);
    let at = AttentionOperands {
        q: part(0),
        k: part(1),
        v: part(2),
        y: y.address(),
        lse: DeviceAddress(0),
    };
    let stream = gpu().stream(Priority::Normal).unwrap();
    let dnn = Dnn::open(&stream).unwrap();
    assert!(dnn.attention_workspace(key).unwrap() <= scratch.bytes());
    let (scale, place) = (0.125, scratch.address());
    let mut all = vec![dnn.attention(key, scale, at, place).unwrap()];
    all.extend(
        dnn.attention_all(key, scale, at, place, scratch.bytes())
            .unwrap(),
    );
    // SAFETY: as above; the scratch is as large as every plan says.
    let times = seconds(&all, &stream, |attention| unsafe { attention.run() });
    let flops = 8.0 * (HEADS * HEAD_DIM) as f64 * (TOKENS as f64).powi(2);
    judge(
        &format!("attention 2 x {TOKENS} x {HEADS} x {HEAD_DIM}"),
        flops,
        &times,
    );
}
