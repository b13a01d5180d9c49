//! Which GPUs there are.

use std::future::Future;
use std::pin::pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};

use wgpu::{Backend, Backends, CooperativeScalarType, DeviceType, Features};

use crate::inventory::{GpuBackend, GpuFacts, GpuKind, MatrixNumber, MatrixShape};

/// An adapter with what is known of it.
pub(super) struct Found {
    pub(super) adapter: wgpu::Adapter,
    pub(super) facts: GpuFacts,
}

/// The GPUs of this machine, software adapters last; asked once a process.
///
/// Takes tens of milliseconds where there is a driver, and next to nothing where there is none.
pub fn adapters() -> Vec<GpuFacts> {
    found().iter().map(|found| found.facts.clone()).collect()
}

/// All adapters, the one to prefer first.
pub(super) fn found() -> &'static [Found] {
    static FOUND: OnceLock<Vec<Found>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: Backends::METAL | Backends::VULKAN | Backends::DX12,
            // Validation layers are for developers of drivers; wgpu's own checks stay.
            flags: wgpu::InstanceFlags::empty(),
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let adapters = ready(instance.enumerate_adapters(Backends::all())).unwrap_or_default();
        let mut found: Vec<Found> = adapters
            .into_iter()
            .map(|adapter| Found {
                facts: facts(&adapter),
                adapter,
            })
            .collect();
        // Stable: among equals the system's own order stays, so an index means the same each time.
        found.sort_by_key(|found| (found.facts.kind, found.facts.backend));
        for (index, found) in found.iter_mut().enumerate() {
            found.facts.index = index;
        }
        found
    })
}

/// The result of a future that is ready at once, as all of wgpu's are outside of a browser.
pub(super) fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn facts(adapter: &wgpu::Adapter) -> GpuFacts {
    let info = adapter.get_info();
    let limits = adapter.limits();
    let features = adapter.features();
    let driver = [info.driver.as_str(), info.driver_info.as_str()];
    let driver: Vec<&str> = driver.into_iter().filter(|part| !part.is_empty()).collect();
    let kind = match info.device_type {
        DeviceType::DiscreteGpu => GpuKind::Discrete,
        DeviceType::IntegratedGpu => GpuKind::Integrated,
        DeviceType::VirtualGpu => GpuKind::Virtual,
        DeviceType::Cpu => GpuKind::Software,
        DeviceType::Other => GpuKind::Other,
    };
    let backend = match info.backend {
        Backend::Metal => GpuBackend::Metal,
        Backend::Vulkan => GpuBackend::Vulkan,
        Backend::Dx12 => GpuBackend::Dx12,
        _ => GpuBackend::Other,
    };
    #[allow(unused_mut, reason = "Apple's GPUs tell more")]
    let mut facts = GpuFacts {
        index: 0,
        name: info.name,
        backend,
        kind,
        driver: driver.join(" "),
        vendor: info.vendor,
        device: info.device,
        unified_memory: kind != GpuKind::Discrete,
        f16: features.contains(Features::SHADER_F16),
        subgroup: features
            .contains(Features::SUBGROUP)
            .then_some((info.subgroup_min_size, info.subgroup_max_size)),
        matrix: match features.contains(Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
            true => matrix(adapter),
            false => Vec::new(),
        },
        immediate_bytes: match features.contains(Features::IMMEDIATES) {
            true => limits.max_immediate_size,
            false => 0,
        },
        binding_bytes: limits
            .max_storage_buffer_binding_size
            .min(limits.max_buffer_size),
        buffer_bytes: limits.max_buffer_size,
        workgroup_bytes: limits.max_compute_workgroup_storage_size,
        workgroup_threads: limits.max_compute_invocations_per_workgroup,
        memory_bytes: None,
        metal: None,
    };
    #[cfg(target_vendor = "apple")]
    super::metal::add_facts(adapter, &mut facts);
    facts
}

fn matrix(adapter: &wgpu::Adapter) -> Vec<MatrixShape> {
    let number = |scalar| match scalar {
        CooperativeScalarType::F16 => Some(MatrixNumber::F16),
        CooperativeScalarType::F32 => Some(MatrixNumber::F32),
        CooperativeScalarType::I32 | CooperativeScalarType::U32 => None,
    };
    let shape = |found: &wgpu::wgt::CooperativeMatrixProperties| {
        Some(MatrixShape {
            m: found.m_size,
            n: found.n_size,
            k: found.k_size,
            operands: number(found.ab_type)?,
            sums: number(found.cr_type)?,
        })
    };
    let mut shapes: Vec<MatrixShape> = adapter
        .cooperative_matrix_properties()
        .iter()
        .filter_map(shape)
        .collect();
    shapes.dedup();
    shapes
}
