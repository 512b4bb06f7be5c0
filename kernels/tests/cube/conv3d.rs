//! Causal convolution.

use terrace_kernels::cpu;
use terrace_kernels::cube::*;

use crate::arena::{Arena, Buffer, FLOATS, close, rounded};
use crate::common::{bits, values};

/// A convolution with all that it may have.
#[derive(Clone)]
struct Case {
    shape: [usize; 4],
    weight: ConvWeight,
    x: Vec<f32>,
    factors: Vec<f32>,
    cache: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
    residual: Option<Vec<f32>>,
}

impl Case {
    fn new(shape: [usize; 4], [cin, cout]: [usize; 2], kernel: [usize; 3]) -> Self {
        let pixels: usize = shape.iter().product();
        let taps: usize = kernel.iter().product();
        let factors = values(cout * cin * taps, 2);
        Self {
            shape,
            weight: ConvWeight { cout, cin, kernel },
            x: values(pixels * cin, 1),
            factors: factors.iter().map(|v| v * 0.2).collect(),
            cache: None,
            bias: None,
            residual: None,
        }
    }

    /// With a cache, a bias and a residual.
    fn full(mut self) -> Self {
        let [batch, frames, height, width] = self.shape;
        let ConvWeight { cout, cin, kernel } = self.weight;
        let frame = height * width;
        if kernel[0] > 1 {
            self.cache = Some(values(batch * (kernel[0] - 1) * frame * cin, 3));
        }
        self.bias = Some(values(cout, 4));
        self.residual = Some(values(batch * frames * frame * cout, 5));
        self
    }

    fn on_device(&self, element: Element, stored: Element, skew: usize) -> Vec<f32> {
        let [batch, frames, height, width] = self.shape;
        let mut arena = Arena::new(skew);
        let x = arena.put(element, &self.x);
        let cache = self.cache.as_ref().map(|v| arena.put(element, v));
        let bias = self.bias.as_ref().map(|v| arena.put(Element::F32, v));
        let residual = self.residual.as_ref().map(|v| arena.put(element, v));
        let y = arena.poison(element, batch * frames * height * width * self.weight.cout);
        let mut weights = Arena::new(0);
        let weight = weights.put(stored, &self.weight.pack(&self.factors).unwrap());
        let (on, weights) = (arena.upload(), weights.upload());
        let call = Conv3d {
            batch,
            frames,
            height,
            width,
            shape: self.weight,
            x: on.at(x),
            cache: cache.map(|r| on.at(r)),
            weight: weights.at(weight),
            bias: bias.map(|r| on.at(r)),
            residual: residual.map(|r| on.at(r)),
            y: on.at(y),
        };
        on.run(call.calls(on.device()), y)
    }

    fn on_cpu(&self, element: Element, stored: Element) -> Vec<f32> {
        let [batch, frames, height, width] = self.shape;
        let ConvWeight { cout, cin, kernel } = self.weight;
        let factors = rounded(stored, &self.factors);
        let weight = cpu::PackedConv3d::pack(cout, cin, kernel, &factors).unwrap();
        let round = |v: &Option<Vec<f32>>| v.as_ref().map(|v| rounded(element, v));
        let (cache, residual) = (round(&self.cache), round(&self.residual));
        let mut y = vec![0.0; batch * frames * height * width * cout];
        cpu::Conv3d {
            batch,
            frames,
            height,
            width,
            x: &rounded(element, &self.x),
            cache: cache.as_deref(),
            weight: &weight,
            bias: self.bias.as_deref(),
            residual: residual.as_deref(),
            y: &mut y,
        }
        .run()
        .unwrap();
        y
    }
}

#[test]
fn convolutions_match_those_of_the_cpu() {
    let plain = [
        Case::new([1, 1, 1, 1], [1, 1], [1, 1, 1]),
        Case::new([1, 3, 5, 7], [8, 12], [3, 3, 3]),
        Case::new([1, 2, 13, 21], [16, 70], [1, 1, 1]),
        Case::new([1, 2, 3, 5], [5, 20], [2, 5, 1]),
        Case::new([2, 4, 3, 2], [12, 132], [4, 1, 3]),
    ];
    let full = [
        Case::new([2, 3, 5, 7], [3, 16], [3, 3, 3]).full(),
        Case::new([2, 1, 9, 11], [16, 3], [3, 3, 3]).full(),
        Case::new([1, 2, 9, 31], [20, 40], [3, 3, 3]).full(),
        Case::new([2, 2, 3, 4], [8, 8], [1, 1, 1]).full(),
    ];
    for case in plain.iter().chain(&full) {
        for element in FLOATS {
            let (found, expected) = (
                case.on_device(element, element, 0),
                case.on_cpu(element, element),
            );
            close(element, &found, &expected, 1e-5);
        }
    }
}

