//! A compute pipeline with the layout of what it is given.

use super::device::Gpu;
use crate::error::Error;

/// What a kernel does with a buffer. Bindings are numbered from 0 in group 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    ReadWrite,
}

/// A kernel to compile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelSource<'a> {
    pub(crate) label: &'a str,
    pub(crate) wgsl: &'a str,
    pub(crate) entry: &'a str,
    pub(crate) bindings: &'a [Binding],
    /// Bytes of its `var<immediate>`, a multiple of 4; at most 64.
    pub(crate) immediate_bytes: u32,
    /// Leaves out bounds checks: the host code proves every index, loop and divisor.
    pub(crate) unchecked: bool,
}

/// A compiled kernel.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    pub(crate) pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

impl Kernel {
    /// Called within an error scope, where wgpu's complaints are caught.
    pub(super) fn new(
        device: &wgpu::Device,
        module: &wgpu::ShaderModule,
        source: &KernelSource<'_>,
    ) -> Self {
        let entry = |(binding, kind): (u32, &Binding)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match kind {
                    Binding::Read => wgpu::BufferBindingType::Storage { read_only: true },
                    Binding::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        };
        let entries: Vec<_> = (0..).zip(source.bindings).map(entry).collect();
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(source.label),
            entries: &entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(source.label),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: source.immediate_bytes,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(source.label),
            layout: Some(&pipeline_layout),
            module,
            entry_point: Some(source.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[],
                // No kernel reads workgroup memory that it has not written.
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        Self { pipeline, layout }
    }

    /// Binds buffers in the order of the source's bindings.
    pub(crate) fn bind(
        &self,
        gpu: &Gpu,
        buffers: &[wgpu::BufferBinding<'_>],
    ) -> Result<wgpu::BindGroup, Error> {
        let bound = buffers.iter().cloned().map(wgpu::BindingResource::Buffer);
        let entries: Vec<_> = (0..)
            .zip(bound)
            .map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource })
            .collect();
        gpu.caught(|| {
            gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &self.layout,
                entries: &entries,
            })
        })
    }
}
