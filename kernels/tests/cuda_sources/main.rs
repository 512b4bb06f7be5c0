//! Every CubeCL kernel as CUDA C++, compiled by NVRTC to machine code of Hopper without a GPU.
//!
//! A kernel must compile in every element type and in every form that depends on sizes, and keep its
//! numbers in registers, but for the few bytes of [`SPILLS`]. NVRTC and an adapter of Vulkan are needed, if only a software one: `.ci/cuda`
//! brings both.

#![cfg(all(feature = "wgpu", feature = "cuda"))]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod calls;
mod video;

use calls::Maker;
use std::collections::BTreeSet;
use terrace_kernels::cube::{Call, Device, Element, adapters};
use terrace_kernels::cuda::{Nvrtc, Source};

/// The compute capability, and what NVRTC calls it.
const CAPABILITY: (i32, i32) = (9, 0);
const ARCHITECTURE: &str = "sm_90a";

/// Bytes that some form of a kernel stores for want of registers, at most. cuDNN computes attention and
/// convolution in 16 bits; these kernels are for f32, for biased scores and for sizes that cuDNN does not take.
const SPILLS: [(&str, usize); 3] = [("attention", 24), ("attention_step", 72), ("conv3d", 12)];

/// Compiles the kernels of calls, each text once.
struct Compiler {
    nvrtc: Nvrtc,
    seen: BTreeSet<String>,
    spilled: Vec<String>,
}

impl Compiler {
    fn compile(&mut self, element: Element, call: &Call<()>) {
        let source = Source::of(call.name(), call.kernel(), CAPABILITY).unwrap();
        if !self.seen.insert(source.text.clone()) {
            return;
        }
        let compiled = self.nvrtc.compile(
            call.name(),
            &source.text,
            ARCHITECTURE,
            &["--ptxas-options=-v"],
        );
        let cubin = compiled.unwrap();
        assert!(cubin.code.starts_with(b"\x7fELF"), "{}", call.name());
        let name = format!("{} {element}", call.name());
        let used = numbers(&cubin.log, " registers");
        assert_eq!(used.len(), 1, "{name}: {}", cubin.log);
        println!(
            "{name}: {} registers, {} bytes shared",
            used[0], source.shared
        );
        let stored: usize = numbers(&cubin.log, "bytes spill stores").iter().sum();
        let known = SPILLS.iter().find(|(kernel, _)| *kernel == call.name());
        if stored > known.map_or(0, |&(_, most)| most) {
            self.spilled.push(format!("{name}: {}", cubin.log));
        }
    }
}

/// The numbers in front of each `what`.
fn numbers(log: &str, what: &str) -> Vec<usize> {
    let before = |at: usize| log[..at].split_whitespace().last();
    let found = log.match_indices(what).filter_map(|(at, _)| before(at));
    found.map(|word| word.parse().unwrap()).collect()
}

#[test]
fn every_kernel_compiles_and_spills_no_more_than_is_known() {
    let queue = adapters()[0].open().unwrap();
    let device = Device::elsewhere(queue.client().clone(), "CUDA");
    let mut compiler = Compiler {
        nvrtc: Nvrtc::open().unwrap(),
        seen: BTreeSet::new(),
        spilled: Vec::new(),
    };
    let mut names = BTreeSet::new();
    for element in [Element::F32, Element::F16, Element::Bf16] {
        // Whole vectors of elements, and one at a time.
        for skew in [0, 1] {
            let maker = Maker {
                device: &device,
                element,
                skew,
            };
            for call in maker.all() {
                names.insert(call.name());
                compiler.compile(element, &call);
            }
        }
    }
    println!(
        "{} kernels, {} sources: {names:?}",
        names.len(),
        compiler.seen.len()
    );
    assert!(
        compiler.spilled.is_empty(),
        "{}",
        compiler.spilled.join("\n")
    );
}
