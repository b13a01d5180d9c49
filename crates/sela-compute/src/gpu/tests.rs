//! The foundation on whatever adapter this machine has, a software one included.

#![allow(clippy::print_stdout)]

use wgpu::BufferUsages;

use super::{Binding, Fault, Gpu, GpuOptions, Kernel, KernelSource, Purpose, Read, adapters};
use crate::error::Error;

const DOUBLE: &str = "
var<immediate> factor: u32;
@group(0) @binding(0) var<storage, read> input: array<u32>;
@group(0) @binding(1) var<storage, read_write> output: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < arrayLength(&output) { output[id.x] = input[id.x] * factor; }
}";

/// The first adapter, opened; `None`, said aloud, where there is none.
pub(crate) fn gpu() -> Option<Gpu> {
    let Some(facts) = adapters().into_iter().next() else {
        println!("skipped: no GPU");
        return None;
    };
    println!(
        "gpu:{} {} ({}, {})",
        facts.index, facts.name, facts.backend, facts.kind
    );
    Some(Gpu::open(facts.index, GpuOptions::default()).unwrap())
}

fn double(gpu: &Gpu) -> Result<Kernel, Error> {
    gpu.kernel(&KernelSource {
        label: "double",
        wgsl: DOUBLE,
        entry: "main",
        bindings: &[Binding::Read, Binding::ReadWrite],
        immediate_bytes: 4,
        unchecked: false,
    })
}

/// Multiplies the numbers 0..n on the device.
fn multiply(gpu: &Gpu, kernel: &Kernel, n: u32, factor: u32) -> Result<Vec<u32>, Error> {
    let bytes = u64::from(n) * 4;
    let from = gpu.buffer(
        Purpose::Work,
        "from",
        bytes,
        BufferUsages::STORAGE | BufferUsages::COPY_DST,
    )?;
    let to = gpu.buffer(
        Purpose::Work,
        "to",
        bytes,
        BufferUsages::STORAGE | BufferUsages::COPY_SRC,
    )?;
    let numbers: Vec<u32> = (0..n).collect();
    gpu.queue()
        .write_buffer(&from, 0, bytemuck::cast_slice(&numbers));
    let bound = kernel.bind(
        gpu,
        &[
            from.as_entire_buffer_binding(),
            to.as_entire_buffer_binding(),
        ],
    )?;
    let mut recording = gpu.record("double")?;
    let pass = recording.pass();
    pass.set_pipeline(&kernel.pipeline);
    pass.set_bind_group(0, &bound, &[]);
    pass.set_immediates(0, &factor.to_le_bytes());
    pass.dispatch_workgroups(n.div_ceil(64), 1, 1);
    let read = Read {
        buffer: &to,
        offset: 0,
        bytes,
    };
    let pending = recording.submit(&[read])?;
    pending.wait(bytemuck::pod_collect_to_vec)
}

#[test]
fn a_submission_gives_back_what_it_computed() {
    let Some(gpu) = gpu() else { return };
    let kernel = double(&gpu).unwrap();
    for n in [1, 63, 64, 65, 5000] {
        let expected: Vec<u32> = (0..n).map(|i| i * 3).collect();
        assert_eq!(multiply(&gpu, &kernel, n, 3).unwrap(), expected);
    }
}

#[test]
fn many_threads_share_a_device() {
    let Some(gpu) = gpu() else { return };
    let kernel = double(&gpu).unwrap();
    std::thread::scope(|scope| {
        for factor in 1..6u32 {
            let (gpu, kernel) = (&gpu, &kernel);
            scope.spawn(move || {
                for round in 0..20 {
                    let n = 100 * factor + round;
                    let found = multiply(gpu, kernel, n, factor).unwrap();
                    assert!((0..n).zip(&found).all(|(i, x)| i * factor == *x));
                }
            });
        }
    });
}

#[test]
fn a_submission_cut_short_is_noticed() {
    let Some(gpu) = gpu() else { return };
    let kernel = double(&gpu).unwrap();
    gpu.faults().arm(Fault::Unfinished, 1);
    let error = multiply(&gpu, &kernel, 10, 2).unwrap_err();
    assert!(matches!(error, Error::Device { .. }));
    assert!(
        error.to_string().ends_with("did not run to its end"),
        "{error}"
    );
    assert_eq!(multiply(&gpu, &kernel, 2, 7).unwrap(), [0, 7]);
}

#[test]
fn a_lost_device_is_an_error_and_stays_lost() {
    let Some(gpu) = gpu() else { return };
    let kernel = double(&gpu).unwrap();
    gpu.faults().arm(Fault::Lost, 1);
    for _ in 0..2 {
        let error = multiply(&gpu, &kernel, 10, 2).unwrap_err();
        assert!(matches!(error, Error::Device { .. }), "{error}");
        assert!(gpu.is_lost());
    }
    assert!(double(&gpu).is_err());
    // The adapter is still there for who opens it anew.
    let again = Gpu::open(gpu.facts().index, GpuOptions::default()).unwrap();
    let kernel = double(&again).unwrap();
    assert_eq!(multiply(&again, &kernel, 2, 7).unwrap(), [0, 7]);
}

