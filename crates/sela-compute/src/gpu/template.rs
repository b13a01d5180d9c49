//! Loops and conditions in WGSL, resolved before the shader is compiled.
//!
//! Sums of a tile must stay in registers, and an array in a shader is only certain to do so once
//! every index is a number. So loops over such sums are written out, by lines of comments:
//!
//! ```text
//! //# for i in ROWS     the lines up to `end` for i = 0 .. ROWS; `$i` and `$(i*ROWS+j)` in them
//! //# if WIDE           the lines up to `else` or `end` when WIDE is not 0
//! ```
//!
//! Names are constants of the kernel (or numbers), variables are single letters.

use crate::error::Error;

/// Named numbers, the latest last.
pub(super) type Names<'a> = Vec<(&'a str, u32)>;

/// Writes out `text` with `names`.
pub(super) fn expand(text: &str, names: &Names<'_>) -> Result<String, Error> {
    let lines: Vec<&str> = text.lines().collect();
    let mut out = String::with_capacity(text.len() * 4);
    block(&lines, &mut names.clone(), &mut out)?;
    Ok(out)
}

fn wrong(what: &str, line: &str) -> Error {
    Error::SelfTest(format!("a shader's text: {what} in {line:?}"))
}

fn value(name: &str, names: &Names<'_>) -> Option<u32> {
    let found = names.iter().rev().find(|(known, _)| *known == name);
    found.map(|(_, n)| *n).or_else(|| name.parse().ok())
}

/// The line after the directive, and its indentation gone, if `line` is one.
fn directive(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix("//# ").map(str::trim)
}

fn block<'a>(lines: &[&'a str], names: &mut Names<'a>, out: &mut String) -> Result<(), Error> {
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let Some(words) = directive(line) else {
            substitute(line, names, out)?;
            out.push('\n');
            at += 1;
            continue;
        };
        let (middle, end) = matching(lines, at)?;
        let first = at + 1..middle.unwrap_or(end);
        let words: Vec<&str> = words.split_whitespace().collect();
        match words[..] {
            ["for", name, "in", count] => {
                let count = value(count, names).ok_or_else(|| wrong("unknown name", line))?;
                for n in 0..count {
                    names.push((name, n));
                    block(&lines[first.clone()], names, out)?;
                    names.pop();
                }
            }
            ["if", name] => {
                let held = value(name, names).ok_or_else(|| wrong("unknown name", line))?;
                let second = middle.map_or(end..end, |middle| middle + 1..end);
                let taken = if held == 0 { second } else { first };
                block(&lines[taken], names, out)?;
            }
            _ => return Err(wrong("no such directive", line)),
        }
        at = end + 1;
    }
    Ok(())
}

/// Where the `else` and the `end` of the directive at `start` are.
fn matching(lines: &[&str], start: usize) -> Result<(Option<usize>, usize), Error> {
    let mut depth = 0;
    let mut middle = None;
    for (at, line) in lines.iter().enumerate().skip(start) {
        match directive(line) {
            Some("end") if depth == 1 => return Ok((middle, at)),
            Some("end") => depth -= 1,
            Some("else") if depth == 1 => middle = Some(at),
            Some("else") | None => {}
            Some(_) => depth += 1,
        }
    }
    Err(wrong("no end", lines[start]))
}

/// Puts numbers for `$i` and `$(i*ROWS+j)`.
fn substitute(line: &str, names: &Names<'_>, out: &mut String) -> Result<(), Error> {
    let mut rest = line;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (formula, len) = match rest.strip_prefix('(').and_then(|inner| inner.find(')')) {
            Some(end) => (&rest[1..=end], end + 2),
            None => (rest.get(..1).unwrap_or(""), 1),
        };
        let number = formula.split('+').try_fold(0, |sum, product| {
            let factors = product.split('*').map(|factor| value(factor, names));
            Some(sum + factors.product::<Option<u32>>()?)
        });
        let number = number.ok_or_else(|| wrong("unknown name", line))?;
        out.push_str(&number.to_string());
        rest = &rest[len.min(rest.len())..];
    }
    out.push_str(rest);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_are_written_out_and_conditions_resolved() {
        let text = "a\n//# for i in N\n//# for j in 2\nx$i_$ju = $(i*N+j);\n//# end\n//# end\n\
                    //# if OFF\nno\n//# else\n  //# if N\nyes\n  //# end\n//# end\n";
        let found = expand(text, &vec![("N", 2), ("OFF", 0)]).unwrap();
        let expected = "a\nx0_0u = 0;\nx0_1u = 1;\nx1_0u = 2;\nx1_1u = 3;\nyes\n";
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for text in [
            "//# for i in X\n//# end",
            "//# if 1\n",
            "//# end",
            "//# what\n//# end",
            "$y",
            "$",
        ] {
            let error = expand(text, &vec![]).unwrap_err();
            assert!(error.to_string().contains("shader's text"), "{error}");
        }
    }
}
