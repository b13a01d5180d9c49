//! Weights of a linear layer, packed once as they are read.

use std::ops::Range;

use super::left::{CHUNK, Form, LEFT_MOST, Left, Line, Midway, Scale, left_over, rounded};
use super::{Unit, WIDTH};
use crate::cpu::lanes::INTEGER;

/// Lines of a tile.
pub(super) const TILE_LINES: usize = 16;
/// Lines of a step of a panel: those of two tiles.
pub(super) const STEP_LINES: usize = 2 * TILE_LINES;

/// Weights of a linear layer, in panels of 32 outputs.
pub(crate) struct Packed {
    /// Upper halves, or all there is.
    pub(super) high: Vec<Line>,
    /// What the upper halves leave, if split.
    pub(super) low: Vec<Line>,
    /// What follows is of whole panels, zeros behind the last output.
    pub(super) bias: Vec<f32>,
    /// Of codes: what one of each output stands for.
    pub(super) scale: Vec<f32>,
    /// Of int8: that times the sum of its codes, which is what the base of a row of the left side is
    /// multiplied by.
    pub(super) sum: Vec<f32>,
    /// Of int8: how far the outputs of each panel go.
    reach: Vec<Reach>,
    pub(crate) unit: Unit,
    pub(super) form: Form,
    pub(super) inputs: usize,
    pub(crate) outputs: usize,
}

/// How far outputs go over rows of a left side of int8.
#[derive(Clone, Copy, Default)]
pub(super) struct Reach {
    /// The largest Euclidean length of what an output's codes stand for.
    length: f32,
    /// The largest magnitude of a bias.
    bias: f32,
}

impl Reach {
    fn include(&mut self, other: Self) {
        self.length = self.length.max(other.length);
        self.bias = self.bias.max(other.bias);
    }

    /// No less than any output of a row: by the inequality of Cauchy and Schwarz none is beyond the length of the
    /// row times that of its weights, and the bias.
    #[inline(always)]
    fn of(self, row: Scale) -> f32 {
        row.length * self.length + self.bias
    }
}

impl Packed {
    /// Packs `weight` (`outputs` x `inputs`) and `bias`.
    pub(crate) fn pack(
        weight: &[f32],
        bias: &[f32],
        inputs: usize,
        form: Form,
        unit: Unit,
    ) -> Self {
        let outputs = bias.len();
        assert_eq!(
            weight.len(),
            outputs * inputs,
            "weight and bias of one layer"
        );
        let padded = outputs.next_multiple_of(WIDTH);
        let mut bias = bias.to_vec();
        bias.resize(padded, 0.0);
        let mut packed = Self {
            high: Vec::new(),
            low: Vec::new(),
            bias,
            scale: Vec::new(),
            sum: Vec::new(),
            reach: Vec::new(),
            unit,
            form,
            inputs,
            outputs,
        };
        match form {
            Form::Bf16 => packed.high = packed.lines(weight, |x| u32::from(rounded(x))),
            Form::Bf16x3 => {
                packed.high = packed.lines(weight, |x| u32::from(rounded(x)));
                packed.low = packed.lines(weight, |x| u32::from(left_over(x)));
            }
            Form::Int8 => packed.quantize(weight),
            Form::Int16 => packed.quantize_wide(weight),
        }
        packed
    }

    /// Packs weights as codes.
    fn quantize(&mut self, weight: &[f32]) {
        let padded = self.bias.len();
        (self.scale, self.sum) = (vec![0.0; padded], vec![0.0; padded]);
        self.reach = vec![Reach::default(); padded / WIDTH];
        let mut codes = Vec::with_capacity(weight.len());
        for (output, weight) in weight.chunks_exact(self.inputs).enumerate() {
            let per = per_step(weight);
            codes.extend(weight.iter().map(|&x| code(x, per)));
            let own = &codes[output * self.inputs..];
            let sum: i32 = own.iter().map(|&code| i32::from(code)).sum();
            let squares = own.iter().map(|&code| f64::from(code) * f64::from(code));
            let length = squares.sum::<f64>().sqrt() as f32;
            self.scale[output] = if per > 0.0 { 1.0 / per } else { 0.0 };
            self.sum[output] = self.scale[output] * sum as f32;
            self.reach[output / WIDTH].include(Reach {
                length: self.scale[output] * length,
                bias: self.bias[output].abs(),
            });
        }
        self.high = self.lines(&codes, |code| u32::from(code as u8));
    }

    /// Packs weights as codes of 16 bits.
    fn quantize_wide(&mut self, weight: &[f32]) {
        self.scale = vec![0.0; self.bias.len()];
        let mut codes = Vec::with_capacity(weight.len());
        for (output, weight) in weight.chunks_exact(self.inputs).enumerate() {
            let per = per_step_wide(weight);
            codes.extend(weight.iter().map(|&x| integer(x * per) as u16));
            self.scale[output] = if per > 0.0 { 1.0 / per } else { 0.0 };
        }
        self.high = self.lines(&codes, u32::from);
    }

