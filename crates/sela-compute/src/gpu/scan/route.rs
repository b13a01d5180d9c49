//! Which silicon a search should run on: a model of what it costs, and the reason in words.

use std::time::Duration;

use super::probe::Probe;

/// Rows' bytes whose scoring costs as much as starting a search on the CPU.
const CPU_START: Duration = Duration::from_micros(5);
/// Queries that share one reading of the rows on the device, without matrices and with them.
const SHARED_FEW: u64 = 8;
const SHARED_MATRIX: u64 = 64;
/// Rows of a group, all of which are scored again.
const GROUP_ROWS: u64 = 32;
/// How often a collection is searched, if it is at all: what bringing its rows in may cost is
/// spread over so many searches.
const SEARCHES: f64 = 20.0;

/// What a search will have to do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Request {
    /// Bytes of rows that have copies on the device.
    pub resident_bytes: u64,
    /// Bytes of rows that have none.
    pub missing_bytes: u64,
    /// Bytes of the rows that take part, on the device or not.
    pub live_bytes: u64,
    /// Bytes of a row.
    pub row_bytes: u64,
    /// Queries.
    pub queries: u64,
    /// Rows wanted for each.
    pub k: u64,
    /// Bytes of rows that the device may keep.
    pub cache_bytes: u64,
    /// Whether batches go over matrices.
    pub matrix: bool,
}

/// Where a search runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// On the CPU.
    Cpu,
    /// On the GPU.
    Gpu,
}

/// Where a search should run, and why.
///
/// The CPU reads the rows that take part; a further query costs it a quarter of that. The device
/// starts late, reads all rows once for several queries, takes in first those it lacks, and leaves
/// the groups it picks to be scored by the CPU.
pub fn route(probe: &Probe, request: &Request) -> (Route, String) {
    let Request {
        resident_bytes,
        missing_bytes,
        live_bytes,
        row_bytes,
        queries,
        k,
        cache_bytes,
        matrix,
    } = *request;
    if k > super::GPU_K_MAX as u64 {
        let most = super::GPU_K_MAX;
        return (
            Route::Cpu,
            format!("k is {k}, the GPU finds {most} at most"),
        );
    }
    let seconds = |bytes: f64, speed: f64| bytes / speed.max(1.0);
    let cpu = CPU_START.as_secs_f64()
        + seconds(
            live_bytes as f64 * (3 + queries) as f64 / 4.0,
            probe.cpu_bytes_per_s,
        );
    let all = resident_bytes + missing_bytes;
    let shared = match matrix {
        true if queries >= super::work::MATRIX_LEAST as u64 => SHARED_MATRIX,
        _ => SHARED_FEW,
    };
    let passes = queries.div_ceil(shared).max(1) as f64;
    let rescored = (queries * k * GROUP_ROWS * row_bytes).min(live_bytes.saturating_mul(queries));
    let steady = probe.round_trip.as_secs_f64()
        + seconds(all as f64 * passes, probe.scan_bytes_per_s)
        + seconds(rescored as f64, probe.cpu_bytes_per_s);
    // What does not fit has to come in again for every search.
    let streamed = all.saturating_sub(cache_bytes).min(missing_bytes);
    let first = seconds((missing_bytes - streamed) as f64, probe.upload_bytes_per_s);
    let gpu = steady + seconds(streamed as f64, probe.upload_bytes_per_s) + first / SEARCHES;
    let route = if gpu < cpu { Route::Gpu } else { Route::Cpu };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let reason = format!(
        "about {:.2} ms on the CPU, {:.2} ms on the GPU ({:.1} MiB of rows there, {:.1} MiB not, \
         {queries} queries)",
        cpu * 1e3,
        gpu * 1e3,
        mib(resident_bytes),
        mib(missing_bytes),
    );
    (route, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> Probe {
        Probe {
            round_trip: Duration::from_micros(80),
            scan_bytes_per_s: 2e12,
            upload_bytes_per_s: 1e10,
            cpu_bytes_per_s: 5e10,
        }
    }

    fn rows(resident: u64, missing: u64, queries: u64) -> Request {
        Request {
            resident_bytes: resident,
            missing_bytes: missing,
            live_bytes: resident + missing,
            row_bytes: 768,
            queries,
            k: 10,
            cache_bytes: 2 << 30,
            matrix: false,
        }
    }

    #[test]
    fn little_stays_on_the_cpu_and_much_goes_to_the_device() {
        let to = |request: Request| route(&probe(), &request).0;
        assert_eq!(to(rows(1 << 20, 0, 1)), Route::Cpu);
        assert_eq!(to(rows(1 << 30, 0, 1)), Route::Gpu);
        // It pays to bring in what will stay.
        assert_eq!(to(rows(0, 1 << 30, 1)), Route::Gpu);
        // It does not pay to stream for one query, and it does for many.
        assert_eq!(to(rows(0, 20 << 30, 1)), Route::Cpu);
        assert_eq!(to(rows(0, 20 << 30, 200)), Route::Gpu);
    }

    #[test]
    fn few_live_rows_and_a_large_k_stay_on_the_cpu() {
        let sparse = Request {
            live_bytes: 1 << 20,
            ..rows(1 << 30, 0, 1)
        };
        assert_eq!(route(&probe(), &sparse).0, Route::Cpu);
        let deep = Request {
            k: 2_000,
            ..rows(1 << 30, 0, 1)
        };
        let (to, why) = route(&probe(), &deep);
        assert_eq!(to, Route::Cpu);
        assert!(why.contains("2000") && why.contains("1024"), "{why}");
    }
}
