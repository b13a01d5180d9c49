//! bf16 matrix products, by numkong's run-time choice among AMX, SME, AVX-512 BF16, NEON and
//! emulation.

use std::cell::Cell;
use std::ops::Range;

use numkong::Dots;
use numkong::capabilities::{self, cap};
use numkong::types::bf16;

use super::gemm::Rows;
use crate::inventory::Bf16Unit;

/// Columns of a unit of work: wide enough for the library's tiles, narrow enough to share out.
const UNIT: usize = 64;

/// The unit that numkong would use on this CPU.
pub(crate) fn unit() -> Option<Bf16Unit> {
    let found = capabilities::available();
    [
        (cap::SAPPHIREAMX, Bf16Unit::Amx),
        (cap::SME, Bf16Unit::Sme),
        (cap::GENOA, Bf16Unit::Avx512Bf16),
        (cap::NEONBFDOT, Bf16Unit::NeonBf16),
    ]
    .into_iter()
    .find(|(bit, _)| found & bit != 0)
    .map(|(_, unit)| unit)
}

/// Allows the calling thread to use AMX, once a thread.
fn configure_thread() {
    thread_local!(static DONE: Cell<bool> = const { Cell::new(false) });
    if !DONE.replace(true) {
        capabilities::configure_thread();
    }
}

/// How f32 numbers become bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    /// Rounded.
    One,
    /// `x = high + low` up to 2^-16 relative; the product is `high high + high low + low high`,
    /// computed as one product over three times the depth.
    Three,
}

impl Split {
    fn factor(self) -> usize {
        match self {
            Self::One => 1,
            Self::Three => 3,
        }
    }
}

/// Weights of a linear layer in numkong's layout, in units of 64 columns.
pub(crate) struct Packed {
    units: Vec<Vec<u8>>,
    bias: Vec<f32>,
    split: Split,
    inputs: usize,
    pub(crate) outputs: usize,
}

fn high_low(x: f32) -> (half::bf16, half::bf16) {
    let high = half::bf16::from_f32(x);
    (high, half::bf16::from_f32(x - high.to_f32()))
}

impl Packed {
    /// Packs `weight` (`outputs` x `inputs`) and `bias`.
    pub(crate) fn pack(weight: &[f32], bias: &[f32], inputs: usize, split: Split) -> Self {
        let outputs = bias.len();
        assert_eq!(
            weight.len(),
            outputs * inputs,
            "weight and bias of one layer"
        );
        configure_thread();
        let depth = inputs * split.factor();
        let units = weight.chunks(UNIT * inputs).map(|rows| {
            let mut wide = Vec::with_capacity(UNIT * depth);
            for row in rows.chunks_exact(inputs) {
                let parts = || row.iter().map(|&x| high_low(x));
                wide.extend(parts().map(|(high, _)| bf16(high.to_bits())));
                if split == Split::Three {
                    wide.extend(parts().map(|(_, low)| bf16(low.to_bits())));
                    wide.extend(parts().map(|(high, _)| bf16(high.to_bits())));
                }
            }
            let columns = rows.len() / inputs;
            let mut packed = vec![0; bf16::dots_packed_size(columns, depth)];
            // SAFETY: `wide` holds `columns` rows of `depth` numbers, `packed` is as large as the
            // library asks.
            unsafe {
                bf16::dots_pack(
                    wide.as_ptr(),
                    columns,
                    depth,
                    depth * 2,
                    packed.as_mut_ptr(),
                );
            };
            packed
        });
        Self {
            units: units.collect(),
            bias: bias.to_vec(),
            split,
            inputs,
            outputs,
        }
    }

    pub(crate) fn units(&self) -> usize {
        self.units.len()
    }

    pub(crate) const fn unit(&self) -> usize {
        UNIT
    }

    /// `c (+)= a W^T + b` over `rows` rows and the columns of `units`.
    ///
    /// # Safety
    ///
    /// `a` holds `rows` rows of the layer's inputs and `c` `rows` rows of whole units; nothing
    /// else touches these columns of `c` meanwhile.
    pub(crate) unsafe fn apply(
        &self,
        rows: usize,
        a: Rows<*const f32>,
        units: Range<usize>,
        c: Rows<*mut f32>,
        keep: bool,
    ) {
        thread_local!(static BUFFERS: Cell<(Vec<bf16>, Vec<f32>)> = Cell::default());
        if units.is_empty() || rows == 0 {
            return;
        }
        configure_thread();
        let depth = self.inputs * self.split.factor();
        let (mut left, mut sums) = BUFFERS.take();
        left.clear();
        for r in 0..rows {
            // SAFETY: the caller's promise.
            let row = unsafe { std::slice::from_raw_parts(a.at.add(r * a.stride), self.inputs) };
            let parts = || row.iter().map(|&x| high_low(x));
            left.extend(parts().map(|(high, _)| bf16(high.to_bits())));
            if self.split == Split::Three {
                left.extend(parts().map(|(high, _)| bf16(high.to_bits())));
                left.extend(parts().map(|(_, low)| bf16(low.to_bits())));
            }
        }
        sums.resize(rows * UNIT, 0.0);
        for unit in units {
            let columns = UNIT.min(self.outputs - unit * UNIT);
            // SAFETY: `left` holds `rows` rows of `depth`, the unit was packed for `columns` and
            // `depth`, `sums` holds `rows` rows of UNIT, and `c` is the caller's promise.
            unsafe {
                bf16::dots_packed(
                    left.as_ptr(),
                    self.units[unit].as_ptr(),
                    sums.as_mut_ptr(),
                    rows,
                    columns,
                    depth,
                    depth * 2,
                    UNIT * 4,
                );
                for r in 0..rows {
                    let to = c.at.add(r * c.stride + unit * UNIT);
                    let to = std::slice::from_raw_parts_mut(to, columns);
                    let bias = &self.bias[unit * UNIT..][..columns];
                    for ((x, sum), b) in to.iter_mut().zip(&sums[r * UNIT..]).zip(bias) {
                        *x = if keep { *x + (sum + b) } else { sum + b };
                    }
                }
            }
        }
        BUFFERS.set((left, sums));
    }
}
