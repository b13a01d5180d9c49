//! The kernels of a search: WGSL put together for a shape, compiled when it is first needed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Error;
use crate::gpu::encode::{Needs, Shader};
use crate::gpu::template::{Names, expand};
use crate::gpu::{Binding, Gpu, Kernel, KernelSource};
use crate::inventory::GpuFacts;
use crate::scan::{Metric, Record};

/// How ranks are computed, the fastest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Variant {
    /// Cooperative matrices, for batches over f16 rows; few queries as in [`Self::Subgroup`].
    Matrix,
    /// Subgroup operations.
    Subgroup,
    /// Nothing that a device may lack.
    Plain,
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Matrix => "matrix",
            Self::Subgroup => "subgroup",
            Self::Plain => "plain",
        })
    }
}

/// Rows that a workgroup takes; units are padded to whole tiles.
pub(super) const TILE_ROWS: u32 = 128;
/// Most queries of a dispatch of the matrix kernel.
pub(super) const MATRIX_QUERIES: usize = 64;
/// Ranks that a workgroup of the selection looks at: `SHARE` in select.wgsl.
pub(super) const SHARE: u32 = 4_096;
/// Bins of both histograms of a query: twice `BINS` in select.wgsl.
pub(super) const BINS: u32 = 4_096;

/// Groups among which one workgroup chooses: 64 for each of a thousand threads.
const CHOOSE_GROUPS_MAX: u32 = 65_536;
/// Threads for every row that is asked for when one workgroup chooses: with few, the best ranks of
/// many threads would be needed, and too many groups be let through.
const CHOOSE_THREADS_PER_K: usize = 8;

/// A kernel, by everything that its text depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// Ranks of up to eight queries.
    Few {
        subgroup: bool,
        record: Record,
        metric: Metric,
        chunks: u32,
        queries: u32,
    },
    /// Ranks of `cols` times `side` queries, 64 at most, on matrices of that side.
    Matrix {
        side: u32,
        cols: u32,
        metric: Metric,
        chunks: u32,
    },
    /// Squared norms of rows.
    Norms {
        record: Record,
        chunks: u32,
    },
    /// Chooses groups by one workgroup of so many threads a query.
    Choose {
        threads: u32,
    },
    Coarse,
    Fine,
    Pick,
}

/// Kernels compiled so far.
pub(super) struct Kernels {
    gpu: Gpu,
    compiled: Mutex<HashMap<Key, Arc<Kernel>>>,
}

impl Kernels {
    pub(super) fn new(gpu: &Gpu) -> Self {
        Self {
            gpu: gpu.clone(),
            compiled: Mutex::default(),
        }
    }

    /// What was compiled so far.
    #[cfg(test)]
    pub(super) fn compiled(&self) -> Vec<Key> {
        let compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        compiled.keys().copied().collect()
    }

    /// A kernel; compiled now if this is the first time.
    pub(super) fn get(&self, key: Key) -> Result<Arc<Kernel>, Error> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = compiled.get(&key) {
            return Ok(kernel.clone());
        }
        let (wgsl, entry) = (key.wgsl()?, key.entry());
        let kernel = Arc::new(self.gpu.kernel(&KernelSource {
            label: entry,
            wgsl: &wgsl,
            entry,
            bindings: key.bindings(),
            immediate_bytes: key.immediate_bytes(),
            // Units are padded to whole tiles and checked when they are cut; offsets into the
            // other buffers come from the layout that made them; loops run over constants or
            // over ranges cut off at the buffers' ends.
            unchecked: true,
        })?);
        compiled.insert(key, kernel.clone());
        Ok(kernel)
    }
}

impl Key {
    /// Threads of the workgroup that chooses on that device.
    pub(super) fn choosing(facts: &GpuFacts) -> u32 {
        match facts.workgroup_threads {
            1_024.. => 1_024,
            _ => 256,
        }
    }

