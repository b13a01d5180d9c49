//! The foundation on whatever adapter this machine has, a software one included.

#![allow(clippy::print_stdout)]

use wgpu::BufferUsages;

use super::{Binding, Fault, Gpu, GpuOptions, Kernel, KernelSource, Read, adapters};
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
fn gpu() -> Option<Gpu> {
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
        "from",
        bytes,
        BufferUsages::STORAGE | BufferUsages::COPY_DST,
    )?;
    let to = gpu.buffer("to", bytes, BufferUsages::STORAGE | BufferUsages::COPY_SRC)?;
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
    let error = gpu.buffer("a page", 100, usage).unwrap_err().to_string();
    assert!(
        error.contains("out of memory: a page of 112 bytes"),
        "{error}"
    );
    gpu.buffer("a page", 100, usage).unwrap();
    let huge = gpu.facts().buffer_bytes + 1;
    let error = gpu.buffer("a page", huge, usage).unwrap_err().to_string();
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
