//! Group norm, its modulation and its activation.

use terrace_kernels::cpu;
use terrace_kernels::cube::*;

use crate::arena::{Arena, FLOATS, close, rounded};
use crate::common::{bits, values};

/// How the inputs of a group norm are made.
#[derive(Clone, Copy)]
struct Case {
    shape: GroupShape,
    latent: Option<[usize; 3]>,
    silu: bool,
    affine: bool,
    /// Added to all inputs.
    mean: f32,
}

impl Case {
    fn new(batch: usize, grid: [usize; 3], channels: usize, groups: usize) -> Self {
        let shape = GroupShape {
            batch,
            grid,
            channels,
            groups,
        };
        Self {
            shape,
            latent: None,
            silu: false,
            affine: true,
            mean: 0.0,
        }
    }

    fn modulated(mut self, latent: [usize; 3]) -> Self {
        self.latent = Some(latent);
        self.silu = true;
        self
    }

    fn x(&self) -> Vec<f32> {
        let pixels: usize = self.shape.grid.iter().product();
        let x = values(self.shape.batch * pixels * self.shape.channels, 1);
        x.iter().map(|v| v + self.mean).collect()
    }

    fn yb(&self) -> Option<Vec<f32>> {
        let pixels: usize = self.latent?.iter().product();
        Some(values(
            self.shape.batch * pixels * 2 * self.shape.channels,
            2,
        ))
    }

    fn affine(&self) -> Option<[Vec<f32>; 2]> {
        self.affine
            .then(|| [3, 4].map(|salt| values(self.shape.channels, salt)))
    }

    fn on_device(&self, element: Element, x: &[f32], skew: usize, in_place: bool) -> Vec<f32> {
        let mut arena = Arena::new(skew);
        let from = arena.put(element, x);
        let yb = self.yb().map(|v| arena.put(element, &v));
        let affine = self
            .affine()
            .map(|both| both.map(|v| arena.put(Element::F32, &v)));
        let scratch = arena.poison(Element::F32, self.shape.scratch().unwrap());
        let to = if in_place {
            from
        } else {
            arena.poison(element, x.len())
        };
        let on = arena.upload();
        let call = GroupNorm {
            shape: self.shape,
            eps: 1e-6,
            weight: affine.map(|[weight, _]| on.at(weight)),
            bias: affine.map(|[_, bias]| on.at(bias)),
            spatial: yb.zip(self.latent).map(|(yb, grid)| Spatial {
                yb: on.at(yb),
                grid,
            }),
            activation: if self.silu {
                Function::Silu
            } else {
                Function::Identity
            },
            x: on.at(from),
            scratch: on.at(scratch),
            y: on.at(to),
        };
        on.run_with(call.calls(on.device()), Some(scratch), to)
    }

    fn on_cpu(&self, element: Element, x: &[f32]) -> Vec<f32> {
        let GroupShape {
            batch,
            grid: [frames, height, width],
            channels,
            groups,
        } = self.shape;
        let yb = self.yb().map(|v| rounded(element, &v));
        let none = [vec![1.0; channels], vec![0.0; channels]];
        let [weight, bias] = self.affine().unwrap_or(none);
        let mut y = vec![0.0; x.len()];
        let spatial = yb.as_deref().zip(self.latent);
        cpu::GroupNorm {
            batch,
            frames,
            height,
            width,
            channels,
            groups,
            eps: 1e-6,
            weight: &weight,
            bias: &bias,
            spatial: spatial.map(|(yb, [frames, height, width])| cpu::Spatial {
                yb,
                frames,
                height,
                width,
            }),
            activation: if self.silu {
                cpu::GroupActivation::Silu
            } else {
                cpu::GroupActivation::Identity
            },
            x: cpu::Input::Apart(&rounded(element, x)),
            y: &mut y,
        }
        .run()
        .unwrap();
        y
    }
}

