//! NEON lanes: every 64-bit Arm CPU has them.

use super::Lanes;
use std::arch::aarch64::*;

/// Four f32 values.
#[derive(Clone, Copy)]
pub(crate) struct Neon(float32x4_t);

// SAFETY of every block below: NEON is part of the aarch64 baseline; the caller promises pointers
// valid for four values.
impl Lanes for Neon {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { vdupq_n_f32(x) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { vld1q_f32(from) })
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // The f16 vector types are not stable in Rust; the conversion instruction is baseline.
        let wide: float32x4_t;
        // SAFETY: see above; `fcvtl` reads and writes registers only.
        unsafe {
            let bits = vld1_u16(from);
            std::arch::asm!(
                "fcvtl {wide:v}.4s, {bits:v}.4h",
                wide = out(vreg) wide,
                bits = in(vreg) bits,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        Self(wide)
    }
    #[inline(always)]
    unsafe fn load_i32(from: *const i32) -> Self {
        // SAFETY: see above.
        Self(unsafe { vcvtq_f32_s32(vld1q_s32(from)) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { vst1q_f32(to, self.0) };
    }
    #[inline(always)]
    unsafe fn store_low_bytes([a, b, c, d]: [Self; 4], to: *mut u32) {
        // SAFETY: see above.
        unsafe {
            // Above the lowest byte of the one the other: what is above its own leaves at the top.
            let cd = vsliq_n_u32::<8>(vreinterpretq_u32_f32(c.0), vreinterpretq_u32_f32(d.0));
            let bcd = vsliq_n_u32::<8>(vreinterpretq_u32_f32(b.0), cd);
            vst1q_u32(to, vsliq_n_u32::<8>(vreinterpretq_u32_f32(a.0), bcd));
        }
    }
    #[inline(always)]
    unsafe fn store_low_words(self, to: *mut u16) {
        // SAFETY: see above.
        unsafe { vst1_u16(to, vmovn_u32(vreinterpretq_u32_f32(self.0))) };
    }
    #[inline(always)]
    unsafe fn store_low_halves([one, two]: [Self; 2], to: *mut u32) {
        // SAFETY: see above.
        unsafe {
            let (one, two) = (vreinterpretq_u32_f32(one.0), vreinterpretq_u32_f32(two.0));
            vst1q_u32(to, vsliq_n_u32::<16>(one, two));
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vaddq_f32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vsubq_f32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vmulq_f32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vdivq_f32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vmaxq_f32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vminq_f32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn fma(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vfmaq_f32(addend.0, self.0, factor.0) })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vrndnq_f32(self.0) })
    }
    #[inline(always)]
    unsafe fn exp2_int(self) -> Self {
        // SAFETY: see above.
        unsafe {
            let biased = vaddq_s32(vcvtq_s32_f32(self.0), vdupq_n_s32(127));
            Self(vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased)))
        }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let two = vadd_f32(vget_low_f32(self.0), vget_high_f32(self.0));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }
    #[inline(always)]
    unsafe fn max_lane(self) -> f32 {
        // SAFETY: see above.
        unsafe { vmaxvq_f32(self.0) }
    }
}
