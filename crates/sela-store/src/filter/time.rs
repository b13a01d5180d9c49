//! Moments as people write them in payloads.

/// Nanoseconds since the year 1970, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Instant(i128);

const DAY: i128 = 86_400;

impl Instant {
    /// Reads RFC 3339 and what leaves out parts of it: the offset (then UTC), the seconds and
    /// their fraction, or all but the date. A space may stand for the `T`, and before the offset.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim_start();
        let year = digits(&mut rest, 4)?;
        sign(&mut rest, "-")?;
        let month = digits(&mut rest, 2)?;
        sign(&mut rest, "-")?;
        let day = digits(&mut rest, 2)?;
        let days = days_since_epoch(year, month, day)?;
        if rest.is_empty() {
            return Some(Self(days * DAY * 1_000_000_000));
        }
        sign(&mut rest, "Tt ")?;
        let hour = digits(&mut rest, 2).filter(|hour| *hour < 24)?;
        sign(&mut rest, ":")?;
        let minute = digits(&mut rest, 2).filter(|minute| *minute < 60)?;
        let (mut second, mut nanos) = (0, 0);
        let seconds = sign(&mut rest, ":").is_some();
        if seconds {
            // A leap second is taken for the one after it.
            second = digits(&mut rest, 2).filter(|second| *second <= 60)?;
            nanos = fraction(&mut rest)?;
        }
        let offset = offset(rest)?;
        if !seconds && !rest.is_empty() {
            return None;
        }
        let seconds = days * DAY + hour * 3600 + minute * 60 + second - offset;
        Some(Self(seconds * 1_000_000_000 + nanos))
    }
}

/// Exactly `count` digits.
fn digits(rest: &mut &str, count: usize) -> Option<i128> {
    let (head, tail) = rest.split_at_checked(count)?;
    if !head.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    *rest = tail;
    head.parse().ok()
}

/// One of these characters.
fn sign(rest: &mut &str, any: &str) -> Option<char> {
    let first = rest.chars().next().filter(|c| any.contains(*c))?;
    *rest = &rest[first.len_utf8()..];
    Some(first)
}

/// A fraction of a second in nanoseconds; finer digits are dropped.
fn fraction(rest: &mut &str) -> Option<i128> {
    if sign(rest, ".").is_none() {
        return Some(0);
    }
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (digits, tail) = rest.split_at(end);
    *rest = tail;
    let kept = &digits[..digits.len().min(9)];
    let value: i128 = kept.parse().ok()?;
    Some(value * 10_i128.pow(9 - kept.len() as u32))
}

/// Seconds that the clock read is ahead of UTC.
fn offset(text: &str) -> Option<i128> {
    if matches!(text, "" | "Z" | "z" | " Z" | " UTC") {
        return Some(0);
    }
    let mut rest = text.strip_prefix(' ').unwrap_or(text);
    let ahead = if sign(&mut rest, "+-")? == '-' { -1 } else { 1 };
    let hours = digits(&mut rest, 2).filter(|hours| *hours < 24)?;
    if rest.is_empty() {
        return Some(ahead * hours * 3600);
    }
    sign(&mut rest, ":");
    let minutes = digits(&mut rest, 2).filter(|minutes| *minutes < 60)?;
    rest.is_empty()
        .then_some(ahead * (hours * 3600 + minutes * 60))
}

/// Days from 1970-01-01 to a day of the Gregorian calendar, if there is such a day.
fn days_since_epoch(year: i128, month: i128, day: i128) -> Option<i128> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=last).contains(&day) {
        return None;
    }
    // Years that begin in March, so that the leap day is the last of its year.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year * 365 + year / 4 - year / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_and_compared() {
        let at = |text: &str| Instant::parse(text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(at("1970-01-01"), Instant(0));
        assert_eq!(at("2000-02-29T12:00:00Z"), Instant(951_825_600_000_000_000));
        assert_eq!(at("1969-12-31T23:59:59.5Z"), Instant(-500_000_000));
        for same in [
            "2024-03-01T10:30:00Z",
            " 2024-03-01 10:30:00z",
            "2024-03-01T10:30",
            "2024-03-01T10:30:00.000000000999 UTC",
            "2024-03-01 12:30:00+02:00",
            "2024-03-01 12:30:00 +02",
            "2024-03-01T05:00:00-0530",
        ] {
            let (expected, found) = (at("2024-03-01T10:30:00Z"), at(same));
            assert_eq!(found.0 / 1000, expected.0 / 1000, "{same}");
        }
        assert!(at("0000-01-01") < at("0001-01-01"));
        assert!(at("2023-12-31T23:59:60Z") == at("2024-01-01"));
        for bad in [
            "",
            "2024",
            "2024-13-01",
            "2023-02-29",
            "2024-01-00",
            "2024-01-01T24:00:00Z",
            "2024-01-01T10",
            "2024-01-01T10:00:00.Z",
            "2024-01-01T10:00:00+",
            "2024-01-01T10:00Z",
            "2024-01-01T10:00:00Zz",
            "hello",
            "2024-01-01T10:00:61Z",
            "２０２４-01-01",
        ] {
            assert_eq!(Instant::parse(bad), None, "{bad}");
        }
    }
}
