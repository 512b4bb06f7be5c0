//! Convolution by cuDNN: causal in time, centred in height and width, with bias and residual.

use crate::common::values;
use crate::gpu::{close, get, gpu, poison, put, rounded};
use terrace_kernels::cuda::{ConvOperands, ConvPlan, DeviceAddress, Dnn, Float, Priority};

/// `x [batch, t + kt - 1, h, w, cin]`, `weight [cout, kt, kh, kw, cin]`, bias and residual.
fn expected(key: &ConvPlan, [x, weight, bias, residual]: &[Vec<f32>; 4]) -> Vec<f32> {
    let ([t, h, w], [kt, kh, kw]) = (key.grid, key.kernel);
    let (cin, cout) = (key.cin, key.cout);
    let mut y = Vec::new();
    for (b, frame, row) in cells([key.batch, t, h]) {
        for (column, to, _) in cells([w, cout, 1]) {
            let mut sum = 0.0f64;
            for (dt, dh, dw) in cells([kt, kh, kw]) {
                let (i, j) = (row + dh, column + dw);
                if i < kh / 2 || j < kw / 2 || i - kh / 2 >= h || j - kw / 2 >= w {
                    continue;
                }
                let pixel = ((b * (t + kt - 1) + frame + dt) * h + i - kh / 2) * w + j - kw / 2;
                let tap = ((to * kt + dt) * kh + dh) * kw + dw;
                for channel in 0..cin {
                    let (a, b) = (x[pixel * cin + channel], weight[tap * cin + channel]);
                    sum += f64::from(a) * f64::from(b);
                }
            }
            let at = y.len();
            if key.with_bias {
                sum += f64::from(bias[to]);
            }
            if key.with_residual {
                sum += f64::from(residual[at]);
            }
            y.push(sum as f32);
        }
    }
    y
}

fn cells([a, b, c]: [usize; 3]) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..a).flat_map(move |i| (0..b).flat_map(move |j| (0..c).map(move |k| (i, j, k))))
}

fn run(key: ConvPlan, from: &[Vec<f32>; 4]) -> Vec<f32> {
    let element = key.element;
    let [x, weight, bias, residual] = from.each_ref().map(|values| put(element, values));
    let len = key.batch * key.grid.iter().product::<usize>() * key.cout;
    let y = poison(element, len);
    let stream = gpu().stream(Priority::Normal).unwrap();
    let dnn = Dnn::open(&stream).unwrap();
    let bytes = dnn.conv_workspace(key).unwrap();
    let workspace = gpu().allocate("scratch", bytes).unwrap();
    let at = ConvOperands {
        x: x.address(),
        weight: weight.address(),
        bias: match key.with_bias {
            true => bias.address(),
            false => DeviceAddress(0),
        },
        residual: match key.with_residual {
            true => residual.address(),
            false => DeviceAddress(0),
        },
        y: y.address(),
    };
    let conv = dnn.conv(key, at, workspace.address()).unwrap();
    // SAFETY: all operands are allocated until the queue has been waited for, and nobody else knows them.
    unsafe { conv.run() }.unwrap();
    stream.synchronize().unwrap();
    get(element, &y)
}

#[test]
#[ignore = "needs a GPU of NVIDIA's"]
fn convolutions_are_those_of_the_host() {
    for element in [Float::F16, Float::Bf16] {
        for (grid, [cin, cout], kernel) in [
            ([1, 8, 8], [16, 16], [1, 3, 3]),
            ([3, 9, 14], [16, 32], [3, 3, 3]),
            ([2, 5, 7], [24, 8], [1, 1, 1]),
        ] {
            for (with_bias, with_residual) in
                [(false, false), (true, false), (false, true), (true, true)]
            {
                let key = ConvPlan {
                    element,
                    batch: 2,
                    grid,
                    cin,
                    cout,
                    kernel,
                    with_bias,
                    with_residual,
                };
                let from = operands(&key);
                let what = format!("convolution {grid:?}, {cin} to {cout}, {kernel:?}");
                close(element, &what, &run(key, &from), &expected(&key, &from));
            }
        }
    }
}

fn operands(key: &ConvPlan) -> [Vec<f32>; 4] {
    let ([t, h, w], taps) = (key.grid, key.kernel.iter().product::<usize>());
    let frames = t + key.kernel[0] - 1;
    let some = |len, seed, by: f32| {
        let values: Vec<f32> = values(len, seed).iter().map(|x| x * by).collect();
        rounded(key.element, &values)
    };
    [
        some(key.batch * frames * h * w * key.cin, 5, 1.0),
        some(key.cout * taps * key.cin, 6, 0.1),
        some(key.cout, 7, 1.0),
        some(key.batch * t * h * w * key.cout, 8, 1.0),
    ]
}
