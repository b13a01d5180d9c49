//! Memory goes back to the system when the model is open and when many connections have ended.
//!
//! What a connection takes lies among what others take, and glibc's allocator keeps freed memory
//! between blocks in use until it is asked for it: after ten thousand connections that is some
//! hundred MiB. Other allocators give it back by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Connections that end before memory is given back: about one MiB.
const ENDED: u64 = 64;
/// How long a wave of connections has to end, and how many waves may follow each other.
const WAVE: Duration = Duration::from_secs(1);
const WAVES: usize = 8;

/// Counts connections that have ended; clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ended(Arc<Count>);

#[derive(Debug, Default)]
struct Count {
    ended: AtomicU64,
    many: Notify,
}

impl Ended {
    /// One more.
    pub(crate) fn note(&self) {
        if self.0.ended.fetch_add(1, Ordering::Relaxed) + 1 == ENDED {
            self.0.many.notify_one();
        }
    }

    /// Gives memory back whenever many have ended, for ever.
    pub(crate) async fn tend(self) {
        loop {
            self.0.many.notified().await;
            // The last of a wave keep whole pages with what lies beside them, so it goes on until a
            // while has passed in which none ended; not for ever, as some come and go always.
            for _ in 0..WAVES {
                tokio::time::sleep(WAVE).await;
                let ended = self.0.ended.swap(0, Ordering::Relaxed);
                if ended == 0 {
                    break;
                }
                if let Ok(true) = tokio::task::spawn_blocking(trim).await {
                    tracing::debug!(ended, "memory of connections that ended was given back");
                }
            }
        }
    }
}

/// Gives freed memory back; whether there was any.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
pub(crate) fn trim() -> bool {
    // SAFETY: the function takes a number, may be called by any thread at any time, and touches
    // nothing but memory that is not in use.
    unsafe { libc::malloc_trim(0) == 1 }
}

/// The allocator does so by itself.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn trim() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last of many wakes the one who gives back, those before it do not; and so again once
    /// memory has been given back.
    #[tokio::test]
    async fn the_last_of_many_wakes() {
        let ended = Ended::default();
        let woken = async || {
            tokio::select! {
                biased;
                () = ended.0.many.notified() => true,
                () = std::future::ready(()) => false,
            }
        };
        for _ in 0..2 {
            for _ in 1..ENDED {
                ended.note();
                assert!(!woken().await);
            }
            ended.note();
            assert!(woken().await);
            assert_eq!(ended.0.ended.swap(0, Ordering::Relaxed), ENDED);
        }
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn freed_memory_goes_back() {
        // Blocks too small for maps of their own, and one in use behind them all.
        let blocks: Vec<Vec<u8>> = (0..2_000).map(|_| vec![1; 16 << 10]).collect();
        let last = vec![1u8; 16 << 10];
        drop(blocks);
        assert!(trim());
        assert_eq!(last.len(), 16 << 10);
    }
}
