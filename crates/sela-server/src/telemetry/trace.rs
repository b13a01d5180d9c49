//! Traces as the W3C writes them: `00-TRACE-SPAN-FLAGS`.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes as lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hex<const N: usize>(pub(super) [u8; N]);

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The place of a request in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    /// The trace's id: the caller's, or a new one.
    pub(crate) id: Hex<16>,
    /// The request's own span.
    pub(crate) span: Hex<8>,
    /// The caller's.
    pub(super) parent: Option<Hex<8>>,
    /// Whether the caller named a trace.
    pub(crate) came: bool,
    /// Whether the span is sent to the collector.
    pub(crate) kept: bool,
    sampled: bool,
}

impl Trace {
    /// The trace that a header names, or a new one. A caller decides for what it traces; of new
    /// traces a share is kept. A share of 0 keeps none at all.
    pub(crate) fn of(header: Option<&str>, share: f64) -> Self {
        let span = Hex((next() | 1).to_be_bytes());
        if let Some((id, parent, sampled)) = header.and_then(parse) {
            return Self {
                id,
                span,
                parent: Some(parent),
                came: true,
                kept: sampled && share > 0.0,
                sampled,
            };
        }
        let (high, low) = (next(), next());
        let id = (u128::from(high) << 64) | u128::from(low | 1);
        let kept = (low >> 11) as f64 / (1u64 << 53) as f64 <= share && share > 0.0;
        Self {
            id: Hex(id.to_be_bytes()),
            span,
            parent: None,
            came: false,
            kept,
            sampled: kept,
        }
    }

    /// The header for what belongs to the request's span.
    pub(crate) fn header(&self) -> String {
        let flags = u8::from(self.sampled);
        format!("00-{}-{}-{flags:02x}", self.id, self.span)
    }
}

fn parse(header: &str) -> Option<(Hex<16>, Hex<8>, bool)> {
    let mut parts = header.split('-');
    let [version] = bytes(parts.next()?)?;
    let (id, parent) = (bytes(parts.next()?)?, bytes(parts.next()?)?);
    let [flags] = bytes(parts.next()?)?;
    // A later version may say more; this one does not.
    let known = version != 0xff && (version != 0 || parts.next().is_none());
    let named = id != [0; 16] && parent != [0; 8];
    (known && named).then_some((Hex(id), Hex(parent), flags & 1 == 1))
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Ids need not be secret, only different: splitmix64 over a count that begins at random.
fn next() -> u64 {
    static STATE: LazyLock<AtomicU64> = LazyLock::new(|| {
        let seed = getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
        AtomicU64::new(seed)
    });
    let mut z = STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::Trace;

    #[test]
    fn traces_are_taken_as_the_w3c_writes_them() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = format!("00-{id}-00f067aa0ba902b7-01");
        let trace = Trace::of(Some(&parent), 1.0);
        assert_eq!(trace.id.to_string(), id);
        assert!(trace.came && trace.kept);
        let header = trace.header();
        assert!(header.starts_with(&format!("00-{id}-")) && header.ends_with("-01"));
        assert!(!header.contains("00f067aa0ba902b7"), "{header}");
        let later = parent.replacen("00-", "01-", 1) + "-more";
        assert!(Trace::of(Some(&later), 1.0).came);
        let zeros = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let more = format!("{parent}-x");
        let large = parent.to_uppercase();
        for bad in ["", "00", "ü", &zeros, &more, &large] {
            let made = Trace::of(Some(bad), 1.0);
            assert!(!made.came, "{bad}");
            assert_ne!(made.id.to_string(), id);
        }
    }

    #[test]
    fn callers_decide_for_their_traces_and_a_share_of_the_others_is_kept() {
        let unsampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(!Trace::of(Some(unsampled), 1.0).kept);
        assert!(Trace::of(Some(unsampled), 1.0).header().ends_with("-00"));
        assert!(Trace::of(Some(sampled), 0.1).kept);
        assert!(!Trace::of(Some(sampled), 0.0).kept, "nothing is sent");
        let kept = |share| (0..4000).filter(|_| Trace::of(None, share).kept).count();
        assert_eq!((kept(0.0), kept(1.0)), (0, 4000));
        let half = kept(0.5);
        assert!((1600..2400).contains(&half), "{half} of 4000");
    }
}
