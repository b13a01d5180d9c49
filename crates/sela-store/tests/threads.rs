//! Many threads at once, and what a crash between two moments may leave.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::{DIM, Fixture, schema};
use sela_store::{Collection, Fields, Id, Op, Options, Record, Row};

#[test]
fn eight_threads_write_while_others_read() {
    let fixture = Fixture::new();
    let options = Options {
        seal_rows: 500,
        segment_rows: 700,
        ..Options::default()
    };
    let collection = Collection::create(&fixture.dir, &schema(Record::F32), &options).unwrap();
    let done = AtomicBool::new(false);
    let (threads, rounds) = (8_u64, 40_u64);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..threads)
            .map(|thread| {
                let collection = &collection;
                scope.spawn(move || {
                    for round in 0..rounds {
                        // Own rows, and one that all fight for.
                        let mut ops: Vec<Op> = (0..10)
                            .map(|n| Op::Upsert(numbered(thread * 1_000 + round * 10 + n)))
                            .collect();
                        ops.push(Op::Upsert(numbered(1_000_000)));
                        ops.push(Op::Delete(Id::Num(thread * 1_000 + round * 10)));
                        let written = collection.write(&ops).unwrap();
                        assert_eq!(written.count, 12);
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let view = collection.view().unwrap();
                    assert!(view.last_seq() >= last);
                    last = view.last_seq();
                    // A batch is seen whole or not at all: nine rows stay of each.
                    let fight = u64::from(view.find(&Id::Num(1_000_000)).unwrap().is_some());
                    assert_eq!((view.live_rows() - fight) % 9, 0);
                    collection.scroll(None, 50, None, Fields::ALL).unwrap();
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                collection.compact().unwrap();
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
        writers
            .into_iter()
            .for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    let expected = threads * rounds * 9 + 1;
    assert_eq!(collection.count(None).unwrap(), expected);
    drop(collection);
    let collection = Collection::open(&fixture.dir, &options).unwrap();
    assert_eq!(collection.count(None).unwrap(), expected);
    let report = collection.verify().unwrap();
    assert!(report.is_sound(), "{:?}", report.faults);
}

fn numbered(n: u64) -> Row {
    Row {
        text: Some(n.to_string()),
        ..Row::new(n, vec![n as f32; DIM as usize])
    }
}