    /// Packs all weights, `part` of each. Generic, so that the rounding is not called but inlined.
    fn lines<T: Copy>(&self, weight: &[T], part: impl Fn(T) -> u32 + Copy) -> Vec<Line> {
        let (inputs, outputs, form) = (self.inputs, self.outputs, self.form);
        let steps = form.steps(inputs);
        let mut lines = vec![Line::default(); outputs.div_ceil(WIDTH) * steps * STEP_LINES];
        for (panel, lines) in lines.chunks_exact_mut(steps * STEP_LINES).enumerate() {
            for (tile, first) in [0, 16].map(|at| panel * WIDTH + at).into_iter().enumerate() {
                let rows = outputs.saturating_sub(first).min(16);
                let rows = &weight[first.min(outputs) * inputs..][..rows * inputs];
                let lines = &mut lines[tile * TILE_LINES..];
                match form {
                    Form::Bf16 | Form::Bf16x3 | Form::Int16 => {
                        pack_tile::<2, { Form::Bf16.apart() }, _>(rows, inputs, part, lines);
                    }
                    Form::Int8 => {
                        pack_tile::<4, { Form::Int8.apart() }, _>(rows, inputs, part, lines);
                    }
                }
            }
        }
        lines
    }

    /// What a product reads of the weights once, at least.
    pub(crate) fn bytes(&self) -> [&[u8]; 2] {
        [&self.high, &self.low].map(|lines| bytemuck::cast_slice(lines))
    }

    /// What an output of a row, or its GELU, is as a code of 16 bits.
    #[inline(always)]
    pub(super) fn midway(&self, row: Scale, reach: Reach) -> Midway {
        Midway::up_to(reach.of(row))
    }

    /// The same of some panels' outputs of some rows of a left side, and of all between them.
    ///
    /// # Safety
    ///
    /// There are such rows, and they are rounded.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "attention by the units of x86")
    )]
    pub(crate) unsafe fn midway_of_rows(
        &self,
        panels: Range<usize>,
        left: Left,
        rows: Range<usize>,
    ) -> Midway {
        let reach = self.reach_of(panels);
        let (mut most, mut finite) = (0f32, 0.0);
        for row in rows {
            // SAFETY: the caller's promise.
            let own = reach.of(unsafe { *left.scales.add(row) });
            most = most.max(own);
            finite += own * 0.0;
        }
        Midway::up_to(most + finite)
    }

    /// How far the outputs of some panels go, or of all.
    pub(super) fn reach_of(&self, panels: Range<usize>) -> Reach {
        let mut all = Reach::default();
        self.reach[panels]
            .iter()
            .for_each(|&reach| all.include(reach));
        all
    }

    /// See [`Form::rounds_whole_rows`].
    pub(crate) fn rounds_whole_rows(&self) -> bool {
        self.form.rounds_whole_rows()
    }

    pub(crate) fn units(&self) -> usize {
        self.outputs.div_ceil(WIDTH)
    }

    /// Whether outputs that become a left side are codes of 16 bits on the way.
    pub(crate) fn has_midway(&self) -> bool {
        self.form == Form::Int8
    }

    /// Words of a row of outputs as codes of 16 bits.
    pub(crate) fn words(&self) -> usize {
        self.units() * WIDTH / 2
    }

    pub(crate) const fn unit_width(&self) -> usize {
        WIDTH
    }
}

/// Packs up to sixteen rows of weights, line by line, into the first half of each step: `N` weights of
/// each to a word, `APART` inputs apart.
fn pack_tile<const N: usize, const APART: usize, T: Copy>(
    rows: &[T],
    inputs: usize,
    part: impl Fn(T) -> u32,
    lines: &mut [Line],
) {
    for at in 0..inputs.div_ceil(N * APART) * APART {
        let line = &mut lines[at / TILE_LINES * STEP_LINES + at % TILE_LINES];
        let first = at / APART * N * APART + at % APART;
        for (row, word) in rows.chunks_exact(inputs).zip(&mut line.0) {
            *word = 0;
            let rest = row.get(first..).unwrap_or_default();
            for (i, &x) in rest.iter().step_by(APART).take(N).enumerate() {
                *word |= part(x) << (32 / N * i);
            }
        }
    }
}

/// Codes of an output's weights to a unit: 127 to the largest; 0 if all are zero.
fn per_step(weight: &[f32]) -> f32 {
    let largest = weight.iter().fold(0f32, |most, x| most.max(x.abs()));
    if largest > 0.0 { 127.0 / largest } else { 0.0 }
}

/// The same of 16 bits: as many as 32 bits hold the sums of, whatever the left side is; 0 if there are no
/// weights but zeros, or too small ones.
pub(super) fn per_step_wide(weight: &[f32]) -> f32 {
    const INPUTS: usize = CHUNK * Form::Int16.depth();
    let largest = weight.iter().fold(0f32, |most, x| most.max(x.abs()));
    let sum = |part: &[f32]| part.iter().map(|x| f64::from(x.abs())).sum::<f64>();
    let sum = weight.chunks(INPUTS).map(sum).fold(0.0, f64::max);
    // Each code may be half of one larger than its weight.
    let room = f64::from(i32::MAX) / f64::from(LEFT_MOST) - 0.5 * INPUTS as f64;
    // A little less, so that no rounding of these three lines matters.
    let per = (room / sum).min(32_766.0 / f64::from(largest)) as f32 * (1.0 - 1e-6);
    if per.is_finite() { per } else { 0.0 }
}

/// The code of a weight.
#[inline(always)]
fn code(x: f32, per: f32) -> i8 {
    // Clamped, should 127 / largest have been rounded up.
    integer((x * per).clamp(-127.0, 127.0)) as i8
}

/// The nearest integer, ties to even, of a number of few digits.
#[inline(always)]
fn integer(x: f32) -> i32 {
    // The library's rounding would be a call a weight.
    (x + INTEGER).to_bits() as i32 - INTEGER.to_bits() as i32
}
