//! Plain Rust over arrays of 16 elements, which the compiler turns into whatever the target has.

use std::array;

use super::{Simd, bf16};

const LANES: usize = 16;

/// The portable instruction set.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Portable;

/// Whether the compilation target itself has a fused multiply-add; without one, `f32::mul_add` is a
/// library call.
const FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    type V = [f32; LANES];
    const LANES: usize = LANES;
    const DOT: bool = false;
    const QUADS: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        // SAFETY: the caller's promise; the read needs no alignment.
        unsafe { from.cast::<Self::V>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, v: Self::V, to: *mut f32) {
        // SAFETY: the caller's promise; the write needs no alignment.
        unsafe { to.cast::<Self::V>().write_unaligned(v) }
    }

    #[inline(always)]
    fn prefetch(self, _at: *const f32) {}

    #[inline(always)]
    fn prefetch_second(self, _at: *const f32) {}

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        if FUSED {
            array::from_fn(|i| a[i].mul_add(b[i], c[i]))
        } else {
            array::from_fn(|i| a[i] * b[i] + c[i])
        }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn add_exponent(self, x: Self::V, n: Self::V) -> Self::V {
        zip(x, n, |x, n| {
            f32::from_bits(x.to_bits().wrapping_add(n.to_bits() << 23))
        })
    }

    #[inline(always)]
    fn add_integers(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| {
            f32::from_bits(a.to_bits().wrapping_add(b.to_bits()))
        })
    }

    #[inline(always)]
    fn dot_integers(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        array::from_fn(|i| {
            let (a, b) = (a[i].to_bits() as i32, b[i].to_bits() as i32);
            let low = i32::from(a as i16) * i32::from(b as i16);
            let sum = (c[i].to_bits() as i32).wrapping_add(low);
            f32::from_bits(sum.wrapping_add((a >> 16) * (b >> 16)) as u32)
        })
    }

    #[inline(always)]
    fn round(self, x: Self::V) -> Self::V {
        x.map(bf16::nearest)
    }

    #[inline(always)]
    fn even(self, pairs: Self::V) -> Self::V {
        pairs.map(|v| f32::from_bits(v.to_bits() << 16))
    }

    #[inline(always)]
    fn odd(self, pairs: Self::V) -> Self::V {
        pairs.map(|v| f32::from_bits(v.to_bits() & 0xffff_0000))
    }
}
