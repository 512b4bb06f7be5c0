//! Vectors of f32 in several instruction sets behind one trait, and the choice between them at run time.
//!
//! Invariants: an [`InstructionSet`] exists only if this machine has it, so handing one to a kernel is
//! always sound. A kernel is written once, generic over [`Simd`], and compiled once per instruction
//! set. AVX2 and AVX-512 fuse every `mul_add`, so a kernel whose sums do not depend on the number of
//! lanes gives the same bits on both; the portable version rounds twice where the target has no
//! fused multiply-add. A product of two bf16 is exact in f32, so sums of such products have the same
//! bits everywhere, but for results below the smallest normal f32, which `avx512-bf16` takes to zero.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod math;
mod portable;

use std::fmt;

use super::bf16;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512::Avx512;
pub(super) use math::{EXP2, EXP2_BF16, exp2_nonpositive};
pub(super) use portable::Portable;

/// An instruction set that this machine has and that the heavy kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstructionSet(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
}

/// The widest instruction set of this machine; what kernels run on unless told otherwise.
#[must_use]
pub fn instruction_set() -> InstructionSet {
    InstructionSet::available()
        .last()
        .unwrap_or(InstructionSet(Kind::Portable))
}

impl InstructionSet {
    /// All instruction sets of this machine, the narrowest first.
    pub fn available() -> impl Iterator<Item = InstructionSet> {
        let kinds = [
            Some(Kind::Portable),
            #[cfg(target_arch = "x86_64")]
            has_avx2().then_some(Kind::Avx2),
            #[cfg(target_arch = "x86_64")]
            has_avx512().then_some(Kind::Avx512),
            #[cfg(target_arch = "x86_64")]
            has_avx512_vnni().then_some(Kind::Avx512Vnni),
            #[cfg(target_arch = "x86_64")]
            has_avx512_bf16().then_some(Kind::Avx512Bf16),
        ];
        kinds.into_iter().flatten().map(InstructionSet)
    }

    /// `portable`, `avx2`, `avx512`, `avx512-vnni` or `avx512-bf16`; each has what those before it have.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => "avx512-vnni",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Bf16 => "avx512-bf16",
        }
    }

    /// Runs a kernel in its version for this instruction set.
    pub(super) fn run<K: Kernel>(self, kernel: K) {
        match self.0 {
            Kind::Portable => kernel.run(Portable),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a value of this kind exists only where the features were detected.
            Kind::Avx2 => unsafe { avx2::run(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Kind::Avx512 => unsafe { avx512::run(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Kind::Avx512Vnni => unsafe { avx512::run_vnni(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Kind::Avx512Bf16 => unsafe { avx512::run_bf16(kernel) },
        }
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512_vnni() -> bool {
    has_avx512() && is_x86_feature_detected!("avx512vnni")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512_bf16() -> bool {
    has_avx512_vnni() && is_x86_feature_detected!("avx512bf16")
}

/// A kernel written over [`Simd`]. `run` and all that it calls in hot loops must be
/// `#[inline(always)]`, or they are not compiled for the instruction set. A closure cannot be: one that
/// takes or gives vectors hands them over in memory, and what it computes with them is compiled for the
/// base instruction set unless the compiler happens to inline it. Write a function, or a loop.
pub(super) trait Kernel {
    /// Does the work.
    fn run<S: super::gemm::Micro>(self, simd: S);
}

/// A token of an instruction set with its operations. It exists only inside [`InstructionSet::run`],
/// which makes the operations safe to call.
pub(super) trait Simd: Copy {
    /// A vector register of f32.
    type V: Copy;
    /// Elements of a vector; divides 16.
    const LANES: usize;
    /// How pairs of bf16 are multiplied: by `dot`, or widened and by `mul_add`.
    const DOT: bool;
    /// Which integers `dot_integers` multiplies: four of 8 bits, or two of 16.
    const QUADS: bool;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::V;
    /// Reads `LANES` elements.
    ///
    /// # Safety
    /// `from` must be valid for reads of `LANES` elements.
    unsafe fn load(self, from: *const f32) -> Self::V;
    /// Writes `LANES` elements.
    ///
    /// # Safety
    /// `to` must be valid for writes of `LANES` elements.
    unsafe fn store(self, v: Self::V, to: *mut f32);
    /// Asks for the cache line of an address, which need not be valid.
    fn prefetch(self, at: *const f32);
    /// Asks for the cache line of an address as far as the second level; it need not be valid.
    fn prefetch_second(self, at: *const f32);
    /// a * b + c.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// a + b.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// a - b.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// The larger of each lane; `b` where one of them is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// Adds the low bits of `n` to the exponent of `x`.
    fn add_exponent(self, x: Self::V, n: Self::V) -> Self::V;
    /// The first numbers of pairs of bf16, as f32.
    fn even(self, pairs: Self::V) -> Self::V;
    /// The second numbers of pairs of bf16, as f32.
    fn odd(self, pairs: Self::V) -> Self::V;
    /// a + b of 32-bit integers, wrapping.
    fn add_integers(self, a: Self::V, b: Self::V) -> Self::V;
    /// c + the sum of the products of the integers in each lane, in 32 bits, wrapping: four unsigned ones
    /// of `a` and signed ones of `b` where [`Simd::QUADS`], else two signed ones of 16 bits.
    fn dot_integers(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The nearest bf16 of numbers that are not below the smallest normal.
    fn round(self, x: Self::V) -> Self::V;
    /// Pairs of the nearest bf16, `first` becoming the second numbers of the pairs, which `dot` takes
    /// first; fast only where [`Simd::DOT`].
    #[inline(always)]
    fn pair(self, first: Self::V, second: Self::V) -> Self::V {
        let (mut a, mut b) = ([0.0; 16], [0.0; 16]);
        // SAFETY: a vector has 16 elements at most.
        unsafe {
            self.store(first, a.as_mut_ptr());
            self.store(second, b.as_mut_ptr());
            for (a, b) in a.iter_mut().zip(b) {
                *a = bf16::pair(b, *a);
            }
            self.load(a.as_ptr())
        }
    }
    /// The nearest bf16 of consecutive numbers, those of `low` and then those of `high`; fast only where
    /// [`Simd::DOT`].
    #[inline(always)]
    fn consecutive(self, low: Self::V, high: Self::V) -> Self::V {
        consecutive(self, low, high)
    }
    /// c + second a * second b + first a * first b over pairs of bf16, each sum rounded; fast only
    /// where [`Simd::DOT`].
    #[inline(always)]
    fn dot(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        let c = self.mul_add(self.odd(a), self.odd(b), c);
        self.mul_add(self.even(a), self.even(b), c)
    }
}

/// [`Simd::consecutive`] in memory.
#[inline(always)]
fn consecutive<S: Simd>(simd: S, low: S::V, high: S::V) -> S::V {
    let mut all = [0.0; 32];
    // SAFETY: two vectors have 32 elements at most.
    unsafe {
        simd.store(low, all.as_mut_ptr());
        simd.store(high, all[S::LANES..].as_mut_ptr());
        for i in 0..S::LANES {
            all[i] = bf16::pair(all[2 * i], all[2 * i + 1]);
        }
        simd.load(all.as_ptr())
    }
}