/// Operands may begin anywhere, and weights may be of a narrower type than activations.
#[test]
fn skews_and_narrow_weights_match_the_cpu() {
    let case = Case::new([2, 3, 6, 5], [12, 12], [3, 3, 3]).full();
    let (f32s, f16s) = (Element::F32, Element::F16);
    let straight = case.on_device(f32s, f32s, 0);
    assert_eq!(bits(&case.on_device(f32s, f32s, 1)), bits(&straight));
    let bare = Case::new([1, 2, 3, 4], [3, 4], [3, 3, 3]);
    assert_eq!(
        bits(&bare.on_device(f32s, f32s, 1)),
        bits(&bare.on_device(f32s, f32s, 0))
    );
    close(
        f32s,
        &case.on_device(f32s, f16s, 3),
        &case.on_cpu(f32s, f16s),
        1e-5,
    );
}

/// A frame has the same bits in a chunk of its own, with the frames before it as cache, as in the whole.
#[test]
fn frames_do_not_depend_on_the_chunks() {
    let (shape, channels) = ([1, 5, 9, 30], [8, 24]);
    let whole = Case::new(shape, channels, [3, 3, 3]);
    let (frame_in, frame_out) = (9 * 30 * 8, 9 * 30 * 24);
    let all = whole.on_device(Element::F32, Element::F32, 0);
    for (first, frames) in [(2, 1), (2, 3), (4, 1)] {
        let mut part = whole.clone();
        part.shape[1] = frames;
        part.cache = Some(whole.x[(first - 2) * frame_in..first * frame_in].to_vec());
        part.x = whole.x[first * frame_in..(first + frames) * frame_in].to_vec();
        let found = part.on_device(Element::F32, Element::F32, 0);
        assert_eq!(
            bits(&found),
            bits(&all[first * frame_out..(first + frames) * frame_out])
        );
    }
}

#[test]
fn unfit_convolutions_are_refused() {
    let queue = crate::arena::queue();
    let mut arena = Arena::new(0);
    let (x, y) = (
        arena.put(Element::F32, &[0.0; 60]),
        arena.poison(Element::F32, 60),
    );
    let words = arena.words(&[0; 60]);
    let on = arena.upload();
    let shape = ConvWeight {
        cout: 3,
        cin: 3,
        kernel: [1, 1, 1],
    };
    let weight = arena_with(&shape);
    let right = Conv3d {
        batch: 1,
        frames: 1,
        height: 4,
        width: 5,
        shape,
        x: on.at(x),
        cache: None,
        weight,
        bias: None,
        residual: None,
        y: on.at(y),
    };
    let refused = |change: &dyn Fn(&mut Conv3d<_>)| {
        let mut wrong = right.clone();
        change(&mut wrong);
        assert!(wrong.calls(queue.device()).is_err());
    };
    right.calls(queue.device()).unwrap();
    refused(&|c| c.height = 5);
    refused(&|c| c.shape.kernel = [1, 2, 1]);
    refused(&|c| c.shape.kernel = [0, 1, 1]);
    refused(&|c| c.shape.cout = 17);
    refused(&|c| c.x.element = Element::F16);
    refused(&|c| c.x = on.at(words));
    refused(&|c| c.bias = Some(on.at(x)));
    refused(&|c| {
        c.residual = Some(Operand {
            len: 57,
            ..on.at(x)
        })
    });
    refused(&|c| c.cache = Some(on.at(x)));
    refused(&|c| c.frames = usize::MAX);
}

fn arena_with(shape: &ConvWeight) -> Operand<Buffer> {
    let mut weights = Arena::new(0);
    let region = weights.put(Element::F32, &vec![0.0; shape.elements().unwrap()]);
    weights.upload().at(region)
}
