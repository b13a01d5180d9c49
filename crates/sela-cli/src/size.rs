//! Sizes as people write them: `2GiB`, `512 MiB`, `1500000000`.

const UNITS: [(&str, u64); 9] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("b", 1),
];

/// The bytes of a size; without a unit it is in bytes.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size: write 2GiB, 512MiB or 1500000000, for example");
    let lower = text.trim().to_ascii_lowercase();
    let unit = UNITS.iter().find(|(unit, _)| lower.ends_with(unit));
    let (unit, factor) = unit.copied().unwrap_or(("", 1));
    let number = lower[..lower.len() - unit.len()].trim_end();
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // Fractions of a byte do not exist, and more than six digits of one are a mistake.
    if !digits(whole) || !digits(part) || part.len() > 6 || (factor == 1 && number != whole) {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let part = part.parse::<u64>().map_err(|_| wrong())? as u128 * u128::from(factor)
        / 10u128.pow(part.len() as u32);
    let bytes = u128::from(whole) * u128::from(factor) + part;
    u64::try_from(bytes).map_err(|_| format!("`{text}` is more bytes than can be counted"))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1500000000", 1_500_000_000),
            ("2GiB", 2 << 30),
            ("512MiB", 512 << 20),
            ("512 mib", 512 << 20),
            ("1.5GiB", 3 << 29),
            ("10GB", 10_000_000_000),
            ("7kb", 7_000),
            ("64 B", 64),
            ("3TiB", 3 << 40),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for text in [
            "",
            "GiB",
            "2 goats",
            "-1MiB",
            "1.5",
            "1.GiB",
            ".5GiB",
            "1e9",
            "0x10",
            "2GiBs",
            "1.2.3MiB",
            "+3MiB",
            "1.1234567GiB",
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(&format!("`{text}`")), "{said}");
        }
        let said = parse("99999999999TiB").unwrap_err();
        assert!(said.contains("more bytes"), "{said}");
    }
}
