//! Shared by the tests: small collections and rows with known contents.

#![allow(dead_code, unreachable_pub)]

use std::path::PathBuf;

use sela_store::{Collection, Id, Op, Options, Payload, Record, Row, Schema};
use serde_json::json;
use tempfile::TempDir;

pub const DIM: u32 = 6;

pub struct Fixture {
    pub folder: TempDir,
    pub dir: PathBuf,
}

impl Fixture {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("rows");
        Self { folder, dir }
    }

    pub fn create(&self, schema: &Schema) -> Collection {
        Collection::create(&self.dir, schema, &small()).unwrap()
    }

    /// A test beside this one may be starting a process, which between fork and exec has all open
    /// files, a collection's lock too, for a moment after it was closed.
    pub fn open(&self) -> Collection {
        let began = std::time::Instant::now();
        loop {
            match Collection::open(&self.dir, &small()) {
                Err(sela_store::Error::Locked { .. }) if began.elapsed().as_secs() < 5 => {
                    std::thread::yield_now();
                }
                opened => return opened.unwrap(),
            }
        }
    }
}

/// Options under which little data makes segments.
pub fn small() -> Options {
    Options {
        seal_rows: 1 << 20,
        ..Options::default()
    }
}

pub fn schema(record: Record) -> Schema {
    let mut schema = Schema::new(DIM, "tests");
    schema.record = record;
    schema
}

/// An id of each kind in turn.
pub fn id(n: u64) -> Id {
    match n % 3 {
        0 => Id::Num(n),
        1 => Id::Uuid(
            u128::from(n)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060)
                .to_be_bytes(),
        ),
        _ => Id::Str(format!("row {n}")),
    }
}

/// Numbers that both record types hold exactly.
pub fn vector(n: u64) -> Vec<f32> {
    (0..u64::from(DIM))
        .map(|i| ((n * 7 + i * 3) % 64) as f32 - 32.0)
        .collect()
}

/// A row with a payload and a text two times out of three.
pub fn row(n: u64) -> Row {
    let payload: Option<Payload> = (n % 3 != 1).then(|| {
        let value =
            json!({"n": n, "even": n.is_multiple_of(2), "tags": ["all", format!("mod{}", n % 5)]});
        value.as_object().unwrap().clone()
    });
    let text = (n % 3 != 2).then(|| format!("the text of row {n}"));
    Row {
        id: id(n),
        vector: vector(n),
        payload,
        text,
    }
}

pub fn upserts(range: std::ops::Range<u64>) -> Vec<Op> {
    range.map(|n| Op::Upsert(row(n))).collect()
}
