//! Calls of the kernels over frames and over latents.

use crate::calls::{Calls, Maker};
use terrace_kernels::cpu::TimeMode;
use terrace_kernels::cube::*;

impl Maker<'_> {
    pub fn video(&self) -> Vec<Calls> {
        let on = self.device;
        let mut calls = Vec::new();
        for cout in [3, 16, 64, 128] {
            for kernel in [[1, 1, 1], [3, 3, 3]] {
                for full in [false, true] {
                    calls.push(self.conv(cout, kernel, full));
                }
            }
        }
        for cache in [None, Some(self.x(2 * 20 * 8))] {
            let kept = ConvCache {
                batch: 1,
                frames: 3,
                frame: 20 * 8,
                keep: 2,
                cache,
                x: self.x(3 * 20 * 8),
                y: self.x(2 * 20 * 8),
            };
            calls.push(kept.calls(on));
        }
        for time in [TimeMode::Keep, TimeMode::Double] {
            let frames = if time == TimeMode::Keep { 3 } else { 5 };
            let upsample = Upsample {
                batch: 1,
                frames: 3,
                height: 4,
                width: 5,
                channels: 8,
                time,
                x: self.x(3 * 20 * 8),
                y: self.x(frames * 4 * 20 * 8),
            };
            calls.push(upsample.calls(on));
        }
        for spatial in [false, true] {
            calls.extend([Function::Identity, Function::Silu].map(|f| self.group_norm(spatial, f)));
        }
        calls
    }

    /// `full`: with cache, bias and residual.
    fn conv(&self, cout: usize, kernel: [usize; 3], full: bool) -> Calls {
        let (cin, pixels) = (8, 20);
        let shape = ConvWeight { cout, cin, kernel };
        let before = (kernel[0] - 1) * pixels * cin;
        let conv = Conv3d {
            batch: 1,
            frames: 2,
            height: 4,
            width: 5,
            x: self.x(2 * pixels * cin),
            cache: (full && before > 0).then(|| self.x(before)),
            weight: self.of(self.element, shape.elements()?),
            shape,
            bias: full.then(|| self.f(cout)),
            residual: full.then(|| self.x(2 * pixels * cout)),
            y: self.x(2 * pixels * cout),
        };
        conv.calls(self.device)
    }

    fn group_norm(&self, spatial: bool, activation: Function) -> Calls {
        let shape = GroupShape {
            batch: 1,
            grid: [3, 4, 5],
            channels: 8,
            groups: 2,
        };
        let norm = GroupNorm {
            eps: 1e-6,
            weight: Some(self.f(8)),
            bias: Some(self.f(8)),
            spatial: spatial.then(|| Spatial {
                yb: self.x(2 * 6 * 16),
                grid: [2, 2, 3],
            }),
            activation,
            x: self.x(60 * 8),
            scratch: self.f(shape.scratch()?),
            y: self.x(60 * 8),
            shape,
        };
        norm.calls(self.device)
    }

    pub fn sampler(&self) -> Vec<Calls> {
        let on = self.device;
        let f = |len| self.f(len);
        let mut calls = Vec::new();
        for given in [false, true] {
            let denoise = Denoise {
                uncond: given.then(|| f(40)),
                pred: f(40),
                latents: f(40),
                coefficients: f(7),
                y: f(40),
            };
            let advance = Advance {
                latents: f(40),
                x0: f(40),
                previous: given.then(|| f(40)),
                noise: given.then(|| f(40)),
                coefficients: f(7),
                y: f(40),
            };
            calls.extend([denoise.calls(on), advance.calls(on)]);
        }
        let noise = NoiseBox {
            key: self.of(Element::U32, 4),
            extents: &[4, 10],
            out: f(40),
            out_offset: 0,
            out_strides: &[10, 1],
            index_offset: 3,
            index_strides: &[20, 1],
        };
        let copy = CopyBox {
            extents: &[4, 8],
            src: self.x(40),
            src_offset: 0,
            src_strides: &[10, 1],
            dst: self.x(40),
            dst_offset: 0,
            dst_strides: &[8, 1],
        };
        calls.extend([noise.calls(on), copy.calls(on)]);
        calls
    }
}