    /// The kernels that choose among so many groups, to be run one after another.
    pub(super) fn selection(facts: &GpuFacts, groups: u32, k: usize) -> &'static [Self] {
        const FEW: [Key; 1] = [Key::Choose { threads: 256 }];
        const MANY: [Key; 1] = [Key::Choose { threads: 1_024 }];
        let threads = Self::choosing(facts);
        if groups > CHOOSE_GROUPS_MAX || k * CHOOSE_THREADS_PER_K > threads as usize {
            return &[Self::Coarse, Self::Fine, Self::Pick];
        }
        match threads {
            256 => &FEW,
            _ => &MANY,
        }
    }

    /// The text of the kernel.
    pub(super) fn wgsl(self) -> Result<String, Error> {
        let mut text = String::new();
        let mut names: Names<'_> = Vec::new();
        let file = match self {
            Self::Few {
                subgroup,
                record,
                metric,
                chunks,
                queries,
            } => {
                names.extend([("QUERIES", queries), ("SUBGROUP", u32::from(subgroup))]);
                shape(&mut names, record, metric);
                let (steps, whole) = (chunks.div_ceil(8), chunks.is_multiple_of(8));
                text += &format!("const CHUNKS: u32 = {chunks}u;\nconst STEPS: u32 = {steps}u;\n");
                text += &format!("const WHOLE: bool = {whole};\n");
                include_str!("few.wgsl")
            }
            Self::Matrix {
                side,
                cols,
                metric,
                chunks,
            } => {
                names.extend([("SIDE", side), ("TILES", 64 / side), ("COLS", cols)]);
                shape(&mut names, Record::F16, metric);
                text += "enable f16;\nenable wgpu_cooperative_matrix;\n";
                text += &format!("const CHUNKS: u32 = {chunks}u;\n");
                include_str!("matrix.wgsl")
            }
            Self::Norms { record, chunks } => {
                shape(&mut names, record, Metric::Dot);
                text += &format!("const CHUNKS: u32 = {chunks}u;\n");
                text += &format!("const TINY: u32 = {}u;\n", super::bound::ROW_MIN.to_bits());
                text += "const BEYOND: u32 = 0x7f7fffffu;\n";
                include_str!("norms.wgsl")
            }
            Self::Choose { threads } => {
                names.push(("CHOOSE", 1));
                text += &format!("const THREADS: u32 = {threads}u;\n");
                include_str!("select.wgsl")
            }
            Self::Coarse | Self::Fine | Self::Pick => {
                names.push(("CHOOSE", 0));
                include_str!("select.wgsl")
            }
        };
        text += "const LOW: f32 = -3.4e38;\nconst NONE: u32 = 0xffffffffu;\n";
        text += &expand(file, &names)?;
        Ok(text)
    }

    fn entry(self) -> &'static str {
        match self {
            Self::Choose { .. } => "choose",
            Self::Coarse => "coarse",
            Self::Fine => "fine",
            Self::Pick => "pick",
            _ => "main",
        }
    }

    fn bindings(self) -> &'static [Binding] {
        use Binding::{Read, ReadWrite};
        match self {
            Self::Few { .. } | Self::Choose { .. } | Self::Coarse | Self::Fine | Self::Pick => {
                &[Read, Read, ReadWrite]
            }
            Self::Matrix { .. } => &[Read, Read, ReadWrite, Read, Read],
            Self::Norms { .. } => &[ReadWrite],
        }
    }

    fn immediate_bytes(self) -> u32 {
        4 * match self {
            Self::Few { .. } => 5,
            Self::Matrix { .. } => 7,
            Self::Norms { .. } => 3,
            Self::Choose { .. } | Self::Coarse | Self::Fine | Self::Pick => 8,
        }
    }
}

/// The names that conditions ask for.
fn shape(names: &mut Names<'_>, record: Record, metric: Metric) {
    names.extend([
        ("HALVES", u32::from(record == Record::F16)),
        ("COSINE", u32::from(metric == Metric::Cosine)),
        ("EUCLID", u32::from(metric == Metric::L2)),
        ("NORMS", u32::from(metric != Metric::Dot)),
    ]);
}

/// Every kernel in every form that its text has, for tests that translate all of them.
///
/// # Errors
///
/// None, unless a shader's text is broken.
pub fn shaders() -> Result<Vec<Shader>, Error> {
    let mut keys = vec![Key::Coarse];
    keys.extend([256, 1_024].map(|threads| Key::Choose { threads }));
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        for record in [Record::F32, Record::F16] {
            for (queries, chunks) in [(1, 10), (8, 48)] {
                keys.extend([false, true].map(|subgroup| Key::Few {
                    subgroup,
                    record,
                    metric,
                    chunks,
                    queries,
                }));
            }
            let chunks = 10;
            keys.push(Key::Norms { record, chunks });
        }
        keys.extend([(8, 8), (16, 4), (16, 1)].map(|(side, cols)| Key::Matrix {
            side,
            cols,
            metric,
            chunks: 10,
        }));
    }
    let shader = |key: &Key| {
        let needs = Needs {
            f16: matches!(key, Key::Matrix { .. }),
            subgroup: matches!(key, Key::Matrix { .. } | Key::Few { subgroup: true, .. }),
            matrix: match key {
                Key::Matrix { side, .. } => *side,
                _ => 0,
            },
        };
        Ok(Shader {
            name: format!("scan {key:?}"),
            source: key.wgsl()?,
            needs,
        })
    };
    keys.iter().map(shader).collect()
}

#[cfg(test)]
mod tests {
    use super::shaders;
    use naga::valid::{Capabilities, ValidationFlags, Validator};

    /// All texts are WGSL and become SPIR-V, on machines without any GPU too.
    #[test]
    fn every_text_is_a_shader() {
        for shader in shaders().unwrap() {
            let module = naga::front::wgsl::parse_str(&shader.source).unwrap_or_else(|e| {
                panic!("{}: {}", shader.name, e.emit_to_string(&shader.source))
            });
            let info = Validator::new(ValidationFlags::all(), Capabilities::all())
                .validate(&module)
                .unwrap_or_else(|e| {
                    panic!("{}: {}", shader.name, e.emit_to_string(&shader.source))
                });
            let options = naga::back::spv::Options {
                lang_version: (1, 3),
                ..Default::default()
            };
            naga::back::spv::write_vec(&module, &info, &options, None)
                .unwrap_or_else(|e| panic!("{}: {e}", shader.name));
        }
    }
}
