//! Numbers as text: the shortest that reads as the same `f32`, and of those the nearest.
//!
//! The numbers of a unit vector lie between 0.001 and 1 almost without exception, and need six to
//! nine digits. There, `f64` holds the number times a power of ten closely enough to say how many
//! digits suffice: n digits do when the nearest number of n digits lies within half of a last
//! place (that of the `f32`) of it. All lengths are tried at once, without a branch that depends
//! on the number, as such branches cannot be foretold and cost more than the arithmetic. Whatever
//! is outside of that range, or so near to a border that rounding might decide, goes to `zmij`,
//! which serde_json uses and which this is held against.

/// Bytes of the longest text, and some.
const LONGEST: usize = 24;

/// A number's text.
pub(super) struct Decimal {
    text: [u8; LONGEST],
    long: usize,
}

/// Numbers from here on are written here.
const FROM: f64 = 0.001;
/// By zeros after the point: what shifts six, seven, eight and nine digits in front of the point.
const SHIFTS: [[f64; 4]; 3] = [
    [1e6, 1e7, 1e8, 1e9],
    [1e7, 1e8, 1e9, 1e10],
    [1e8, 1e9, 1e10, 1e11],
];
/// What stands before the digits, by sign and zeros.
const HEADS: [[&[u8; 8]; 3]; 2] = [
    [b"0.\0\0\0\0\0\0", b"0.0\0\0\0\0\0", b"0.00\0\0\0\0"],
    [b"-0.\0\0\0\0\0", b"-0.0\0\0\0\0", b"-0.00\0\0\0"],
];
/// In units of the last digit, what a distance may be wrong by: up to nine digits are below 2^30,
/// and an `f64` has 53 bits.
const DOUBT: f64 = 1e-6;
/// Added to a positive number below it and taken away again, this leaves the nearest integer, and
/// the even one of two.
const ROUND: f64 = (1_u64 << 52) as f64;

impl Decimal {
    /// The text of a finite number.
    #[inline]
    pub(super) fn of(value: f32) -> Self {
        let bits = value.to_bits();
        let size = f64::from(value.abs());
        let zeros = usize::from(size < 0.1) + usize::from(size < 0.01);
        let [six, seven, eight, nine] = SHIFTS[zeros];
        // 2^(exponent - 24): half of what the last of a mantissa's 24 bits is worth.
        let exponent = u64::from(bits >> 23 & 0xff) + (1023 - 127) - 24;
        let half = f64::from_bits(exponent << 52);
        let nearest = |shift: f64| (size * shift + ROUND) - ROUND;
        // Negative if so many digits suffice.
        let beyond = |shift: f64| (nearest(shift) - size * shift).abs() - half * shift;
        let (beyond6, beyond7, beyond8) = (beyond(six), beyond(seven), beyond(eight));
        let here = (FROM..1.0).contains(&size)
            // Below a power of two the numbers lie closer.
            & (bits & 0x7f_ffff != 0)
            // Fewer than seven digits are rare, and may be as few as one.
            & (beyond6 > DOUBT)
            & (beyond7.abs() > DOUBT)
            & (beyond8.abs() > DOUBT);
        if !here {
            return Self::by_library(value);
        }
        // Nine digits, of which the last are zeros that are left away.
        let one = |if_so: bool| f64::from(u8::from(if_so));
        let digits = nearest(nine);
        let digits = digits + one(beyond8 < 0.0) * (nearest(eight) * 10.0 - digits);
        let digits = digits + one(beyond7 < 0.0) * (nearest(seven) * 100.0 - digits);
        let left_away = usize::from(beyond8 < 0.0) + usize::from(beyond7 < 0.0);
        // Signed: every x86 converts that in one step.
        let digits = digits as i64 as u32;
        let sign = (bits >> 31) as usize;
        let head = sign + 2 + zeros;
        let last = u128::from(digits % 10) + u128::from(b'0');
        let tail = u128::from(eight_digits(digits / 10)) | (last << 64);
        let block = u128::from(u64::from_le_bytes(*HEADS[sign][zeros])) | (tail << (8 * head));
        let mut text = [0; LONGEST];
        text[..16].copy_from_slice(&block.to_le_bytes());
        Self {
            text,
            long: head + 9 - left_away,
        }
    }

    #[cold]
    #[inline(never)]
    fn by_library(value: f32) -> Self {
        let mut buffer = zmij::Buffer::new();
        let written = buffer.format_finite(value).as_bytes();
        let mut text = [0; LONGEST];
        text[..written.len()].copy_from_slice(written);
        Self {
            text,
            long: written.len(),
        }
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.text[..self.long]
    }
}

/// Eight digits as text, the first in the lowest byte. The number is split into halves, quarters
/// and digits, each beside the other in one word; quotients are products with a reciprocal that is
/// close enough for dividends so small.
#[inline]
fn eight_digits(number: u32) -> u64 {
    let number = u64::from(number);
    let fours = (number / 10_000) | ((number % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x7f_0000_007f;
    let twos = hundreds | ((fours - hundreds * 100) << 16);
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    let ones = tens | ((twos - tens * 10) << 8);
    ones | 0x3030_3030_3030_3030
}

#[cfg(test)]
mod tests {
    use super::{Decimal, eight_digits};

    fn check(bits: u32) {
        let value = f32::from_bits(bits);
        if !value.is_finite() {
            return;
        }
        let ours = Decimal::of(value);
        let mut buffer = zmij::Buffer::new();
        let theirs = buffer.format_finite(value);
        let ours = std::str::from_utf8(ours.as_bytes()).unwrap();
        assert_eq!(ours, theirs, "{bits:#x}");
        assert_eq!(ours.parse::<f32>().unwrap().to_bits(), bits, "{ours}");
    }

    /// With a stride of 1 this holds for every `f32` that there is; that takes minutes.
    #[test]
    fn text_is_the_library_s_for_numbers_of_every_size() {
        let stride = 4_099;
        for bits in (0..=u32::MAX).step_by(stride) {
            check(bits);
        }
    }

    #[test]
    fn and_on_every_border() {
        let borders = [0.0, 1e-5, 0.001, 0.01, 0.1, 1.0, 10.0, f32::MAX];
        let powers = (-12..2).map(|power| 2_f32.powi(power));
        for border in borders.into_iter().chain(powers) {
            for bits in border.to_bits().saturating_sub(300)..=border.to_bits() + 300 {
                check(bits);
                check(bits | 1 << 31);
            }
        }
    }

    #[test]
    fn numbers_halfway_between_two_texts_and_short_ones_are_the_library_s_too() {
        for power in 4..=16 {
            for count in 1..1_u32 << power.min(12) {
                check((count as f32 / (1 << power) as f32).to_bits());
            }
        }
        for whole in 1..10_000 {
            check((whole as f32 / 10_000.0).to_bits());
        }
    }

    #[test]
    fn eight_digits_are_those_of_the_number() {
        for number in (0..100_000_000).step_by(9_973).chain([99_999_999, 10_000]) {
            let digits = eight_digits(number).to_le_bytes();
            assert_eq!(digits, format!("{number:08}").as_bytes());
        }
    }
}
