//! A linear layer in the layout of the arithmetic that computes it.

use std::ops::Range;

use super::blocks::{Columns, Form, How, Job, Left, Midway, Output, Packed, Steps, Unit};
use super::gemm::{Panels, Rows};
use super::kernels::Kernels;
use crate::encode::LinearTensors;
use crate::error::Error;
use crate::plan::Arithmetic;

/// Weights of one or several linear layers over the same input, side by side.
pub(crate) enum Linear {
    /// f32 panels.
    F32(Panels),
    /// bf16, whole or split, int8 or int16.
    Blocks(Packed),
}

/// Checks the shapes of a layer and widens it to f32: weights and bias.
fn widen(
    tensors: &LinearTensors,
    inputs: usize,
    what: &str,
) -> Result<(Vec<f32>, Vec<f32>), Error> {
    let [outputs, found] = tensors.weight.shape();
    let bias: usize = tensors.bias.shape().iter().product();
    if found != inputs || bias != outputs {
        return Err(Error::Shape {
            what: format!("{what} weight"),
            expected: inputs,
            found,
        });
    }
    let (weight, bias) = (tensors.weight.to_f32(), tensors.bias.to_f32());
    for (numbers, part) in [(&weight, "weight"), (&bias, "bias")] {
        if let Some(position) = numbers.iter().position(|x| !x.is_finite()) {
            let what = format!("{what} {part}");
            return Err(Error::NotFinite {
                what,
                position,
                value: numbers[position],
            });
        }
    }
    Ok((weight, bias))
}

impl Linear {
    /// Packs `layers`, each with its name, one after the other.
    pub(crate) fn new(
        kernels: &Kernels,
        arithmetic: Arithmetic,
        inputs: usize,
        layers: &[(&str, &LinearTensors)],
    ) -> Result<Self, Error> {
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for (name, layer) in layers {
            let (weight, bias) = widen(layer, inputs, name)?;
            weights.extend_from_slice(&weight);
            biases.extend_from_slice(&bias);
        }
        if arithmetic == Arithmetic::F16 {
            return Err(Error::Missing("f16 products on the CPU".into()));
        }
        let form = Form::of(arithmetic);
        if let Some(limit) = form.and_then(Form::inputs_max).filter(|&max| inputs > max) {
            return Err(Error::Limit {
                what: "number of inputs of an int8 layer",
                value: inputs,
                limit,
            });
        }
        Ok(match form {
            None => Self::F32(Panels::pack(&weights, &biases, inputs, kernels.width)),
            Some(form) => {
                let unit = Unit::of(kernels.isa, form);
                Self::Blocks(Packed::pack(&weights, &biases, inputs, form, unit))
            }
        })
    }

    /// What a product reads of the weights once, at least.
    pub(crate) fn bytes(&self) -> [&[u8]; 2] {
        match self {
            Self::F32(panels) => [panels.bytes(), &[]],
            Self::Blocks(packed) => packed.bytes(),
        }
    }

    /// Numbers of an output row.
    pub(crate) fn outputs(&self) -> usize {
        match self {
            Self::F32(panels) => panels.outputs,
            Self::Blocks(packed) => packed.outputs,
        }
    }

    /// Units of columns that threads may share out.
    pub(crate) fn units(&self) -> usize {
        match self {
            Self::F32(panels) => panels.count(),
            Self::Blocks(packed) => packed.units(),
        }
    }

    /// Columns of a unit.
    pub(crate) fn unit(&self) -> usize {
        match self {
            Self::F32(panels) => panels.width,
            Self::Blocks(packed) => packed.unit_width(),
        }
    }

    /// `to (+)= x W^T + b` over `rows` rows and the columns of `units`.
    ///
    /// # Safety
    ///
    /// `x` holds `rows` rows of the layer's inputs and `to` `rows` rows of its outputs (a multiple
    /// of 16); nothing else touches these columns of `to` meanwhile.
    pub(crate) unsafe fn apply(
        &self,
        kernels: &Kernels,
        rows: usize,
        x: Input,
        units: Range<usize>,
        to: To,
    ) {
        // SAFETY: the caller's promise; the panels were packed for these kernels.
        unsafe {
            match self {
                Self::F32(panels) => {
                    let (c, keep) = match to {
                        To::Set(c) | To::Gelu(c, _) => (c, false),
                        To::Add(c) => (c, true),
                        To::Lines { .. } => unreachable!("f32 is not rounded"),
                    };
                    (kernels.product)(rows, x.rows, panels, units.clone(), c, keep);
                    if let To::Gelu(..) = to {
                        let columns = units.start * panels.width..units.end * panels.width;
                        for row in 0..rows {
                            let at = c.at.add(row * c.stride + columns.start);
                            (kernels.gelu)(at, columns.len());
                        }
                    }
                }
                Self::Blocks(packed) => packed.unit.run(&Job::Product {
                    packed,
                    rows,
                    left: x.lines,
                    units,
                    to: match to {
                        To::Set(to) => Output::Rows { to, how: How::Set },
                        To::Add(to) => Output::Rows { to, how: How::Add },
                        To::Gelu(to, _) if packed.has_midway() => Output::GeluCodes(Rows {
                            at: to.at.cast(),
                            stride: packed.words(),
                        }),
                        To::Gelu(to, _) if packed.rounds_whole_rows() => {
                            let how = How::Gelu;
                            Output::Rows { to, how }
                        }
                        To::Gelu(_, left) => Output::Gelu(left),
                        To::Lines { to, split } => Output::Lines { to, split },
                    },
                }),
            }
        }
    }
}

