//! The house test: imports go down only, every third party has one home, files and functions stay
//! short, `unsafe` lives where ARCHITECTURE.md says, and the paths it names exist.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Crates of ours by the names they may import.
const FLOORS: [(&str, &[&str]); 7] = [
    ("sela-compute", &[]),
    ("sela-store", &[]),
    ("sela-encoder", &["sela-compute"]),
    ("sela-index", &["sela-compute"]),
    (
        "sela",
        &["sela-compute", "sela-encoder", "sela-index", "sela-store"],
    ),
    ("sela-server", &["sela"]),
    ("sela-cli", &["sela", "sela-server"]),
];

/// Third parties and the only crate that may import each.
const HOMES: [(&str, &str); 16] = [
    ("wgpu", "sela-compute"),
    ("tokenizers", "sela-encoder"),
    ("safetensors", "sela-encoder"),
    ("rusqlite", "sela-store"),
    ("memmap2", "sela-store"),
    ("ureq", "sela"),
    ("clap", "sela-cli"),
    ("indicatif", "sela-cli"),
    ("ctrlc", "sela-cli"),
    ("tokio", "sela-server"),
    ("axum", "sela-server"),
    ("hyper", "sela-server"),
    ("rustls", "sela-server"),
    ("utoipa", "sela-server"),
    ("jsonwebtoken", "sela-server"),
    ("pyo3", "sela-python"),
];

/// What no crate may import: a global pool of threads, strings for errors.
const NOWHERE: [&str; 3] = ["rayon", "anyhow", "lazy_static"];

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 80;
/// Lines of a kernel's function: matrices cannot be handed to a function, so it cannot be cut.
const KERNEL_LINES_MAX: usize = 180;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("crates/sela-cli")
        .to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names in the dependency tables of a manifest, development dependencies apart.
fn dependencies(manifest: &str) -> BTreeMap<bool, Vec<String>> {
    let mut found: BTreeMap<bool, Vec<String>> = BTreeMap::new();
    let mut table = String::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_end_matches(']').to_owned();
        } else if table.ends_with("dependencies") && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            let development = table.ends_with("dev-dependencies");
            found.entry(development).or_default().push(name.to_owned());
        }
    }
    found
}

fn sources(extensions: &[&str]) -> Vec<PathBuf> {
    fn walk(folder: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a readable folder").flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
                walk(&path, extensions, found);
            } else if path
                .extension()
                .is_some_and(|e| extensions.iter().any(|x| e == *x))
            {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join("crates"), extensions, &mut found);
    found.sort();
    found
}

