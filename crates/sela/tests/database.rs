//! The database in memory, held against scores worked out in f64.

use sela::{Database, DeviceChoice, Engine, Error, Metric, Options};

fn engine(home: &tempfile::TempDir) -> Engine {
    let mut options = Options::new(home.path());
    options.device = DeviceChoice::Cpu;
    Engine::open(options).unwrap()
}

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let number = |i: usize| {
        let hash = (seed * 65_537 + i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(number).collect()
}

fn score(row: &[f32], query: &[f32], metric: Metric) -> f64 {
    let sum = |f: fn(f64, f64) -> f64| -> f64 {
        let pairs = row.iter().zip(query);
        pairs.map(|(a, b)| f(f64::from(*a), f64::from(*b))).sum()
    };
    let dot = sum(|a, b| a * b);
    match metric {
        Metric::Dot => dot,
        Metric::Cosine => dot / (sum(|a, _| a * a) * sum(|_, b| b * b)).sqrt(),
        Metric::L2 => sum(|a, b| (a - b).powi(2)).sqrt(),
    }
}

#[test]
fn the_nearest_rows_come_in_order_by_every_metric() {
    let home = tempfile::tempdir().unwrap();
    let engine = engine(&home);
    let (dim, rows) = (19, 700);
    let data = numbers(dim * rows, 1);
    let database = Database::new(&data, dim).unwrap();
    assert_eq!((database.len(), database.dim()), (rows, dim));
    assert_eq!(database.bytes(), (rows * dim * 4) as u64);
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        let queries = numbers(dim * 5, 2);
        let batch = engine
            .search_database_batch(&database, &queries, 10, metric)
            .unwrap();
        assert_eq!(batch.len(), 5);
        for (query, together) in queries.chunks_exact(dim).zip(&batch) {
            let found = engine
                .search_database(&database, query, 10, metric)
                .unwrap();
            assert_eq!(&found, together, "alone and together");
            let mut expected: Vec<(usize, f64)> = data
                .chunks_exact(dim)
                .map(|row| score(row, query, metric))
                .enumerate()
                .collect();
            expected.sort_by(|a, b| b.1.total_cmp(&a.1));
            if metric == Metric::L2 {
                expected.reverse();
            }
            assert_eq!(found.len(), 10);
            for (found, (row, score)) in found.iter().zip(expected) {
                assert_eq!(found.row as usize, row, "{metric:?}");
                let off = (f64::from(found.score) - score).abs();
                assert!(off < 1e-5, "{metric:?}: {found:?}, not {score}");
            }
        }
    }
    assert!(engine.stats().query_times.count > 0);
}

#[test]
fn a_distance_is_euclidean_and_equals_come_in_order_of_rows() {
    let home = tempfile::tempdir().unwrap();
    let engine = engine(&home);
    let database = Database::new(&[3.0, 4.0, 0.0, 0.0, 3.0, 4.0], 2).unwrap();
    let found = engine
        .search_database(&database, &[0.0, 0.0], 9, Metric::L2)
        .unwrap();
    let told: Vec<(u32, f32)> = found.iter().map(|f| (f.row, f.score)).collect();
    assert_eq!(told, [(1, 0.0), (0, 5.0), (2, 5.0)]);
}

#[test]
fn what_cannot_be_searched_is_refused_by_name() {
    let home = tempfile::tempdir().unwrap();
    let engine = engine(&home);
    for value in [f32::NAN, f32::INFINITY, -f32::INFINITY, f32::MAX] {
        let mut data = vec![1.0; 12];
        data[7] = value;
        let error = Database::new(&data, 4).unwrap_err();
        let said = error.to_string();
        assert_eq!(said, format!("row 1 holds {value} in column 3"));
        assert!(error.hint().is_some());
    }
    for (data, dim) in [(vec![1.0; 7], 4), (vec![1.0], 0)] {
        let error = Database::new(&data, dim).unwrap_err();
        assert!(matches!(error, Error::DatabaseShape { .. }), "{error}");
    }
    let error = Database::new(&[], 1 << 20).unwrap_err();
    assert!(matches!(error, Error::DatabaseLimit { .. }), "{error}");

    let database = Database::new(&[1.0; 8], 4).unwrap();
    let ask = |query: &[f32], k| engine.search_database(&database, query, k, Metric::Cosine);
    let short = ask(&[1.0; 3], 1).unwrap_err();
    assert!(
        matches!(
            short,
            Error::DatabaseDim {
                expected: 4,
                found: 3
            }
        ),
        "{short}"
    );
    assert!(ask(&[f32::NAN; 4], 1).is_err());
    assert!(ask(&[1.0; 4], 0).is_err());
    assert!(ask(&[1.0; 4], 1 << 20).is_err());
    let empty = Database::new(&[], 4).unwrap();
    assert!(empty.is_empty());
    let none = engine.search_database(&empty, &[1.0; 4], 3, Metric::Dot);
    assert!(none.unwrap().is_empty());
}
