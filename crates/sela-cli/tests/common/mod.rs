//! What the tests of the command share: the program, a home, small inputs, the model.
#![allow(dead_code)] // Each test file uses some of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The program, in a home of its own, with no network.
pub(crate) struct Sela {
    pub(crate) home: tempfile::TempDir,
    /// Where the model is, when the test needs it.
    model: Option<PathBuf>,
    /// Whether the CPU is asked for, as long as a test says nothing else.
    pub(crate) on_cpu: bool,
}

impl Sela {
    pub(crate) fn new() -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
            model: None,
            on_cpu: true,
        }
    }

    /// With the real model, fetched at its first use as the demo fetches it.
    pub(crate) fn with_model() -> Self {
        Self {
            model: Some(model().to_owned()),
            ..Self::new()
        }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command
            .arg("--home")
            .arg(self.home.path())
            .env("SELA_OFFLINE", "1");
        if self.on_cpu {
            // Else machines without a GPU say so.
            command.env("SELA_DEVICE", "cpu");
        }
        if let Some(model) = &self.model {
            command.arg("--model").arg(model);
        }
        command.args(arguments).current_dir(self.home.path());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs what must succeed; its standard output.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{arguments:?}: {}\n{stderr}",
            output.status
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs what must fail with `code`; its standard error, with the home's path taken out.
    pub(crate) fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}:\n{stderr}");
        stderr.replace(&self.home.path().display().to_string(), "HOME")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), contents).unwrap();
    }

    /// `rows` vectors of `dim` numbers with names `0`, `1`, ... in `NAME.npy` and `NAME.ids`.
    pub(crate) fn write_vectors(&self, name: &str, rows: usize, dim: usize) {
        let numbers: Vec<f32> = (0..rows).flat_map(|row| vector(row, dim)).collect();
        self.write(&format!("{name}.npy"), npy(&numbers, rows, dim));
        let ids: String = (0..rows).map(|row| format!("{row}\n")).collect();
        self.write(&format!("{name}.ids"), ids);
    }
}

/// The program with an environment that says nothing of models and places.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sela"));
    for name in [
        "SELA_HOME",
        "SELA_DATA",
        "SELA_DEVICE",
        "SELA_GPU_CACHE",
        "SELA_SCAN_CACHE",
        "SELA_OFFLINE",
        "SELA_HUB",
        "HF_ENDPOINT",
    ] {
        command.env_remove(name);
    }
    // A layer of Mesa's that complains on standard error where there is no desktop.
    command.env("NODEVICE_SELECT", "1");
    command
}

/// The vector of a row.
pub(crate) fn vector(row: usize, dim: usize) -> Vec<f32> {
    (0..dim)
        .map(|at| ((row * 31 + at * 17) % 1009) as f32 - 504.0)
        .collect()
}

/// A `.npy` file.
pub(crate) fn npy(numbers: &[f32], rows: usize, dim: usize) -> Vec<u8> {
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
    bytes
}

/// The folder of the real model: where SELA_HOME has it, else fetched once for all tests.
///
/// Panics, with what was tried, when it can be had from nowhere: a test that needs the model does
/// not pass without it.
pub(crate) fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let home = match std::env::var_os("SELA_HOME") {
            Some(home) => PathBuf::from(home),
            None => Path::new(env!("CARGO_TARGET_TMPDIR")).join("sela-home"),
        };
        let run = |arguments: &[&str]| {
            let output = program()
                .arg("--home")
                .arg(&home)
                .args(arguments)
                .output()
                .unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success(),
                "the model cannot be fetched:\n{stderr}"
            );
            String::from_utf8(output.stdout).unwrap()
        };
        run(&["model", "pull"]);
        PathBuf::from(run(&["model", "path"]).trim_end())
    })
}

/// The items acknowledged by `--json` lines: the last complete one counts.
pub(crate) fn committed(stdout: &str) -> usize {
    let line = |line: &str| {
        let json: serde_json::Value = serde_json::from_str(line).ok()?;
        json["committed"].as_u64()
    };
    let whole = stdout.rfind('\n').map_or("", |end| &stdout[..end]);
    whole.lines().filter_map(line).next_back().unwrap_or(0) as usize
}
