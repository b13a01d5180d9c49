//! Which names a collection may have: safe as a folder's name on every system.

use crate::error::{Error, Result};

/// Longest name of a collection, in characters.
pub const NAME_MAX: usize = 128;

/// Checks a collection's name: 1 to [`NAME_MAX`] of `A-Z a-z 0-9 _ . -`, no dot in front.
pub(crate) fn check(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if (1..=NAME_MAX).contains(&name.len()) && !name.starts_with('.') && name.chars().all(plain) {
        return Ok(());
    }
    Err(Error::CollectionName {
        name: name.chars().take(NAME_MAX + 1).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn names_are_plain() {
        for good in ["a", "kjv-demo", "A.b_c-9", &"x".repeat(128)] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".a",
            "a/b",
            "a b",
            "ä",
            "a\0",
            "a:b",
            &"x".repeat(129),
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