#[test]
fn group_norms_match_those_of_the_cpu() {
    let plain = |batch, grid, channels, groups| Case::new(batch, grid, channels, groups);
    let bare = Case {
        affine: false,
        ..plain(1, [1, 4, 6], 8, 2)
    };
    let distant = Case {
        mean: 40.0,
        ..plain(1, [2, 31, 17], 12, 3)
    };
    let cases = [
        bare,
        distant,
        plain(1, [1, 1, 1], 8, 2),
        plain(2, [3, 17, 19], 12, 4),
        plain(1, [5, 70, 60], 6, 6),
        plain(1, [1, 9, 8], 128, 32),
        plain(2, [1, 3, 5], 1300, 1),
        plain(1, [1, 3, 5], 516, 172),
        plain(1, [2, 4, 4], 32, 4).modulated([2, 2, 2]),
        plain(2, [5, 8, 12], 8, 2).modulated([3, 4, 3]),
        plain(1, [3, 7, 10], 6, 2).modulated([2, 3, 4]),
        plain(1, [1, 5, 6], 8, 8).modulated([1, 5, 2]),
        plain(1, [4, 6, 6], 16, 4).modulated([3, 6, 5]),
    ];
    for case in cases {
        let x = case.x();
        for element in FLOATS {
            if element != Element::F32 && case.mean > 0.0 {
                continue;
            }
            let (found, expected) = (
                case.on_device(element, &x, 0, false),
                case.on_cpu(element, &x),
            );
            // A mean of 40 is taken off as one f32 product and sum per element.
            close(
                element,
                &found,
                &expected,
                if case.mean > 0.0 { 6e-5 } else { 1e-5 },
            );
        }
    }
}

/// Neither the batch, the place of the operands nor the place of the result changes a bit.
#[test]
fn group_norm_of_a_batch_item_stands_alone() {
    for (grid, channels, latent) in [([3, 31, 33], 8, [2, 8, 9]), ([2, 9, 40], 10, [2, 9, 40])] {
        let case = Case::new(2, grid, channels, 2).modulated(latent);
        let x = case.x();
        let both = bits(&case.on_device(Element::F32, &x, 0, false));
        assert_eq!(bits(&case.on_device(Element::F32, &x, 0, true)), both);
        assert_eq!(bits(&case.on_device(Element::F32, &x, 3, false)), both);
        let half = x.len() / 2;
        let mut first = case;
        first.shape.batch = 1;
        let alone = first.on_device(Element::F32, &x[..half], 0, false);
        assert_eq!(bits(&alone), both[..half]);
    }
}

#[test]
fn unfit_group_norms_are_refused() {
    let mut arena = Arena::new(0);
    let (x, y) = (
        arena.put(Element::F32, &[0.0; 96]),
        arena.poison(Element::F32, 96),
    );
    let shape = GroupShape {
        batch: 1,
        grid: [3, 2, 2],
        channels: 8,
        groups: 2,
    };
    let scratch = arena.poison(Element::F32, shape.scratch().unwrap());
    let yb = arena.put(Element::F32, &[0.0; 32]);
    let on = arena.upload();
    let right = GroupNorm {
        shape,
        eps: 1e-6,
        weight: None,
        bias: None,
        spatial: Some(Spatial {
            yb: on.at(yb),
            grid: [2, 1, 1],
        }),
        activation: Function::Identity,
        x: on.at(x),
        scratch: on.at(scratch),
        y: on.at(y),
    };
    let refused = |change: &dyn Fn(&mut GroupNorm<_>)| {
        let mut wrong = right.clone();
        change(&mut wrong);
        assert!(wrong.calls(on.device()).is_err());
    };
    right.calls(on.device()).unwrap();
    refused(&|n| n.shape.groups = 3);
    refused(&|n| n.shape.groups = 0);
    refused(&|n| n.shape.channels = 16);
    refused(&|n| n.shape.grid[0] = usize::MAX);
    refused(&|n| n.weight = Some(on.at(x)));
    refused(&|n| n.scratch.len -= 1);
    refused(&|n| n.y.len -= 1);
    // An odd number of frames reads its first frame alone.
    refused(&|n| n.spatial.as_mut().unwrap().grid = [1, 2, 1]);
    refused(&|n| n.spatial.as_mut().unwrap().grid = [2, 1, 2]);
}
