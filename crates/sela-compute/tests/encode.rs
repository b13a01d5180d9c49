//! The encoder's kernels against the reference, for every instruction set and arithmetic.
#![allow(clippy::print_stdout)] // They say what ran and what this CPU lacks.

use sela_compute::{Arithmetic, Inventory, Isa, scan_self_test, self_test};

/// Says which instruction sets run here and which this CPU lacks.
fn available() -> Vec<Isa> {
    let found = Isa::available();
    for isa in [Isa::Plain, Isa::Avx2, Isa::Avx512, Isa::Neon] {
        let state = if found.contains(&isa) {
            "runs"
        } else {
            "skipped: this CPU lacks it"
        };
        println!("instruction set {isa}: {state}");
    }
    found
}

#[test]
fn every_instruction_set_meets_the_reference_in_f32() {
    for isa in available() {
        self_test(isa, Arithmetic::F32).unwrap();
    }
}

#[test]
fn search_passes_its_self_test_on_every_instruction_set() {
    for isa in available() {
        scan_self_test(isa).unwrap();
    }
}

#[test]
fn bf16_meets_the_reference() {
    match Inventory::probe().cpu.bf16 {
        Some(unit) => println!("bf16 by {unit}"),
        None => println!("bf16 unit: skipped, this CPU lacks one; its emulation runs"),
    }
    for isa in available() {
        for arithmetic in [Arithmetic::Bf16, Arithmetic::Bf16x3] {
            self_test(isa, arithmetic).unwrap();
        }
    }
}

#[test]
fn int8_and_int16_meet_the_reference() {
    match Inventory::probe().cpu.int8.as_slice() {
        [] => println!("int8 unit: skipped, this CPU lacks one; its emulation runs"),
        units => units.iter().for_each(|unit| println!("int8 by {unit}")),
    }
    match Inventory::probe().cpu.int16.as_slice() {
        [] => println!("int16 unit: skipped, this CPU lacks one; its emulation runs"),
        units => units.iter().for_each(|unit| println!("int16 by {unit}")),
    }
    for isa in available() {
        self_test(isa, Arithmetic::Int8).unwrap();
        self_test(isa, Arithmetic::Int16).unwrap();
    }
}

#[test]
fn what_this_cpu_lacks_is_refused_by_name() {
    let here = Isa::available();
    for isa in [Isa::Avx512, Isa::Neon]
        .into_iter()
        .filter(|isa| !here.contains(isa))
    {
        let error = self_test(isa, Arithmetic::F32).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("this machine has no {isa} instructions")
        );
    }
}
