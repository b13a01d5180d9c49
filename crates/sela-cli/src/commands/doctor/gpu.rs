//! GPUs in the doctor's report.

use sela::{DeviceChoice, Engine, GpuFacts, GpuProbe, MatrixShape, NoGpu};
use serde_json::{Value, json};

use super::{Ended, Test};
use crate::table;

/// The GPU in use as the router of searches sees it, if there is one.
pub(super) type InUse = sela::Result<Option<GpuProbe>>;

/// Opens the device; tests and measures it if it is a GPU.
pub(super) fn in_use(engine: &Engine, there: &[GpuFacts], tests: &mut Vec<Test>) -> InUse {
    let Some(facts) = engine.device()? else {
        let what = "GPU kernels".to_owned();
        match engine.no_gpu()? {
            // That is a fault, unlike a GPU that nobody asked for.
            Some(NoGpu {
                why, failed: true, ..
            }) => tests.push(Test {
                what,
                millis: None,
                ended: Ended::Fail(format!("everything is done by {why}")),
            }),
            // Where there is no GPU at all, that was told above.
            Some(NoGpu { why, .. }) if !there.is_empty() => {
                tests.push(Test::skipped(what, format!("everything is done by {why}")));
            }
            _ => {}
        }
        return Ok(None);
    };
    for test in engine.gpu_self_tests()? {
        tests.push(Test {
            what: format!("{} on gpu:{}", test.what, facts.index),
            millis: Some(test.took.as_secs_f64() * 1e3),
            ended: test.veto.map_or(Ended::Pass, Ended::Fail),
        });
    }
    // A GPU that cannot search may still embed: the engine goes on without it, and so does this.
    match engine.gpu_probe() {
        Ok(probe) => Ok(probe),
        Err(error) => {
            tests.push(Test {
                what: format!("search on gpu:{}", facts.index),
                millis: None,
                ended: Ended::Fail(error.to_string()),
            });
            Ok(None)
        }
    }
}

/// What is known of a GPU.
pub(super) fn gpu_rows(gpu: &GpuFacts) -> Vec<Vec<String>> {
    let or_none = |text: String| match text.is_empty() {
        true => "none".to_owned(),
        false => text,
    };
    let shapes: Vec<String> = gpu.matrix.iter().map(shape).collect();
    let mut rows = vec![
        ("interface", format!("{}, {}", gpu.backend, gpu.kind)),
        ("driver", or_none(gpu.driver.clone())),
        ("f16", if gpu.f16 { "yes" } else { "no" }.to_owned()),
        (
            "subgroups",
            match gpu.subgroup {
                Some((least, most)) if least == most => format!("of {least}"),
                Some((least, most)) => format!("of {least} to {most}"),
                None => "none".to_owned(),
            },
        ),
        ("matrix units", or_none(shapes.join(", "))),
        (
            "limits",
            format!(
                "bindings of {}, buffers of {}, {} bytes and {} threads a workgroup",
                table::bytes(gpu.binding_bytes),
                table::bytes(gpu.buffer_bytes),
                table::count(gpu.workgroup_bytes.into()),
                table::count(gpu.workgroup_threads.into())
            ),
        ),
    ];
    let shared = match gpu.unified_memory {
        true => "shared with the CPU",
        false => "its own",
    };
    rows.push((
        "memory",
        match gpu.memory_bytes {
            Some(bytes) => format!("{shared}, {} recommended", table::bytes(bytes)),
            None => shared.to_owned(),
        },
    ));
    if let Some(metal) = &gpu.metal {
        let (major, minor) = metal.macos;
        let can = match (metal.metal4, metal.metal3) {
            (true, _) => "Metal 4 capable, Metal 3 kernels",
            (false, true) => "Metal 3",
            (false, false) => "older than Metal 3",
        };
        rows.push((
            "metal",
            format!(
                "{can}; Apple family {}, macOS {major}.{minor}",
                metal.apple_family
            ),
        ));
    }
    rows.into_iter()
        .map(|(what, value)| vec![what.to_owned(), value])
        .collect()
}

/// A product of a matrix unit: `16x16x16 f16 into f32`.
fn shape(shape: &MatrixShape) -> String {
    let text = format!(
        "{}x{}x{} {:?} into {:?}",
        shape.m, shape.n, shape.k, shape.operands, shape.sums
    );
    text.replace('F', "f")
}

pub(super) fn gpu_json(gpu: &GpuFacts) -> Value {
    json!({
        "device": DeviceChoice::Number(gpu.index).to_string(), "device_name": gpu.name,
        "backend": gpu.backend.to_string(), "kind": gpu.kind.to_string(), "driver": gpu.driver,
        "vendor": gpu.vendor, "device_id": gpu.device, "unified_memory": gpu.unified_memory,
        "f16": gpu.f16, "subgroup": gpu.subgroup,
        "matrix": gpu.matrix.iter().map(shape).collect::<Vec<_>>(),
        "immediate_bytes": gpu.immediate_bytes, "binding_bytes": gpu.binding_bytes,
        "buffer_bytes": gpu.buffer_bytes, "workgroup_bytes": gpu.workgroup_bytes,
        "workgroup_threads": gpu.workgroup_threads, "memory_bytes": gpu.memory_bytes,
        "metal": gpu.metal.as_ref().map(|metal| json!({
            "apple_family": metal.apple_family, "metal3": metal.metal3, "metal4": metal.metal4,
            "macos": metal.macos,
        })),
    })
}

pub(super) fn probe_rows(probe: &GpuProbe) -> Vec<Vec<String>> {
    let per_second = |bytes: f64| format!("{} a second", table::bytes(bytes as u64));
    [
        (
            "round trip",
            format!("{:.0} us", probe.round_trip.as_secs_f64() * 1e6),
        ),
        ("scan", per_second(probe.scan_bytes_per_s)),
        ("upload", per_second(probe.upload_bytes_per_s)),
        ("scan by the CPU", per_second(probe.cpu_bytes_per_s)),
    ]
    .map(|(what, value)| vec![what.to_owned(), value])
    .into()
}

pub(super) fn probe_json(probe: &GpuProbe) -> Value {
    json!({
        "round_trip_us": probe.round_trip.as_secs_f64() * 1e6,
        "scan_bytes_per_s": probe.scan_bytes_per_s,
        "upload_bytes_per_s": probe.upload_bytes_per_s,
        "cpu_bytes_per_s": probe.cpu_bytes_per_s,
    })
}
