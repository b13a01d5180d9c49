//! Figures of the CPU and of GPUs against each other, and against what Sela wants to reach.

use serde::Serialize;

use super::Figure;

/// How much faster a GPU is than the CPU at one measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// What was measured.
    pub name: &'static str,
    /// Texts or rows it was measured on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<usize>,
    /// What the two numbers count: `ms`, `texts/s`.
    pub unit: &'static str,
    /// The CPU's figure.
    pub cpu: f64,
    /// The GPU.
    pub device: String,
    /// Its figure.
    pub gpu: f64,
    /// How many times as fast the GPU is.
    pub speedup: f64,
}

/// Something that Sela wants to reach.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Target {
    /// What.
    pub what: String,
    /// The GPU, where it is one that has to reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The aim, in words.
    pub aim: &'static str,
    /// What was found, in the unit of the aim; nothing where it was not measured.
    pub found: Option<f64>,
    /// Whether the aim is met; nothing where it was not measured.
    pub met: Option<bool>,
}

/// Aims for the speed of a GPU over the CPU: figure, what it is, least factor, the aim in words.
const SPEEDS: [(&str, &str, f64, &str); 5] = [
    ("single", "embedding one text", 5.0, "5-10 times the CPU"),
    ("batch100", "embedding a batch", 5.0, "5-10 times the CPU"),
    ("search1", "search, one query", 10.0, "10-50 times the CPU"),
    (
        "search100",
        "search, a hundred queries",
        10.0,
        "10-50 times the CPU",
    ),
    ("rag", "question to texts", 5.0, "5-10 times the CPU"),
];

/// Most megabytes that a process may have with a million vectors.
const MEMORY_MB: f64 = 2_000.0;

/// The number of a figure that is compared, its unit, and whether more of it is better.
fn telling(figure: &Figure) -> Option<(f64, &'static str, bool)> {
    let time = figure.p50.or(figure.median).map(|ms| (ms, "ms", false));
    time.or(figure.texts_per_s.map(|n| (n, "texts/s", true)))
}

/// Every figure of a GPU that has one of the CPU beside it.
pub(super) fn speedups(figures: &[Figure]) -> Vec<Comparison> {
    let is_cpu = |figure: &&Figure| figure.device.as_deref() == Some("cpu");
    let compare = |gpu: &Figure| {
        let (of_gpu, unit, more) = telling(gpu)?;
        let same = |f: &&Figure| f.name == gpu.name && f.rows == gpu.rows;
        let (of_cpu, ..) = telling(figures.iter().filter(is_cpu).find(same)?)?;
        Some(Comparison {
            name: gpu.name,
            rows: gpu.rows,
            unit,
            cpu: of_cpu,
            device: gpu.device.clone()?,
            gpu: of_gpu,
            speedup: if more {
                of_gpu / of_cpu
            } else {
                of_cpu / of_gpu
            },
        })
    };
    figures
        .iter()
        .filter(|figure| figure.device.is_some() && !is_cpu(figure))
        .filter_map(compare)
        .collect()
}

/// All aims; those that were not measured are told too.
pub(super) fn targets(figures: &[Figure]) -> Vec<Target> {
    let speedups = speedups(figures);
    let mut targets = Vec::new();
    for (name, what, least, aim) in SPEEDS {
        let mut measured = speedups.iter().filter(|s| s.name == name).peekable();
        if measured.peek().is_none() {
            targets.push(Target {
                what: what.to_owned(),
                device: None,
                aim,
                found: None,
                met: None,
            });
        }
        for speedup in measured {
            let rows = speedup.rows.filter(|_| name.starts_with("search"));
            targets.push(Target {
                what: match rows {
                    Some(rows) => format!("{what}, {rows} rows"),
                    None => what.to_owned(),
                },
                device: Some(speedup.device.clone()),
                aim,
                found: Some(speedup.speedup),
                met: Some(speedup.speedup >= least),
            });
        }
    }
    let memory = figures.iter().filter(|f| f.name.starts_with("memory1m"));
    let most = memory.filter_map(|f| f.peak).reduce(f64::max);
    targets.push(Target {
        what: "memory for a million vectors".to_owned(),
        device: None,
        aim: "under 2000 MB",
        found: most,
        met: most.map(|most| most < MEMORY_MB),
    });
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &'static str, device: &str, rows: Option<usize>) -> Figure {
        Figure {
            name,
            device: Some(device.to_owned()),
            rows,
            ..Figure::default()
        }
    }

    #[test]
    fn like_is_compared_with_like() {
        let mut figures = Vec::new();
        for (device, small_ms, large_ms, texts_per_s) in
            [("cpu", 8.0, 800.0, 100.0), ("gpu:0", 2.0, 20.0, 1_000.0)]
        {
            for (rows, ms) in [(10_000, small_ms), (1_000_000, large_ms)] {
                let mut search = figure("search1", device, Some(rows));
                search.p50 = Some(ms);
                figures.push(search);
            }
            let mut bulk = figure("bulk", device, Some(4_000));
            bulk.texts_per_s = Some(texts_per_s);
            figures.push(bulk);
        }
        let mut write = figure("storage_write", "", None);
        (write.device, write.rows_per_s) = (None, Some(1e6));
        figures.push(write);
        let found = speedups(&figures);
        let told: Vec<_> = found.iter().map(|c| (c.name, c.rows, c.speedup)).collect();
        assert_eq!(
            told,
            [
                ("search1", Some(10_000), 4.0),
                ("search1", Some(1_000_000), 40.0),
                ("bulk", Some(4_000), 10.0)
            ]
        );
        let targets = targets(&figures);
        let of = |what: &str| {
            let found = targets.iter().find(|t| t.what == what);
            found.unwrap_or_else(|| panic!("{what}: {targets:?}")).met
        };
        assert_eq!(of("search, one query, 10000 rows"), Some(false));
        assert_eq!(of("search, one query, 1000000 rows"), Some(true));
        assert_eq!(of("embedding one text"), None);
        assert_eq!(of("memory for a million vectors"), None);
    }

    #[test]
    fn memory_is_that_of_the_process_with_the_most() {
        let mut figures = vec![
            figure("memory1m", "cpu", None),
            figure("memory1m", "gpu:0", None),
        ];
        figures[0].peak = Some(1_700.0);
        let met = |figures: &[Figure]| targets(figures).pop().unwrap().met;
        assert_eq!(met(&figures), Some(true));
        figures[1].peak = Some(2_300.0);
        assert_eq!(met(&figures), Some(false));
    }
}
