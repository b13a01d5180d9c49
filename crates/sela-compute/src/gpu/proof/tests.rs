//! What is remembered and what is not, on no GPU and on whatever adapter this machine has.

#![allow(clippy::print_stdout)]

use std::cell::Cell;
use std::sync::Arc;

use super::*;
use crate::cpu::scan::CpuScan;
use crate::gpu::encode::{Variant, gpu_self_test, gpu_self_test_once};
use crate::gpu::scan::{GpuScan, GpuScanOptions};
use crate::gpu::{Faults, GpuOptions, adapters};
use crate::inventory::{GpuBackend, GpuKind};
use crate::isa::Isa;
use crate::plan::Arithmetic;

fn facts() -> GpuFacts {
    GpuFacts {
        index: 0,
        name: "a card".into(),
        backend: GpuBackend::Vulkan,
        kind: GpuKind::Discrete,
        driver: "driver 1.0".into(),
        vendor: 1,
        device: 2,
        unified_memory: false,
        f16: true,
        subgroup: None,
        matrix: Vec::new(),
        immediate_bytes: 128,
        binding_bytes: 1 << 27,
        buffer_bytes: 1 << 31,
        workgroup_bytes: 1 << 15,
        workgroup_threads: 1024,
        memory_bytes: None,
        metal: None,
    }
}

fn subject(text: &str) -> Subject {
    Subject::new("kernels".into(), [text.to_owned(), "more".to_owned()])
}

/// Tests that count how often they run.
struct Bench {
    folder: tempfile::TempDir,
    runs: Cell<u32>,
    right: Cell<bool>,
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            runs: Cell::new(0),
            right: Cell::new(true),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("gpu-tests")
    }

    /// Proves a text on an adapter; whether the test ran, and what came of it.
    fn prove(&self, facts: &GpuFacts, text: &str, anew: bool) -> (bool, Result<Proof, Error>) {
        let (path, before) = (self.path(), self.runs.get());
        let pass = Pass::new(facts, false, &subject(text));
        let result = prove(Some(Memory(&path)), pass, anew, || {
            self.runs.set(before + 1);
            match self.right.get() {
                true => Ok(()),
                false => Err(Error::SelfTest("wrong".into())),
            }
        });
        (self.runs.get() > before, result)
    }

    /// Whether a test of a text on an adapter has to run.
    fn runs(&self, facts: &GpuFacts, text: &str) -> bool {
        self.prove(facts, text, false).0
    }
}

#[test]
fn a_pass_is_remembered_for_the_same_kernels_on_the_same_adapter_and_driver() {
    let bench = Bench::new();
    let card = facts();
    let first = bench.prove(&card, "a", false);
    assert!(matches!(first, (true, Ok(Proof::Passed))), "{first:?}");
    let second = bench.prove(&card, "a", false);
    assert!(
        matches!(second, (false, Ok(Proof::Remembered))),
        "{second:?}"
    );
    let mut others = vec![card.clone(); 6];
    others[0].driver = "driver 1.1".into();
    others[1].name = "another card".into();
    others[2].backend = GpuBackend::Dx12;
    others[3].vendor = 7;
    others[4].device = 7;
    others[5].metal = Some(crate::inventory::MetalFacts {
        apple_family: 9,
        metal3: true,
        metal4: false,
        macos: (15, 1),
    });
    for other in &others {
        assert!(bench.runs(other, "a"), "{other:?}");
        assert!(!bench.runs(other, "a"), "{other:?}");
    }
    assert!(bench.runs(&card, "b"), "another shader");
    let checked = Pass::new(&card, true, &subject("a"));
    assert!(!Memory(&bench.path()).holds(&checked), "bounds checks");
    // All of them side by side, and nothing left of what was written on the way.
    assert!(!bench.runs(&card, "a") && !bench.runs(&card, "b"));
    assert_eq!(fs::read_dir(bench.folder.path()).unwrap().count(), 1);
}

#[test]
fn texts_that_are_cut_elsewhere_are_others() {
    let of = |texts: &[&str]| {
        let texts = texts.iter().map(|text| (*text).to_owned());
        Pass::new(&facts(), false, &Subject::new("kernels".into(), texts)).key
    };
    assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
    assert_ne!(of(&["ab"]), of(&["ab", ""]));
}

#[test]
fn a_test_that_is_asked_for_runs_and_a_failure_is_forgotten_not_remembered() {
    let bench = Bench::new();
    let card = facts();
    bench.right.set(false);
    assert!(matches!(bench.prove(&card, "a", false), (true, Err(_))));
    assert!(!bench.path().exists(), "a failure is not remembered");
    bench.right.set(true);
    assert!(bench.runs(&card, "a"));
    let anew = bench.prove(&card, "a", true);
    assert!(matches!(anew, (true, Ok(Proof::Passed))), "{anew:?}");
    assert!(!bench.runs(&card, "a"));
    bench.right.set(false);
    assert!(matches!(bench.prove(&card, "a", true), (true, Err(_))));
    bench.right.set(true);
    assert!(bench.runs(&card, "a"), "the earlier pass is forgotten");
}

