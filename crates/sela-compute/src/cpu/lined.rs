//! Numbers that begin at a line of the cache, so that no load of a whole register takes two.

use std::ops::{Deref, DerefMut};

use super::blocks::Line;

/// f32 numbers from a line's begin on. Those of a vector begin 16 bytes later if it is long: that is how
/// much glibc writes before what it maps.
pub(crate) struct Lined {
    lines: Vec<Line>,
    len: usize,
}

impl Lined {
    /// So many zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        Self {
            lines: vec![Line::default(); lines_of(len)],
            len,
        }
    }
}

/// Lines that so many numbers take.
pub(crate) fn lines_of(numbers: usize) -> usize {
    (numbers * size_of::<f32>()).div_ceil(size_of::<Line>())
}

impl From<&[f32]> for Lined {
    fn from(numbers: &[f32]) -> Self {
        let mut lined = Self::zeros(numbers.len());
        lined.copy_from_slice(numbers);
        lined
    }
}

impl Deref for Lined {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl DerefMut for Lined {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_at_a_line_whatever_its_length() {
        for len in [0, 1, 15, 16, 17, 100_003] {
            let numbers: Vec<f32> = (0..len).map(|i| i as f32).collect();
            let lined = Lined::from(&numbers[..]);
            assert_eq!(*lined, *numbers);
            assert!(lined.as_ptr().addr().is_multiple_of(size_of::<Line>()));
        }
    }
}
