//! Self-tests that were passed, remembered from one process to the next.
//!
//! A self-test takes a GPU some milliseconds and its driver, which compiles the kernels for it,
//! much longer. What is remembered is that one text of kernels gave right answers on one adapter
//! with one driver: anything else is another [`Subject`] and tested. Only passes are, as a failure
//! may have had a cause that is gone.
//!
//! The file is a hint and never trusted further than its checksum: whoever finds it missing,
//! damaged, foreign or not to be written runs the test.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Fault, Gpu};
use crate::error::Error;
use crate::inventory::GpuFacts;

/// Version of the tests: raise it when a test, the host half of a kernel or wgpu changes, as all of
/// them decide what a kernel answers and only the kernels' texts are looked at.
const TESTS: u32 = 2;
/// How the file begins, its version included.
const HEAD: &str = "sela gpu self-tests 1";
/// Passes that are remembered: a machine has few adapters and few variants; old drivers go first.
const PASSES_MAX: usize = 128;
/// Bytes of a file that may be ours.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Characters of the words that come with a pass.
const WORDS_MAX: usize = 100;

/// How it is known that kernels give right answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The self-test ran and passed.
    Passed,
    /// It passed earlier, on this adapter with this driver and these kernels.
    Remembered,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Remembered => "remembered",
        })
    }
}

/// What a self-test proves.
pub(crate) struct Subject {
    /// In words.
    pub(crate) what: String,
    sum: Sum,
}

impl Subject {
    /// Kernels of these texts.
    pub(crate) fn new(what: String, texts: impl IntoIterator<Item = String>) -> Self {
        let mut sum = Sum::default();
        for text in texts {
            sum.add(text.as_bytes());
        }
        Self { what, sum }
    }
}

impl Gpu {
    /// Runs a self-test, unless it is remembered that it was passed and not asked for `anew`.
    ///
    /// A pass is remembered from now on, and a failure makes an earlier pass forgotten.
    pub(crate) fn prove(
        &self,
        subject: &Subject,
        anew: bool,
        test: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Proof, Error> {
        let memory = self.options().self_tests.as_deref().map(Memory);
        let pass = Pass::new(self.facts(), self.options().checked, subject);
        // A fault that is to happen must not be passed by.
        let anew = anew || self.faults().armed(Fault::WrongAnswer) > 0;
        prove(memory, pass, anew, test)
    }
}

fn prove(
    memory: Option<Memory<'_>>,
    pass: Pass,
    anew: bool,
    test: impl FnOnce() -> Result<(), Error>,
) -> Result<Proof, Error> {
    let Some(memory) = memory else {
        return test().map(|()| Proof::Passed);
    };
    if !anew && memory.holds(&pass) {
        tracing::debug!(what = pass.words, "self-test remembered");
        return Ok(Proof::Remembered);
    }
    let result = test();
    let noted = match &result {
        Ok(()) => memory.add(pass),
        Err(_) => memory.remove(&pass),
    };
    if let Err(error) = noted {
        let path = memory.0.display();
        tracing::info!(%path, %error, "self-tests of the GPU are not remembered");
    }
    result.map(|()| Proof::Passed)
}

/// A line of the file: a subject on an adapter, as a number, and in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pass {
    key: String,
    words: String,
}

impl Pass {
    /// `checked` kernels keep bounds checks, so they are others.
    fn new(facts: &GpuFacts, checked: bool, subject: &Subject) -> Self {
        // On Apple's systems the driver is a part of the system and has no version of its own.
        let macos = facts.metal.as_ref().map(|metal| metal.macos);
        let mut sum = subject.sum;
        for part in [
            format!("sela {} tests {TESTS}", env!("CARGO_PKG_VERSION")),
            format!("{checked} {} {} {macos:?}", facts.vendor, facts.device),
            facts.name.clone(),
            facts.backend.to_string(),
            facts.driver.clone(),
            subject.what.clone(),
        ] {
            sum.add(part.as_bytes());
        }
        let all = format!("{}; {}, {}", subject.what, facts.backend, facts.driver);
        let plain = all.chars().map(|c| if c.is_control() { ' ' } else { c });
        Self {
            key: sum.to_string(),
            words: plain.take(WORDS_MAX).collect(),
        }
    }
}

/// The file.
struct Memory<'a>(&'a Path);

impl Memory<'_> {
    fn holds(&self, pass: &Pass) -> bool {
        self.passes().iter().any(|known| known.key == pass.key)
    }

    fn add(&self, pass: Pass) -> io::Result<()> {
        let mut passes = self.passes();
        passes.retain(|known| known.key != pass.key);
        passes.push(pass);
        let extra = passes.len().saturating_sub(PASSES_MAX);
        passes.drain(..extra);
        self.write(&passes)
    }

    fn remove(&self, pass: &Pass) -> io::Result<()> {
        let mut passes = self.passes();
        let before = passes.len();
        passes.retain(|known| known.key != pass.key);
        match passes.len() == before {
            true => Ok(()),
            false => self.write(&passes),
        }
    }

    /// All passes; none of a file that is not whole.
    fn passes(&self) -> Vec<Pass> {
        let ours = |file: &fs::Metadata| file.is_file() && file.len() <= FILE_BYTES_MAX;
        let text = match fs::metadata(self.0) {
            Ok(file) if ours(&file) => fs::read_to_string(self.0).unwrap_or_default(),
            _ => return Vec::new(),
        };
        parse(&text).unwrap_or_default()
    }

    /// Replaces the file: a reader sees the old one or the new one.
    fn write(&self, passes: &[Pass]) -> io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut name = self.0.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}-{number}", std::process::id()));
        let temporary: PathBuf = self.0.with_file_name(name);
        let written =
            fs::write(&temporary, print(passes)).and_then(|()| fs::rename(&temporary, self.0));
        if written.is_err() {
            // The first error is the one that tells.
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

fn print(passes: &[Pass]) -> String {
    let line = |pass: &Pass| format!("{} {}\n", pass.key, pass.words);
    let body: String = passes.iter().map(line).collect();
    let mut sum = Sum::default();
    sum.add(body.as_bytes());
    format!("{HEAD} {sum}\n{body}")
}

fn parse(text: &str) -> Option<Vec<Pass>> {
    let (head, body) = text.split_once('\n')?;
    let mut sum = Sum::default();
    sum.add(body.as_bytes());
    if head != format!("{HEAD} {sum}") {
        return None;
    }
    let pass = |line: &str| {
        let (key, words) = line.split_once(' ')?;
        Some(Pass {
            key: key.to_owned(),
            words: words.to_owned(),
        })
    };
    body.lines().map(pass).collect()
}

/// FNV-1a of 128 bits: against chance, not against malice, which has better places in a home.
#[derive(Clone, Copy)]
struct Sum(u128);

impl Default for Sum {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Sum {
    /// Adds bytes and how many they are, so that parts do not run into one another.
    fn add(&mut self, bytes: &[u8]) {
        let len = (bytes.len() as u64).to_le_bytes();
        for byte in bytes.iter().chain(&len) {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul((1 << 88) + 0x13b);
        }
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests;
