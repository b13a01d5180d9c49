//! Kinds of numbers that are multiplied, as types: what their sums come to is known when compiling.

use super::{Form, Packed, Scale, Sending, WIDTH};
use crate::cpu::lanes::Lanes;

/// A kind of numbers.
pub(super) trait Number {
    /// Whether a form's numbers are of this kind.
    fn is_of(form: Form) -> bool;

    /// What a register's columns of a block have in common, whatever the row.
    type Shared<V: Lanes>: Copy;

    /// That of the columns from `at` on.
    ///
    /// # Safety
    ///
    /// As for [`Sending::send`].
    unsafe fn shared<V: Lanes>(of: &Sending<'_>, at: usize) -> Self::Shared<V>;

    /// The numbers of row `r` of a block in those columns: sums and bias.
    ///
    /// # Safety
    ///
    /// As for [`Sending::send`].
    unsafe fn value<V: Lanes>(of: &Sending<'_>, r: usize, at: usize, shared: Self::Shared<V>) -> V;
}

/// bf16, whole or split; sums are f32.
pub(super) enum Bf16 {}

/// int8; sums are bits of i32.
pub(super) enum Int8 {}

/// int16; sums are f32.
pub(super) enum Int16 {}

/// A register's numbers, one a column, of a block from column `at` on.
///
/// # Safety
///
/// As for [`Number::shared`]; there is a number for each column of all panels.
#[inline(always)]
unsafe fn load<V: Lanes>(of: &Sending<'_>, numbers: &[f32], at: usize) -> V {
    // SAFETY: the caller's promise.
    unsafe { V::load(numbers.as_ptr().add(of.unit * WIDTH + at)) }
}

impl Number for Bf16 {
    /// The bias.
    type Shared<V: Lanes> = V;

    fn is_of(form: Form) -> bool {
        matches!(form, Form::Bf16 | Form::Bf16x3)
    }

    #[inline(always)]
    unsafe fn shared<V: Lanes>(of: &Sending<'_>, at: usize) -> V {
        // SAFETY: the caller's promise; the bias is that of whole panels.
        unsafe { load(of, &of.packed.bias, at) }
    }

    #[inline(always)]
    unsafe fn value<V: Lanes>(of: &Sending<'_>, r: usize, at: usize, bias: V) -> V {
        // SAFETY: the caller's promise; sums are those of whole panels.
        unsafe { V::load(of.sums(r, at)).add(bias) }
    }
}

impl Number for Int8 {
    /// The bias, what the base of a row is multiplied by, and what sums are.
    type Shared<V: Lanes> = [V; 3];

    fn is_of(form: Form) -> bool {
        form == Form::Int8
    }

    #[inline(always)]
    unsafe fn shared<V: Lanes>(of: &Sending<'_>, at: usize) -> [V; 3] {
        let Packed {
            bias, sum, scale, ..
        } = of.packed;
        // SAFETY: the caller's promise; all are those of whole panels.
        unsafe { [load(of, bias, at), load(of, sum, at), load(of, scale, at)] }
    }

    #[inline(always)]
    unsafe fn value<V: Lanes>(
        of: &Sending<'_>,
        r: usize,
        at: usize,
        [bias, sum, scale]: [V; 3],
    ) -> V {
        // SAFETY: the caller's promise; sums are those of whole panels.
        unsafe {
            let Scale { step, base, .. } = *of.left.scales.add(of.row + r);
            let products = V::load_i32(of.sums(r, at).cast());
            let base = sum.mla(V::splat(base), bias);
            products.mla(scale.mul(V::splat(step)), base)
        }
    }
}

impl Number for Int16 {
    /// The bias, and what sums are multiplied by.
    type Shared<V: Lanes> = [V; 2];

    fn is_of(form: Form) -> bool {
        form == Form::Int16
    }

    #[inline(always)]
    unsafe fn shared<V: Lanes>(of: &Sending<'_>, at: usize) -> [V; 2] {
        // SAFETY: the caller's promise; both are those of whole panels.
        unsafe {
            [
                load(of, &of.packed.bias, at),
                load(of, &of.packed.scale, at),
            ]
        }
    }

    #[inline(always)]
    unsafe fn value<V: Lanes>(of: &Sending<'_>, r: usize, at: usize, [bias, scale]: [V; 2]) -> V {
        // SAFETY: the caller's promise; sums are those of whole panels.
        unsafe {
            let Scale { step, .. } = *of.left.scales.add(of.row + r);
            V::load(of.sums(r, at)).mla(scale.mul(V::splat(step)), bias)
        }
    }
}
