//! What the system knows of this process. Only Linux tells all of it without foreign code; other
//! systems tell of memory alone.

use super::page::Page;

/// Tells what there is to know.
pub(super) fn tell(page: &mut Page) {
    #[cfg(target_os = "linux")]
    linux::tell(page);
    #[cfg(not(target_os = "linux"))]
    if let Some(memory) = memory_stats::memory_stats() {
        resident(page, memory.physical_mem as f64);
    }
}

fn resident(page: &mut Page, bytes: f64) {
    page.gauge(
        "process_resident_memory_bytes",
        "Memory that is really there, files that are mapped included",
        bytes,
    );
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;

    use super::{Page, resident};

    pub(super) fn tell(page: &mut Page) {
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            memory(&status, page);
            if let Some(threads) = field(&status, "Threads") {
                page.gauge("process_threads", "Threads", threads);
            }
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // The folder being read is one of them.
            let open = files.count().saturating_sub(1);
            page.gauge(
                "process_open_fds",
                "Open files, connections included",
                open as f64,
            );
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        if let Some(most) = limit.current {
            page.gauge(
                "process_max_fds",
                "Most files that may be open",
                most as f64,
            );
        }
        if let Ok(stat) = fs::read_to_string("/proc/self/stat") {
            times(&stat, page);
        }
    }

    fn memory(status: &str, page: &mut Page) {
        if let Some(kib) = field(status, "VmRSS") {
            resident(page, kib * 1024.0);
        }
        let kinds = [
            ("anonymous", "RssAnon"),
            ("mapped", "RssFile"),
            ("shared", "RssShmem"),
        ];
        let parts = kinds.into_iter().filter_map(|(kind, name)| {
            let bytes = field(status, name)? * 1024.0;
            Some((vec![("kind", kind.to_owned())], bytes))
        });
        page.gauges(
            "sela_process_memory_bytes",
            "Parts of the memory that is there: `anonymous` is what the process made, `mapped` are \
             files, which the system may take back",
            parts,
        );
    }

    /// The number of a line of /proc/self/status.
    fn field(status: &str, name: &str) -> Option<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let words = line.strip_prefix(':')?.split_whitespace().next()?;
        words.parse().ok()
    }

    fn times(stat: &str, page: &mut Page) {
        // The name, in parentheses, may hold anything.
        let Some((_, rest)) = stat.rsplit_once(") ") else {
            return;
        };
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok());
        let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
        if let (Some(user), Some(system)) = (number(11), number(12)) {
            page.counter(
                "process_cpu_seconds",
                "Processor time of all threads",
                (user + system) / ticks,
            );
        }
        let booted = fs::read_to_string("/proc/stat").ok();
        let booted = booted.as_deref().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
            line.trim().parse::<f64>().ok()
        });
        if let (Some(booted), Some(started)) = (booted, number(19)) {
            page.gauge(
                "process_start_time_seconds",
                "When the process began, in seconds since 1970",
                booted + started / ticks,
            );
        }
    }
}