#[test]
fn want_of_memory_and_bad_shaders_are_errors() {
    let Some(gpu) = gpu() else { return };
    gpu.faults().arm(Fault::OutOfMemory, 1);
    let usage = BufferUsages::STORAGE;
    let error = gpu
        .buffer(Purpose::Rows, "a page", 100, usage)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("out of memory: a page of 112 bytes"),
        "{error}"
    );
    gpu.buffer(Purpose::Rows, "a page", 100, usage).unwrap();
    let huge = gpu.facts().buffer_bytes + 1;
    let error = gpu
        .buffer(Purpose::Rows, "a page", huge, usage)
        .unwrap_err()
        .to_string();
    assert!(error.contains("a page of"), "{error}");
    let bad = KernelSource {
        label: "bad",
        wgsl: "fn main() { nothing }",
        entry: "main",
        bindings: &[],
        immediate_bytes: 0,
        unchecked: false,
    };
    assert!(matches!(gpu.kernel(&bad), Err(Error::Device { .. })));
}

#[test]
fn an_adapter_that_is_not_there_is_named() {
    let error = Gpu::open(99, GpuOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "this machine has no GPU number 99");
}

#[test]
fn buffers_are_counted_until_their_last_owner_drops_them() {
    let Some(gpu) = gpu() else { return };
    let before = gpu.memory();
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
    let weights = gpu.buffer(Purpose::Weights, "w", 1_000, usage).unwrap();
    let rows = gpu.buffer(Purpose::Rows, "r", 4_096, usage).unwrap();
    let same = rows.clone();
    let now = gpu.memory();
    assert_eq!((now.weights, now.rows), (1_008, 4_096));
    assert_eq!(now.total, before.total + 5_104);
    let parts = now.weights + now.work + now.rows + now.search + now.transfer + now.other;
    assert_eq!(parts, now.total);
    drop(rows);
    assert_eq!(gpu.memory().rows, 4_096, "a clone is left");
    drop((same, weights));
    let after = gpu.memory();
    assert_eq!((after.weights, after.rows), (0, 0));
    assert_eq!((after.total, after.peak), (before.total, now.total));
}

#[test]
fn what_is_written_is_counted_until_a_submission_has_taken_it_along() {
    let Some(gpu) = gpu() else { return };
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
    let to = gpu.buffer(Purpose::Rows, "to", 1 << 20, usage).unwrap();
    let empty = || gpu.record("nothing").unwrap().submit(&[]).unwrap();
    empty().wait(|_| ()).unwrap();
    // Buffers to read back are kept.
    let idle = gpu.memory().transfer;
    gpu.write(&to, 0, &vec![1; 1 << 20]).unwrap();
    assert_eq!(gpu.memory().transfer, idle + (1 << 20));
    let pending = empty();
    assert_eq!(gpu.memory().transfer, idle + (1 << 20), "not done yet");
    pending.wait(|_| ()).unwrap();
    assert_eq!(gpu.memory().transfer, idle);
}

#[test]
fn much_that_is_written_at_once_goes_in_portions() {
    let Some(gpu) = gpu() else { return };
    let (size, most) = (150u64 << 20, 64u64 << 20);
    let usage = BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
    let to = gpu.buffer(Purpose::Weights, "to", size, usage).unwrap();
    let bytes: Vec<u8> = (0..size).map(|i| (i / 1_000) as u8).collect();
    gpu.write_much(&to, &bytes).unwrap();
    let beside = gpu.memory().peak - size;
    assert!((most..most + (1 << 20)).contains(&beside), "{beside} bytes");
    // All of it is there, across the borders of portions.
    for at in [0, most - 512, most, size - 1_024] {
        let read = Read {
            buffer: &to,
            offset: at,
            bytes: 1_024,
        };
        let pending = gpu.record("read").unwrap().submit(&[read]).unwrap();
        let found = pending.wait(<[u8]>::to_vec).unwrap();
        assert_eq!(found, bytes[at as usize..][..1_024], "from {at}");
    }
}

#[test]
fn few_bytes_of_buffers_to_read_back_are_kept() {
    let Some(gpu) = gpu() else { return };
    let usage = BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
    let bytes = 40 << 20;
    let from = gpu.buffer(Purpose::Other, "from", bytes, usage).unwrap();
    let read = || {
        let read = Read {
            buffer: &from,
            offset: 0,
            bytes,
        };
        gpu.record("read").unwrap().submit(&[read]).unwrap()
    };
    let both = [read(), read()];
    assert!(gpu.memory().transfer > 2 * bytes);
    for pending in both {
        pending.wait(|_| ()).unwrap();
    }
    assert!(gpu.memory().transfer <= 64 << 20, "{:?}", gpu.memory());
}
