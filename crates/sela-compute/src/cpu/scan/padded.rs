//! Vectors laid out for the kernels.

use crate::reference::LANES;

/// Half a cache line.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(32))]
struct Half([f32; 8]);

/// f32 vectors, each filled up with zeros to a multiple of sixteen numbers.
///
/// Neighbours begin in opposite halves of a cache line: kernels walk several at once, and some
/// CPUs serve two loads in a cycle only when they are from different halves.
pub(super) struct Padded {
    halves: Vec<Half>,
    /// Halves from one vector to the next: odd.
    stride: usize,
}

impl Padded {
    /// `count` vectors of zeros.
    pub(super) fn new(dim: usize, count: usize) -> Self {
        let stride = dim.div_ceil(LANES) * 2 + 1;
        Self {
            halves: vec![Half([0.0; 8]); stride * count],
            stride,
        }
    }

    /// A vector with the zeros after it.
    pub(super) fn get(&self, i: usize) -> &[f32] {
        bytemuck::cast_slice(&self.halves[i * self.stride..][..self.stride - 1])
    }

    /// A vector with the zeros after it.
    pub(super) fn get_mut(&mut self, i: usize) -> &mut [f32] {
        bytemuck::cast_slice_mut(&mut self.halves[i * self.stride..][..self.stride - 1])
    }
}
