//! AVX-512 (F, BW, DQ, VL): 16 lanes; with or without its products of 8-bit integers and of bf16 pairs.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::{Kernel, Simd};

/// Proof that this machine has AVX-512 F, BW, DQ and VL, AVX2 and FMA; AVX512-VNNI if `VNNI`, and
/// AVX512-BF16 if `BF16`.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Avx512<const VNNI: bool, const BF16: bool>(());

/// Runs a kernel compiled for AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(super) fn run<K: Kernel>(kernel: K) {
    kernel.run(Avx512::<false, false>(()));
}

/// Runs a kernel compiled for AVX-512 with its products of 8-bit integers.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
pub(super) fn run_vnni<K: Kernel>(kernel: K) {
    kernel.run(Avx512::<true, false>(()));
}

/// Runs a kernel compiled for AVX-512 with its products of 8-bit integers and of bf16 pairs.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma")]
pub(super) fn run_bf16<K: Kernel>(kernel: K) {
    kernel.run(Avx512::<true, true>(()));
}

macro_rules! operations {
    ($($name:ident($($arg:ident),*) = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: __m512),*) -> __m512 {
            // SAFETY: the token exists only where AVX-512 was detected.
            unsafe { $body }
        }
    )*};
}

impl<const VNNI: bool, const BF16: bool> Simd for Avx512<VNNI, BF16> {
    type V = __m512;
    const LANES: usize = 16;
    const DOT: bool = BF16;
    const QUADS: bool = VNNI;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: the token exists only where AVX-512 was detected.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: the caller's promise, and the token.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, v: __m512, to: *mut f32) {
        // SAFETY: the caller's promise, and the token.
        unsafe { _mm512_storeu_ps(to, v) }
    }

    #[inline(always)]
    fn prefetch(self, at: *const f32) {
        // SAFETY: a prefetch reads nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    fn prefetch_second(self, at: *const f32) {
        // SAFETY: a prefetch reads nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }

    operations! {
        mul_add(a, b, c) = _mm512_fmadd_ps(a, b, c);
        add(a, b) = _mm512_add_ps(a, b);
        sub(a, b) = _mm512_sub_ps(a, b);
        max(a, b) = _mm512_max_ps(a, b);
        add_exponent(x, n) = _mm512_castsi512_ps(_mm512_add_epi32(
            _mm512_castps_si512(x),
            _mm512_slli_epi32::<23>(_mm512_castps_si512(n)),
        ));
        add_integers(a, b) = _mm512_castsi512_ps(_mm512_add_epi32(
            _mm512_castps_si512(a),
            _mm512_castps_si512(b),
        ));
        round(x) = {
            let bits = _mm512_castps_si512(x);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
            let rounded = _mm512_add_epi32(bits, half);
            _mm512_castsi512_ps(_mm512_and_si512(rounded, _mm512_set1_epi32(-0x1_0000)))
        };
        even(pairs) = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(pairs)));
        odd(pairs) = _mm512_and_ps(pairs, _mm512_castsi512_ps(_mm512_set1_epi32(-0x1_0000)));
    }

    #[inline(always)]
    fn dot_integers(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token exists only where AVX-512 was detected, and one with `VNNI` only where
        // AVX512-VNNI was.
        unsafe {
            let (a, b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
            let c = _mm512_castps_si512(c);
            _mm512_castsi512_ps(if VNNI {
                _mm512_dpbusd_epi32(c, a, b)
            } else {
                _mm512_add_epi32(c, _mm512_madd_epi16(a, b))
            })
        }
    }

    #[inline(always)]
    fn pair(self, first: __m512, second: __m512) -> __m512 {
        if BF16 {
            let mut order = [0u16; 32];
            for (i, place) in order.iter_mut().enumerate() {
                *place = i as u16 / 2 + i as u16 % 2 * 16;
            }
            // SAFETY: a token with `BF16` exists only where AVX512-BF16 was detected; a register of
            // bf16 is one of 16-bit integers, and so is an array of 32.
            unsafe {
                // The numbers of `second`, then those of `first`.
                let both = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(first, second));
                let order = transmute::<[u16; 32], __m512i>(order);
                _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, both))
            }
        } else {
            let (first, second) = (self.round(first), self.round(second));
            // SAFETY: the token exists only where AVX-512 was detected.
            unsafe {
                let second = _mm512_srli_epi32::<16>(_mm512_castps_si512(second));
                let both = _mm512_or_si512(_mm512_castps_si512(first), second);
                _mm512_castsi512_ps(both)
            }
        }
    }

    #[inline(always)]
    fn consecutive(self, low: __m512, high: __m512) -> __m512 {
        if BF16 {
            // SAFETY: a token with `BF16` exists only where AVX512-BF16 was detected; a register of
            // bf16 is one of integers.
            unsafe {
                let both = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                _mm512_castsi512_ps(both)
            }
        } else {
            super::consecutive(self, low, high)
        }
    }

    #[inline(always)]
    fn dot(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        if BF16 {
            // SAFETY: a token with `BF16` exists only where AVX512-BF16 was detected; a register of
            // pairs is one of bf16.
            unsafe {
                _mm512_dpbf16_ps(
                    c,
                    transmute::<__m512, __m512bh>(a),
                    transmute::<__m512, __m512bh>(b),
                )
            }
        } else {
            let c = self.mul_add(self.odd(a), self.odd(b), c);
            self.mul_add(self.even(a), self.even(b), c)
        }
    }
}