#[test]
fn imports_go_down_only() {
    let mut wrong = Vec::new();
    let folders = fs::read_dir(root().join("crates"))
        .expect("crates/")
        .flatten();
    for folder in folders {
        let name = folder.file_name().to_string_lossy().into_owned();
        let Some((_, allowed)) = FLOORS.iter().find(|(n, _)| *n == name) else {
            wrong.push(format!("crate {name} has no floor in this test"));
            continue;
        };
        for (development, names) in dependencies(&read(&folder.path().join("Cargo.toml"))) {
            for other in names {
                let ours = FLOORS.iter().any(|(n, _)| *n == other);
                if ours && !allowed.contains(&other.as_str()) {
                    wrong.push(format!("{name} imports {other}, which is not below it"));
                }
                let home = HOMES.iter().find(|(n, _)| *n == other);
                if let Some((_, home)) = home.filter(|(_, h)| *h != name && !development) {
                    wrong.push(format!("{name} imports {other}, whose home is {home}"));
                }
                if NOWHERE.contains(&other.as_str()) {
                    wrong.push(format!("{name} imports {other}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "the house leans:\n{}", wrong.join("\n"));
}

/// Functions of a formatted source by name with their lines: from `fn` to the closing brace of the
/// same indentation.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let head = code.split('(').next().unwrap_or_default();
        let Some(name) = head.split("fn ").nth(1).filter(|_| !code.starts_with("//")) else {
            continue;
        };
        let starts = ["fn ", "pub", "const ", "async ", "unsafe ", "extern "];
        if !starts.iter().any(|s| code.starts_with(s)) {
            continue;
        }
        let end = lines[at..].iter().position(|l| {
            let indented = l.len() - l.trim_start().len() == indent;
            indented && (l.trim_start().starts_with('}') || l.ends_with(';'))
        });
        if let Some(end) = end {
            found.push((name.to_owned(), end + 1));
        }
    }
    found
}

#[test]
fn files_and_functions_stay_short() {
    let mut wrong = Vec::new();
    let mut looked_at = 0;
    for path in sources(&["rs", "wgsl"]) {
        let text = read(&path);
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{}: {lines} lines", path.display()));
        }
        for (name, lines) in functions(&text) {
            looked_at += 1;
            let most = match path.extension().is_some_and(|e| e == "wgsl") {
                true => KERNEL_LINES_MAX,
                false => FUNCTION_LINES_MAX,
            };
            if lines > most {
                wrong.push(format!("{}: fn {name} has {lines} lines", path.display()));
            }
        }
    }
    assert!(looked_at > 100, "only {looked_at} functions were found");
    assert!(wrong.is_empty(), "too long:\n{}", wrong.join("\n"));
}

/// Paths in backquotes, in a text.
fn quoted_paths(text: &str) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter(|q| q.contains('/') && !q.contains([' ', '*', '<', ':']))
        .collect()
}

#[test]
fn the_architecture_page_is_true() {
    let page = read(&root().join("ARCHITECTURE.md"));
    assert!(
        page.lines().count() < 200,
        "ARCHITECTURE.md stays under 200 lines"
    );
    let paths = quoted_paths(&page);
    assert!(paths.len() > 15, "only {} paths were found", paths.len());
    let missing: Vec<_> = paths.iter().filter(|p| !root().join(p).exists()).collect();
    assert!(
        missing.is_empty(),
        "ARCHITECTURE.md names paths that do not exist: {missing:?}"
    );
}

#[test]
fn unsafe_lives_where_the_architecture_page_says() {
    let page = read(&root().join("ARCHITECTURE.md"));
    let section = page
        .split("## Where `unsafe` lives")
        .nth(1)
        .expect("a section on unsafe");
    let section = section.split("\n## ").next().unwrap_or_default();
    let homes: Vec<PathBuf> = quoted_paths(section)
        .iter()
        .map(|p| root().join(p))
        .collect();
    assert!(!homes.is_empty(), "the section names its paths");
    let mut wrong = Vec::new();
    for path in sources(&["rs"]) {
        let code = read(&path);
        let uses = code.lines().any(|line| {
            let line = line.split("//").next().unwrap_or_default();
            ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
                .iter()
                .any(|u| line.contains(u))
                && !line.contains('"')
        });
        if uses && !homes.iter().any(|home| path.starts_with(home)) {
            wrong.push(path.display().to_string());
        }
    }
    assert!(
        wrong.is_empty(),
        "unsafe outside of the named modules:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn libraries_are_silent() {
    let mut wrong = Vec::new();
    for path in sources(&["rs"]) {
        let inside = path
            .strip_prefix(root().join("crates"))
            .expect("below crates/");
        let mut parts = inside.iter();
        let (name, folder) = (parts.next().expect("crate"), parts.next().expect("folder"));
        if name == "sela-cli" || folder != "src" || inside.ends_with("tests.rs") {
            continue;
        }
        for (at, line) in read(&path).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let loud = [
                "println!(",
                "print!(",
                "process::exit(",
                "env::var(",
                "env::var_os(",
            ];
            if loud.iter().any(|word| code.contains(word)) {
                wrong.push(format!("{}:{}: {}", inside.display(), at + 1, line.trim()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "a library prints, exits or reads the environment:\n{}",
        wrong.join("\n")
    );
}
