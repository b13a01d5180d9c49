//! What Apple's Metal offers beyond wgpu: facts of the GPU and the system, residency sets, and
//! buffers over memory that is already there.

mod import;
mod residency;

pub use import::import_self_test;
pub(super) use residency::ResidencySet;

use objc2::runtime::ProtocolObject;
use objc2_foundation::NSProcessInfo;
use objc2_metal::{MTLDevice, MTLGPUFamily};
use wgpu::hal::api::Metal;

use crate::inventory::{GpuFacts, MetalFacts};

/// Number of the first family of Apple's own GPUs that Macs have (M1), and of the last to ask for;
/// a Metal that does not know a family says no.
const FAMILIES: (u32, u32) = (7, 19);

/// Adds what Metal tells of an adapter; nothing when it is reached by something else.
pub(super) fn add_facts(adapter: &wgpu::Adapter, facts: &mut GpuFacts) {
    // SAFETY: the device is asked questions only; nothing of it is destroyed or kept.
    let Some(adapter) = (unsafe { adapter.as_hal::<Metal>() }) else {
        return;
    };
    let device = adapter.raw_device();
    facts.unified_memory = device.hasUnifiedMemory();
    facts.memory_bytes = Some(device.recommendedMaxWorkingSetSize()).filter(|bytes| *bytes > 0);
    facts.metal = Some(metal_facts(device));
}

fn metal_facts(device: &ProtocolObject<dyn MTLDevice>) -> MetalFacts {
    let macos = macos();
    let apple = |family: u32| device.supportsFamily(MTLGPUFamily(1000 + family as isize));
    let (first, last) = FAMILIES;
    MetalFacts {
        apple_family: (first..=last)
            .rev()
            .find(|family| apple(*family))
            .unwrap_or(0),
        metal3: device.supportsFamily(MTLGPUFamily::Metal3),
        metal4: macos >= (26, 0) && device.supportsFamily(MTLGPUFamily::Metal4),
        macos,
    }
}

/// Major and minor version of macOS.
fn macos() -> (u32, u32) {
    let version = NSProcessInfo::processInfo().operatingSystemVersion();
    let number = |n: isize| u32::try_from(n).unwrap_or(0);
    true_version((number(version.majorVersion), number(version.minorVersion)))
}

/// macOS 26 tells programs that were linked for an older one that it is 16: the number that would
/// have followed 15, and that no macOS has.
fn true_version((major, minor): (u32, u32)) -> (u32, u32) {
    match major {
        16..=25 => (major + 10, minor),
        _ => (major, minor),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_no_macos_has_is_read_as_the_one_it_stands_for() {
        assert_eq!(true_version((15, 6)), (15, 6));
        assert_eq!(true_version((16, 1)), (26, 1));
        assert_eq!(true_version((26, 0)), (26, 0));
    }

    #[test]
    fn this_mac_tells_its_version() {
        assert!(macos() >= (11, 0), "{:?}", macos());
    }
}
