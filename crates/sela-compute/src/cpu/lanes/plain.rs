//! Lanes without intrinsics: runs everywhere, left to the compiler to vectorise.

use super::Lanes;

/// Four f32 values in an array.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; 4]);

impl Plain {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Lanes for Plain {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller promises four readable values.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: the caller promises four readable values.
        let bits = unsafe { from.cast::<[u16; 4]>().read_unaligned() };
        Self(bits.map(|b| half::f16::from_bits(b).to_f32()))
    }
    #[inline(always)]
    unsafe fn load_i32(from: *const i32) -> Self {
        // SAFETY: the caller promises four readable values.
        Self(unsafe { from.cast::<[i32; 4]>().read_unaligned() }.map(|x| x as f32))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller promises four writable values.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) };
    }
    #[inline(always)]
    unsafe fn store_low_bytes([a, b, c, d]: [Self; 4], to: *mut u32) {
        let byte = |x: f32| x.to_bits() as u8;
        let words: [u32; 4] = std::array::from_fn(|i| {
            u32::from_le_bytes([byte(a.0[i]), byte(b.0[i]), byte(c.0[i]), byte(d.0[i])])
        });
        // SAFETY: the caller promises four writable values, which need not be aligned.
        unsafe { to.cast::<[u32; 4]>().write_unaligned(words) };
    }
    #[inline(always)]
    unsafe fn store_low_words(self, to: *mut u16) {
        let words = self.0.map(|x| x.to_bits() as u16);
        // SAFETY: the caller promises four writable values, which need not be aligned.
        unsafe { to.cast::<[u16; 4]>().write_unaligned(words) };
    }
    #[inline(always)]
    unsafe fn store_low_halves([one, two]: [Self; 2], to: *mut u32) {
        let word = |i: usize| one.0[i].to_bits() & 0xffff | two.0[i].to_bits() << 16;
        let words = [0, 1, 2, 3].map(word);
        // SAFETY: the caller promises four writable values, which need not be aligned.
        unsafe { to.cast::<[u32; 4]>().write_unaligned(words) };
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn fma(self, factor: Self, addend: Self) -> Self {
        Self(std::array::from_fn(|i| {
            self.0[i].mul_add(factor.0[i], addend.0[i])
        }))
    }
    #[inline(always)]
    unsafe fn mla(self, factor: Self, addend: Self) -> Self {
        // Without a fused instruction `mul_add` is a library call.
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            // SAFETY: safe on every CPU.
            unsafe { self.fma(factor, addend) }
        } else {
            Self(std::array::from_fn(|i| {
                self.0[i] * factor.0[i] + addend.0[i]
            }))
        }
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(self.0.map(f32::round_ties_even))
    }
    #[inline(always)]
    unsafe fn exp2_int(self) -> Self {
        Self(
            self.0
                .map(|x| f32::from_bits(((x as i32 + 127) as u32) << 23)),
        )
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let [a, b, c, d] = self.0;
        (a + c) + (b + d)
    }
    #[inline(always)]
    unsafe fn max_lane(self) -> f32 {
        self.0.into_iter().fold(self.0[0], f32::max)
    }
}
