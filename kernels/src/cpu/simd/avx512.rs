//! AVX-512 (F, BW, DQ, VL): 16 lanes.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// Proof that this machine has AVX-512 F, BW, DQ and VL, and AVX2 and FMA.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Avx512(());

/// Runs a kernel compiled for AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(super) fn run<K: Kernel>(kernel: K) {
    kernel.run(Avx512(()));
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

impl Simd for Avx512 {
    type V = __m512;
    const LANES: usize = 16;

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

    operations! {
        mul_add(a, b, c) = _mm512_fmadd_ps(a, b, c);
        add(a, b) = _mm512_add_ps(a, b);
        sub(a, b) = _mm512_sub_ps(a, b);
        max(a, b) = _mm512_max_ps(a, b);
        add_exponent(x, n) = _mm512_castsi512_ps(_mm512_add_epi32(
            _mm512_castps_si512(x),
            _mm512_slli_epi32::<23>(_mm512_castps_si512(n)),
        ));
    }
}
