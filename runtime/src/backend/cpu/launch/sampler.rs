//! Kernels of the denoising loop: guidance, scheduler update, noise.
//!
//! Invariant: coefficients and keys are read when the kernel runs, since they change with every call.

use super::super::operand::{Access, Binder};
use super::Run;
use crate::RuntimeError;
use terrace_kernels::cpu::{Advance, Denoise, NoiseBox};
use terrace_plan::BoxCopy;

pub(super) fn denoise(b: &Binder<'_>) -> Result<Run, RuntimeError> {
    let (pred, latents) = (b.input("pred")?, b.input("latents")?);
    let (uncond, coefficients) = (b.maybe("uncond"), b.input("coefficients")?);
    let y = b.output("y")?;
    Ok(Box::new(move |a: &Access| {
        let pred = pred.get(a);
        // The kernel's guidance needs both predictions; without it the only one comes first.
        let (pred_uncond, pred_text) = match uncond {
            Some(uncond) => (uncond.get(a), Some(pred)),
            None => (pred, None),
        };
        let c = coefficients.get(a);
        Denoise {
            pred_uncond,
            pred_text,
            guidance: c[0],
            latents: latents.get(a),
            c0: c[1],
            c1: c[2],
            x0: y.get(a),
        }
        .run()
    }))
}

pub(super) fn advance(b: &Binder<'_>) -> Result<Run, RuntimeError> {
    let (latents, x0) = (b.input("latents")?, b.input("x0")?);
    let (previous, noise) = (b.maybe("previous"), b.maybe("noise"));
    let (coefficients, y) = (b.input("coefficients")?, b.output("y")?);
    Ok(Box::new(move |a: &Access| {
        let c = coefficients.get(a);
        Advance {
            latents: latents.get(a),
            x0: x0.get(a),
            x0_old: previous.as_ref().map(|x| x.get(a)),
            noise: noise.as_ref().map(|x| x.get(a)),
            c2: c[3],
            c3: c[4],
            c4: c[5],
            c5: c[6],
            y: y.get(a),
        }
        .run()
    }))
}

pub(super) fn noise(b: &Binder<'_>, boxes: &[BoxCopy]) -> Result<Run, RuntimeError> {
    let (key, y) = (b.integers("key")?, b.output("y")?);
    let boxes: Vec<(BoxCopy, Vec<u64>)> = boxes
        .iter()
        .map(|copy| {
            let strides = copy.src_strides.iter().map(|&s| s as u64).collect();
            (copy.clone(), strides)
        })
        .collect();
    Ok(Box::new(move |a: &Access| {
        let key = key.get(a);
        let out = y.get(a);
        for (copy, index_strides) in &boxes {
            NoiseBox {
                seed: word(key[0], key[1]),
                stream: word(key[2], key[3]),
                extents: &copy.extents,
                out: &mut *out,
                out_offset: copy.dst_offset,
                out_strides: &copy.dst_strides,
                index_offset: copy.src_offset as u64,
                index_strides,
            }
            .run()?;
        }
        Ok(())
    }))
}

fn word(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}
