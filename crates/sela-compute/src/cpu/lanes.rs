//! Vector registers behind one small trait, so that each kernel is written once.
//!
//! A kernel is a generic `#[inline(always)]` function over [`Lanes`]; each instruction set
//! instantiates it inside a function that enables its target features (see `kernels.rs`), where
//! the intrinsics below inline to single instructions.

#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod plain;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

/// Bytes of a line of the cache: what memory is fetched in.
pub(crate) const CACHE_LINE: usize = 64;

/// Added to a number between -2^22 and 2^22 it leaves the nearest integer, ties to even, in the lower bits.
pub(crate) const INTEGER: f32 = (3 << 22) as f32;

/// Brings the line of the cache that an address is in near: into the second level at least. Any address
/// will do: it is no access.
#[inline(always)]
pub(crate) fn bring_near(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every 64-bit x86 has SSE.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(at.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a hint, on every AArch64.
    unsafe {
        std::arch::asm!(
            "prfm pldl2keep, [{at}]",
            at = in(reg) at,
            options(nostack, readonly, preserves_flags)
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}

/// A register of `LANES` f32 values.
///
/// # Safety
///
/// All methods are unsafe for one reason: they may only run on a CPU that has the instruction
/// set of the implementing type, inside a function that enables it. Pointers must be valid for
/// `LANES` elements; no alignment is needed.
pub(crate) trait Lanes: Copy {
    /// Number of f32 values; divides 16.
    const LANES: usize;

    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    /// Loads half-precision values, widened exactly.
    unsafe fn load_f16(from: *const u16) -> Self;
    /// Loads integers, rounded to f32.
    unsafe fn load_i32(from: *const i32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// Stores a word a lane: of each of the four its lowest eight bits, the first one's lowest.
    unsafe fn store_low_bytes(four: [Self; 4], to: *mut u32);
    /// Stores of each lane the lowest sixteen of its bits.
    unsafe fn store_low_words(self, to: *mut u16);
    /// Stores a word a lane: of both its lowest sixteen bits, the first one's lowest.
    unsafe fn store_low_halves(both: [Self; 2], to: *mut u32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    unsafe fn min(self, other: Self) -> Self;
    /// No further from zero than a limit above it. What a NaN becomes depends on the set.
    #[inline(always)]
    unsafe fn within(self, limit: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { self.max(Self::splat(0.0).sub(limit)).min(limit) }
    }
    /// `self * factor + addend`, rounded once. The canonical scores are defined by it.
    unsafe fn fma(self, factor: Self, addend: Self) -> Self;
    /// `self * factor + addend`, fused where the hardware does it for free.
    #[inline(always)]
    unsafe fn mla(self, factor: Self, addend: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { self.fma(factor, addend) }
    }
    /// Nearest integers, as floats.
    unsafe fn round(self) -> Self;
    /// `2^self` for lanes that hold integers in `-126..=127`.
    unsafe fn exp2_int(self) -> Self;
    /// The sum of the lanes by halving: lane `i` plus lane `i + LANES / 2`, and so on.
    unsafe fn sum(self) -> f32;
    /// The largest lane.
    unsafe fn max_lane(self) -> f32;
}

#[cfg(test)]
mod tests {
    use super::Lanes;
    use super::plain::Plain;

    /// The words of sixteen lanes of two registers' lower halves, and what sixteen numbers are within 1.5.
    ///
    /// # Safety
    ///
    /// As for [`Lanes`].
    #[inline(always)]
    unsafe fn halves<V: Lanes>(both: &[[u32; 16]; 2], x: &[f32; 16]) -> ([u32; 16], [f32; 16]) {
        let mut found = ([0; 16], [0.0; 16]);
        for at in (0..16).step_by(V::LANES) {
            // SAFETY: the caller's promise; there are sixteen of all.
            unsafe {
                let mut registers = [V::splat(0.0); 2];
                for (register, bits) in registers.iter_mut().zip(both) {
                    *register = V::load(bits.as_ptr().add(at).cast());
                }
                V::store_low_halves(registers, found.0.as_mut_ptr().add(at));
                let x = V::load(x.as_ptr().add(at)).within(V::splat(1.5));
                x.store(found.1.as_mut_ptr().add(at));
            }
        }
        found
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn halves_avx2(both: &[[u32; 16]; 2], x: &[f32; 16]) -> ([u32; 16], [f32; 16]) {
        // SAFETY: the caller's promise.
        unsafe { halves::<super::x86::Avx2>(both, x) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx2,fma")]
    unsafe fn halves_avx512(both: &[[u32; 16]; 2], x: &[f32; 16]) -> ([u32; 16], [f32; 16]) {
        // SAFETY: the caller's promise.
        unsafe { halves::<super::x86::Avx512>(both, x) }
    }

    #[test]
    fn lower_halves_become_words_and_numbers_stay_within_bounds() {
        let both: [[u32; 16]; 2] = std::array::from_fn(|half| {
            std::array::from_fn(|i| 0x9e37_79b9_u32.wrapping_mul((half * 16 + i + 1) as u32))
        });
        let words = std::array::from_fn(|i| both[0][i] & 0xffff | both[1][i] << 16);
        let x =
            std::array::from_fn(|i| [-0.0, 1.49, -1.5, 1e30, -7.0, f32::MIN, 1e-42, 1.6][i % 8]);
        let expected = (words, x.map(|x: f32| x.clamp(-1.5, 1.5)));
        // SAFETY: plain lanes run everywhere, the others where they are found.
        unsafe {
            assert_eq!(halves::<Plain>(&both, &x), expected, "plain");
            #[cfg(target_arch = "x86_64")]
            {
                use crate::isa::Isa;
                if Isa::Avx2.is_available() {
                    assert_eq!(halves_avx2(&both, &x), expected, "AVX2");
                }
                if Isa::Avx512.is_available() {
                    assert_eq!(halves_avx512(&both, &x), expected, "AVX-512");
                }
            }
            #[cfg(target_arch = "aarch64")]
            assert_eq!(halves::<super::neon::Neon>(&both, &x), expected, "NEON");
        }
    }

    /// The words of sixteen lanes of four registers' lowest bytes.
    ///
    /// # Safety
    ///
    /// As for [`Lanes`].
    #[inline(always)]
    unsafe fn words<V: Lanes>(four: &[[u32; 16]; 4]) -> [u32; 16] {
        let mut found = [0; 16];
        for at in (0..16).step_by(V::LANES) {
            // SAFETY: the caller's promise; there are sixteen of all.
            unsafe {
                let mut registers = [V::splat(0.0); 4];
                for (register, bits) in registers.iter_mut().zip(four) {
                    *register = V::load(bits.as_ptr().add(at).cast());
                }
                V::store_low_bytes(registers, found.as_mut_ptr().add(at));
            }
        }
        found
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn words_avx2(four: &[[u32; 16]; 4]) -> [u32; 16] {
        // SAFETY: the caller's promise.
        unsafe { words::<super::x86::Avx2>(four) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx2,fma")]
    unsafe fn words_avx512(four: &[[u32; 16]; 4]) -> [u32; 16] {
        // SAFETY: the caller's promise.
        unsafe { words::<super::x86::Avx512>(four) }
    }

    #[test]
    fn lowest_bytes_become_words_whatever_is_above_them() {
        let mut state = 1_u32;
        for _ in 0..100 {
            let four: [[u32; 16]; 4] = std::array::from_fn(|_| {
                std::array::from_fn(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    // The lowest bits of such a generator have short periods.
                    state.rotate_left(16)
                })
            });
            let expected: [u32; 16] =
                std::array::from_fn(|i| u32::from_le_bytes(four.map(|bits| bits[i] as u8)));
            // SAFETY: plain lanes run everywhere, the others where they are found.
            unsafe {
                assert_eq!(words::<Plain>(&four), expected, "plain");
                #[cfg(target_arch = "x86_64")]
                {
                    use crate::isa::Isa;
                    if Isa::Avx2.is_available() {
                        assert_eq!(words_avx2(&four), expected, "AVX2");
                    }
                    if Isa::Avx512.is_available() {
                        assert_eq!(words_avx512(&four), expected, "AVX-512");
                    }
                }
                #[cfg(target_arch = "aarch64")]
                assert_eq!(words::<super::neon::Neon>(&four), expected, "NEON");
            }
        }
    }
}
