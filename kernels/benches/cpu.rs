//! The kernels of a step and of a decode at the sizes of CogVideoX, on every instruction set of the machine:
//! `cargo bench -p terrace-kernels`, or with a name, `cargo bench -p terrace-kernels -- linear`.
//!
//! Divan prints operations, a multiply-add counting two, or bytes read and written, per second. What a
//! whole model part takes, and which share of the machine's peak, is what `terrace bench` tells.

#![allow(clippy::unwrap_used)]

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use terrace_kernels::ModSegment;
use terrace_kernels::cpu::{
    Attention, AttentionProducts, Conv3d, GroupActivation, GroupNorm, HeadsView, HeadsViewMut,
    Input, InstructionSet, Linear, LinearEpilogue, Mods, Norm, NormModulate, PackedConv3d,
    PackedLinear,
};

/// Rows of the joint sequence of one latent frame.
const ROWS: usize = 226 + 1350;
/// Width of the 2b transformer.
const WIDTH: usize = 1920;

fn main() {
    divan::main();
}

/// Numbers between -1 and 1 without a pattern.
fn numbers(len: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn sets() -> impl Iterator<Item = InstructionSet> {
    InstructionSet::available()
}

type Pack = fn(usize, usize, &[f32]) -> PackedLinear;

/// How the weights of a product are packed.
const PACKINGS: [(&str, Pack); 4] = [
    ("f32", |n, k, w| PackedLinear::pack(n, k, w).unwrap()),
    ("bf16", |n, k, w| PackedLinear::pack_bf16(n, k, w).unwrap()),
    ("int8", |n, k, w| PackedLinear::pack_i8(n, k, w).unwrap()),
    ("fp8", |n, k, w| PackedLinear::pack_f8e4m3(n, k, w).unwrap()),
];

#[divan::bench(args = combinations(), sample_count = 10)]
fn linear(bencher: Bencher<'_, '_>, case: &Case) {
    let (n, k) = (4 * WIDTH, WIDTH);
    let (_, pack) = PACKINGS[case.packing];
    let (weight, x) = (pack(n, k, &numbers(n * k)), numbers(ROWS * k));
    let mut y = vec![0.0; ROWS * n];
    bencher
        .counter(ItemsCount::new(2 * ROWS * n * k))
        .bench_local(|| {
            let product = Linear {
                rows: ROWS,
                x: &x,
                weight: &weight,
                bias: None,
                epilogue: LinearEpilogue::GeluTanh,
                y: &mut y,
            };
            product.run_with(case.set).unwrap();
        });
}

/// A packing on an instruction set.
struct Case {
    packing: usize,
    set: InstructionSet,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", PACKINGS[self.packing].0, self.set.name())
    }
}

fn combinations() -> Vec<Case> {
    let of = |set| (0..PACKINGS.len()).map(move |packing| Case { packing, set });
    sets().flat_map(of).collect()
}

#[divan::bench(args = rounded(), sample_count = 10)]
fn attention(bencher: Bencher<'_, '_>, case: &Rounded) {
    let (heads, head_dim) = (30, 64);
    let qkv = numbers(ROWS * 3 * WIDTH);
    let part = |part: usize| HeadsView {
        data: &qkv[part * WIDTH..],
        batch_stride: 0,
        row_stride: 3 * WIDTH,
        head_stride: head_dim,
    };
    let mut y = vec![0.0; ROWS * WIDTH];
    bencher
        .counter(ItemsCount::new(4 * heads * ROWS * ROWS * head_dim))
        .bench_local(|| {
            let attention = Attention {
                batch: 1,
                heads,
                q_rows: ROWS,
                kv_rows: ROWS,
                head_dim,
                scale: 0.125,
                products: case.products,
                q: part(0),
                k: part(1),
                v: part(2),
                bias: None,
                y: HeadsViewMut {
                    data: &mut y,
                    batch_stride: 0,
                    row_stride: WIDTH,
                    head_stride: head_dim,
                },
            };
            attention.run_with(case.set).unwrap();
        });
}

/// What attention multiplies on an instruction set.
struct Rounded {
    products: AttentionProducts,
    set: InstructionSet,
}

impl std::fmt::Display for Rounded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let products = match self.products {
            AttentionProducts::F32 => "f32",
            AttentionProducts::Bf16 => "bf16",
        };
        write!(f, "{products} {}", self.set.name())
    }
}

fn rounded() -> Vec<Rounded> {
    let all = [AttentionProducts::F32, AttentionProducts::Bf16];
    let of = |set| all.map(|products| Rounded { products, set });
    sets().flat_map(of).collect()
}

#[divan::bench(args = sets().map(InstructionSet::name), sample_count = 10)]
fn conv3d(bencher: Bencher<'_, '_>, set: &str) {
    let set = sets().find(|it| it.name() == set).unwrap();
    let ([frames, height, width], channels) = ([2, 60, 88], 256);
    let (pixels, taps) = (frames * height * width, 27 * channels * channels);
    let weight = PackedConv3d::pack(channels, channels, [3, 3, 3], &numbers(taps)).unwrap();
    let x = numbers(pixels * channels);
    let mut y = vec![0.0; pixels * channels];
    bencher
        .counter(ItemsCount::new(2 * pixels * taps))
        .bench_local(|| {
            let convolution = Conv3d {
                batch: 1,
                frames,
                height,
                width,
                x: &x,
                cache: None,
                weight: &weight,
                bias: None,
                residual: None,
                y: &mut y,
            };
            convolution.run_with(set).unwrap();
        });
}

#[divan::bench]
fn norm_modulate(bencher: Bencher<'_, '_>) {
    let (x, mods) = (numbers(ROWS * WIDTH), numbers(4 * WIDTH));
    let segment = |rows, at| ModSegment {
        rows,
        shift: at,
        scale: at + WIDTH,
    };
    let segments = [segment(226, 0), segment(1350, 2 * WIDTH)];
    let mut y = vec![0.0; ROWS * WIDTH];
    bencher
        .counter(BytesCount::new(8 * ROWS * WIDTH))
        .bench_local(|| {
            let norm = NormModulate {
                batch: 1,
                width: WIDTH,
                segments: &segments,
                norm: Norm::Layer {
                    eps: 1e-5,
                    weight: None,
                    bias: None,
                },
                mods: Some(Mods {
                    data: &mods,
                    stride: 4 * WIDTH,
                }),
                x: Input::Apart(&x),
                y: &mut y,
            };
            norm.run().unwrap();
        });
}

#[divan::bench]
fn group_norm(bencher: Bencher<'_, '_>) {
    let ([frames, height, width], channels) = ([4, 60, 88], 256);
    let len = frames * height * width * channels;
    let (x, vector) = (numbers(len), numbers(channels));
    let mut y = vec![0.0; len];
    bencher.counter(BytesCount::new(8 * len)).bench_local(|| {
        let norm = GroupNorm {
            batch: 1,
            frames,
            height,
            width,
            channels,
            groups: 32,
            eps: 1e-6,
            weight: &vector,
            bias: &vector,
            spatial: None,
            activation: GroupActivation::Silu,
            x: Input::Apart(&x),
            y: &mut y,
        };
        norm.run().unwrap();
    });
}