#[test]
fn a_damaged_foreign_or_missing_file_means_that_the_test_runs() {
    let bench = Bench::new();
    let (card, path) = (facts(), bench.path());
    assert!(bench.runs(&card, "a"));
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        fs::write(&path, &flipped).unwrap();
        assert!(bench.runs(&card, "a"), "byte {at}");
        assert_eq!(fs::read(&path).unwrap(), whole, "written anew");
    }
    for end in 0..whole.len() {
        fs::write(&path, &whole[..end]).unwrap();
        assert!(bench.runs(&card, "a"), "{end} bytes");
    }
    for foreign in [&b"hello"[..], &[0xff; 300], &vec![b'x'; 1 << 17]] {
        fs::write(&path, foreign).unwrap();
        assert!(bench.runs(&card, "a"), "{} bytes", foreign.len());
    }
    assert!(!bench.runs(&card, "a"));
    fs::remove_file(&path).unwrap();
    assert!(bench.runs(&card, "a"));
}

#[test]
fn a_file_that_cannot_be_written_means_that_the_test_runs() {
    let bench = Bench::new();
    let card = facts();
    // A folder is in the file's place: nothing to read, nothing to replace.
    fs::create_dir(bench.path()).unwrap();
    for _ in 0..2 {
        let found = bench.prove(&card, "a", false);
        assert!(matches!(found, (true, Ok(Proof::Passed))), "{found:?}");
    }
    assert_eq!(fs::read_dir(bench.folder.path()).unwrap().count(), 1);
    // Nowhere to write to.
    let nowhere = bench.folder.path().join("no/folder");
    let pass = Pass::new(&card, false, &subject("a"));
    let found = prove(Some(Memory(&nowhere)), pass, false, || Ok(()));
    assert_eq!(found.unwrap(), Proof::Passed);
}

#[test]
fn old_passes_go_for_new_ones() {
    let bench = Bench::new();
    let card = facts();
    for number in 0..PASSES_MAX + 3 {
        assert!(bench.runs(&card, &number.to_string()));
    }
    assert!(fs::metadata(bench.path()).unwrap().len() < FILE_BYTES_MAX);
    assert!(!bench.runs(&card, &(PASSES_MAX + 2).to_string()));
    assert!(bench.runs(&card, "0"));
}

#[test]
fn a_name_of_many_lines_is_one_line() {
    let bench = Bench::new();
    let mut card = facts();
    card.driver = "two\nlines\t".repeat(100);
    assert!(bench.runs(&card, "a"));
    assert!(!bench.runs(&card, "a"));
}

/// The adapter of this machine, opened with a memory; `None`, said aloud, where there is none.
fn gpu(path: &Path, faults: &Faults) -> Option<Gpu> {
    let Some(facts) = adapters().into_iter().next() else {
        println!("skipped: no GPU");
        return None;
    };
    let options = GpuOptions {
        self_tests: Some(path.to_owned()),
        faults: faults.clone(),
        ..GpuOptions::default()
    };
    Some(Gpu::open(facts.index, options).unwrap())
}

#[test]
fn the_encoders_tests_are_remembered_and_a_fault_still_vetoes() {
    let folder = tempfile::tempdir().unwrap();
    let (path, faults) = (folder.path().join("gpu-tests"), Faults::default());
    let once = || {
        let gpu = gpu(&path, &faults)?;
        let submissions = || gpu.shared().submissions.load(Ordering::Relaxed);
        let before = submissions();
        let proof = gpu_self_test_once(&gpu, Variant::Plain, Arithmetic::F32);
        Some((proof, submissions() > before))
    };
    let Some((proof, worked)) = once() else {
        return;
    };
    assert_eq!((proof.unwrap(), worked), (Proof::Passed, true));
    let (proof, worked) = once().unwrap();
    assert_eq!((proof.unwrap(), worked), (Proof::Remembered, false));
    faults.arm(Fault::WrongAnswer, 1);
    assert!(once().unwrap().0.is_err(), "a fault is not passed by");
    assert_eq!(once().unwrap().0.unwrap(), Proof::Passed);
    // Who asks for the test gets it.
    let gpu = gpu(&path, &faults).unwrap();
    let before = gpu.shared().submissions.load(Ordering::Relaxed);
    gpu_self_test(&gpu, Variant::Plain, Arithmetic::F32).unwrap();
    assert!(gpu.shared().submissions.load(Ordering::Relaxed) > before);
}

#[test]
fn the_searchs_tests_are_remembered_and_a_fault_still_vetoes() {
    let folder = tempfile::tempdir().unwrap();
    let (path, faults) = (folder.path().join("gpu-tests"), Faults::default());
    let cpu = Arc::new(CpuScan::new(Isa::Plain, 1).unwrap());
    let once = || {
        let gpu = gpu(&path, &faults)?;
        let options = GpuScanOptions {
            variant: crate::gpu::scan::Variant::Plain,
            ..GpuScanOptions::default()
        };
        Some(GpuScan::new(&gpu, cpu.clone(), options).map(|scan| scan.proof()))
    };
    let Some(first) = once() else { return };
    assert_eq!(first.unwrap(), Proof::Passed);
    assert_eq!(once().unwrap().unwrap(), Proof::Remembered);
    faults.arm(Fault::WrongAnswer, 1);
    assert!(once().unwrap().is_err(), "a fault is not passed by");
    assert_eq!(faults.armed(Fault::WrongAnswer), 0);
    assert_eq!(once().unwrap().unwrap(), Proof::Passed);
}