impl Linear {
    /// Rounds rows that [`To::Gelu`] made of this layer's outputs, where they were not rounded then: `x` is
    /// the left side that they were made from. Of int8 they are [`Packed::words`] words each, whatever the
    /// stride.
    ///
    /// # Safety
    ///
    /// The rows are there on all sides, nothing else touches those of `to`.
    pub(crate) unsafe fn round_gelu(
        &self,
        from: Rows<*const f32>,
        x: Left,
        rows: Range<usize>,
        to: Left,
    ) {
        let Self::Blocks(packed) = self else { return };
        let job = match packed.has_midway() {
            true => Job::Narrow {
                from: Rows {
                    at: from.at.cast(),
                    stride: packed.words(),
                },
                words: packed.words(),
                steps: Steps::Of(packed, x),
                rows,
                to,
            },
            false => Job::Round {
                from,
                inputs: packed.outputs,
                rows,
                to,
            },
        };
        // SAFETY: the caller's promise.
        unsafe { packed.unit.run(&job) };
    }

    /// What outputs of the units from one on over some rows of a left side, and all between them, are as codes of
    /// 16 bits; nothing where they are none on the way from one product to the next.
    ///
    /// # Safety
    ///
    /// There are such rows, and they are rounded.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "attention by the units of x86")
    )]
    pub(crate) unsafe fn midway(&self, unit: usize, x: Left, rows: Range<usize>) -> Option<Midway> {
        match self {
            // SAFETY: the caller's promise.
            Self::Blocks(packed) if packed.has_midway() => unsafe {
                Some(packed.midway_of_rows(unit..packed.units(), x, rows))
            },
            _ => None,
        }
    }
}

/// The left side of a product: rows of f32 and the same rounded, of which a layer reads those that
/// its arithmetic is about.
#[derive(Clone, Copy)]
pub(crate) struct Input {
    pub(crate) rows: Rows<*const f32>,
    pub(crate) lines: Left,
}

/// Where a product goes.
#[derive(Clone, Copy)]
pub(crate) enum To {
    /// In the place of what is there.
    Set(Rows<*mut f32>),
    /// On top of what is there.
    Add(Rows<*mut f32>),
    /// Through GELU, to be the left side of the next product: to one or the other. Where rows are
    /// rounded whole only, see [`Form::rounds_whole_rows`], to the first, for
    /// [`round_gelu`](Linear::round_gelu): of int8 in rows of [`Packed::words`] words, whatever the stride.
    Gelu(Rows<*mut f32>, Left),
    /// Rounded to bf16 or `split` in two parts of it, where products are of blocks.
    Lines { to: Columns, split: bool },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::Tensor;
    use crate::isa::Isa;

    #[test]
    fn more_inputs_than_a_sum_of_int8_holds_are_refused() {
        let kernels = Kernels::new(Isa::Plain).unwrap();
        let layer = |inputs: usize, arithmetic| {
            let layer = LinearTensors {
                weight: Tensor::from_f32(&vec![0.5; inputs], [1, inputs]).unwrap(),
                bias: Tensor::from_f32(&[0.0], [1, 1]).unwrap(),
            };
            Linear::new(kernels, arithmetic, inputs, &[("layer", &layer)]).err()
        };
        let most = Form::Int8.inputs_max().unwrap();
        assert!(layer(most, Arithmetic::Int8).is_none());
        assert!(layer(most + 1, Arithmetic::Bf16).is_none());
        let error = layer(most + 1, Arithmetic::Int8).unwrap();
        assert!(
            matches!(error, Error::Limit { value, limit, .. } if (value, limit) == (most + 1, most)),
            "{error}"
        );
    }
}
