//! Resident buffers and memory in place, on whatever adapters this machine has.
#![allow(clippy::print_stdout)] // They say what this machine lacks.

use wgpu::BufferUsages;

use super::*;
use crate::gpu::{Fault, GpuOptions, Read, adapters};

#[test]
fn a_resident_buffer_holds_zeros_then_what_it_is_given_and_may_fail() {
    let Some(facts) = adapters().into_iter().next() else {
        println!("skipped: no GPU");
        return;
    };
    let gpu = Gpu::open(facts.index, GpuOptions::default()).unwrap();
    let residency = Residency::new(&gpu);
    println!("residency on {}: kept {}", facts.name, residency.is_kept());
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
    let buffer = residency.buffer("slab", 4097, usage).unwrap();
    assert_eq!(buffer.size(), 4112);
    let read = |bytes: u64| {
        let read = Read {
            buffer: &buffer,
            offset: 0,
            bytes,
        };
        let pending = gpu.record("read").unwrap().submit(&[read]).unwrap();
        pending.wait(<[u8]>::to_vec).unwrap()
    };
    assert_eq!(read(4112), vec![0; 4112]);
    gpu.queue().write_buffer(&buffer, 4, &[7; 8]);
    assert_eq!(read(16), [0, 0, 0, 0, 7, 7, 7, 7, 7, 7, 7, 7, 0, 0, 0, 0]);
    residency.release(buffer);
    gpu.faults().arm(Fault::OutOfMemory, 1);
    let error = residency.buffer("slab", 64, usage).unwrap_err();
    assert!(error.to_string().contains("out of memory"), "{error}");
    assert!(residency.buffer("slab", 64, usage).is_ok());
}

#[test]
fn memory_is_read_in_place_where_it_can_be() {
    for facts in adapters() {
        let gpu = Gpu::open(facts.index, GpuOptions::default()).unwrap();
        match import_self_test(&gpu) {
            None => println!("{}: no import of memory", facts.name),
            Some(tested) => tested.unwrap(),
        }
    }
}
