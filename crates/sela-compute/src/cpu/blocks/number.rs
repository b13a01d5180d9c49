//! Kinds of numbers that are multiplied, as types: what their sums come to is known when compiling.

use super::{Form, Scale, Sending, WIDTH};
use crate::cpu::lanes::Lanes;

/// A kind of numbers.
pub(super) trait Number {
    /// Whether a form's numbers are of this kind.
    fn is_of(form: Form) -> bool;

    /// A register's numbers of row `r` of a block from column `at` of its panel on: sums and bias.
    ///
    /// # Safety
    ///
    /// As for [`Sending::send`].
    unsafe fn value<V: Lanes>(of: &Sending<'_>, r: usize, at: usize) -> V;
}

/// bf16, whole or split; sums are f32.
pub(super) enum Bf16 {}

/// int8; sums are bits of i32.
pub(super) enum Int8 {}

/// int16; sums are f32.
pub(super) enum Int16 {}

/// What sums are multiplied by: the scale of the row times those of the outputs.
///
/// # Safety
///
/// As for [`Number::value`].
#[inline(always)]
unsafe fn scale<V: Lanes>(of: &Sending<'_>, step: f32, column: usize) -> V {
    // SAFETY: the caller's promise; scales are those of whole panels.
    unsafe { V::load(of.packed.scale.as_ptr().add(column)).mul(V::splat(step)) }
}

impl Number for Bf16 {
    fn is_of(form: Form) -> bool {
        matches!(form, Form::Bf16 | Form::Bf16x3)
    }

    #[inline(always)]
    unsafe fn value<V: Lanes>(of: &Sending<'_>, r: usize, at: usize) -> V {
        let sums = &of.sums.0[r];
        // SAFETY: the caller's promise; bias and sums are those of whole panels.
        unsafe {
            let bias = V::load(of.packed.bias.as_ptr().add(of.unit * WIDTH + at));
            V::load(sums.as_ptr().add(at)).add(bias)
        }
    }
}

impl Number for Int8 {
    fn is_of(form: Form) -> bool {
        form == Form::Int8
    }

    #[inline(always)]
    unsafe fn value<V: Lanes>(of: &Sending<'_>, r: usize, at: usize) -> V {
        let (packed, column, sums) = (of.packed, of.unit * WIDTH + at, &of.sums.0[r]);
        // SAFETY: the caller's promise; bias, scales and sums are those of whole panels.
        unsafe {
            let Scale { step, least } = *of.left.scales.add(of.row + r);
            let bias = V::load(packed.bias.as_ptr().add(column));
            let sum = V::load(packed.sum.as_ptr().add(column));
            let products = V::load_i32(sums.as_ptr().add(at).cast());
            let least = sum.mla(V::splat(least), bias);
            products.mla(scale(of, step, column), least)
        }
    }
}

impl Number for Int16 {
    fn is_of(form: Form) -> bool {
        form == Form::Int16
    }

    #[inline(always)]
    unsafe fn value<V: Lanes>(of: &Sending<'_>, r: usize, at: usize) -> V {
        let (column, sums) = (of.unit * WIDTH + at, &of.sums.0[r]);
        // SAFETY: the caller's promise; bias, scales and sums are those of whole panels.
        unsafe {
            let Scale { step, .. } = *of.left.scales.add(of.row + r);
            let bias = V::load(of.packed.bias.as_ptr().add(column));
            V::load(sums.as_ptr().add(at)).mla(scale(of, step, column), bias)
        }
    }
}
