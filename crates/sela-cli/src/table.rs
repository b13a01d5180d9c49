//! Plain columns for people, and numbers as they read them.

/// Lines of columns, each as wide as its widest cell; the last is left as it is.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|r| r.get(column))
            .map(|c| c.chars().count())
            .max()
            .unwrap_or(0)
    };
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |row: &Vec<String>| {
        let mut text = String::new();
        for (at, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if at + 1 < row.len() {
                text.extend(std::iter::repeat_n(
                    ' ',
                    widths[at] + 2 - cell.chars().count(),
                ));
            }
        }
        text.trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// A count with commas: `31,102`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size for people: `87.4 MB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    let mut value = n as f64;
    let mut unit = "bytes";
    for next in UNITS {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if unit == "bytes" {
        format!("{n} bytes")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// The start of a text on one line.
pub(crate) fn one_line(text: &str, chars_max: usize) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match clean.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}...", clean[..end].trim_end()),
        None => clean,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_read_well() {
        assert_eq!(super::count(0), "0");
        assert_eq!(super::count(999), "999");
        assert_eq!(super::count(31_102), "31,102");
        assert_eq!(super::count(1_000_000), "1,000,000");
        assert_eq!(super::bytes(12), "12 bytes");
        assert_eq!(super::bytes(91_632_363), "91.6 MB");
    }

    #[test]
    fn columns_line_up() {
        let rows = [["a", "bb", "c"], ["aaa", "b", ""]].map(|r| r.map(str::to_owned).to_vec());
        assert_eq!(super::columns(&rows), "a    bb  c\naaa  b\n");
    }
}
