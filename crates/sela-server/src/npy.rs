//! NumPy's `.npy` as a body: rows of f16, f32 or f64.
//!
//! The head is read here, as it comes from strangers: the libraries for it build nested literals of
//! any depth and multiply shapes of any size.

use crate::dto::rows::Rows;
use crate::error::ApiError;

/// The type of such a body.
pub(crate) const CONTENT_TYPE: &str = "application/x-npy";

/// How every file begins, before its version.
const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest head that is read.
const HEAD_MAX: usize = 16 << 10;

/// What a head says.
struct Head<'a> {
    kind: &'a str,
    fortran: bool,
    shape: Vec<u64>,
}

/// Reads a two-dimensional array, little endian, row after row.
pub(crate) fn read(bytes: &[u8]) -> Result<Rows, ApiError> {
    let no_npy = || ApiError::malformed("malformed_npy", "the body is no .npy file");
    let (head, rest) = split(bytes).ok_or_else(no_npy)?;
    let head = Head::read(head).ok_or_else(no_npy)?;
    let refused = |why: String| {
        ApiError::invalid("body", format!("the array cannot be used: {why}"))
            .hint("send a two-dimensional array of float16, float32 or float64 in C order")
    };
    let &[rows, dim] = head.shape.as_slice() else {
        let axes = head.shape.len();
        return Err(refused(format!("its shape has {axes} axes")));
    };
    if head.fortran && rows > 1 && dim > 1 {
        return Err(refused("it is in Fortran order".to_owned()));
    }
    let (size, read): (u64, fn(&[u8]) -> f32) = match head.kind {
        "<f2" => (2, |b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()),
        "<f4" => (4, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        "<f8" => (8, |b| {
            f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32
        }),
        kind => return Err(refused(format!("its numbers are `{kind}`"))),
    };
    let bytes = rows.checked_mul(dim).and_then(|n| n.checked_mul(size));
    if bytes != Some(rest.len() as u64) {
        let found = rest.len();
        let detail = format!(
            "the header tells of {rows} rows of {dim} numbers, and {found} bytes follow it"
        );
        return Err(ApiError::malformed("malformed_npy", detail));
    }
    Ok(Rows {
        dim: dim as usize,
        numbers: rest.chunks_exact(size as usize).map(read).collect(),
    })
}

/// The head and what follows it.
fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (&[major, _minor], rest) = rest.split_first_chunk()?;
    let (length, rest) = match major {
        1 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::try_from(u32::from_le_bytes(*length)).ok()?, rest)
        }
        _ => return None,
    };
    let (head, rest) = rest.split_at_checked(length)?;
    let head = std::str::from_utf8(head).ok();
    Some((head.filter(|head| head.len() <= HEAD_MAX)?, rest))
}

impl<'a> Head<'a> {
    /// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`, keys in any order.
    fn read(head: &'a str) -> Option<Self> {
        let inside = head.trim().strip_prefix('{')?.strip_suffix('}')?;
        let value = |key: &str| {
            let (_, rest) = inside.split_once(&format!("'{key}':"))?;
            Some(rest.trim_start())
        };
        let kind = value("descr")?;
        // Records are a list; they are told as such.
        let kind = match kind.strip_prefix('\'') {
            Some(rest) => rest.split_once('\'')?.0,
            None => "records",
        };
        let order = value("fortran_order")?;
        let fortran = order.starts_with("True");
        if !fortran && !order.starts_with("False") {
            return None;
        }
        let (axes, _) = value("shape")?.strip_prefix('(')?.split_once(')')?;
        let axes = axes
            .split(',')
            .map(str::trim)
            .filter(|axis| !axis.is_empty());
        Some(Self {
            kind,
            fortran,
            shape: axes.map(|axis| axis.parse().ok()).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::read;

    fn npy(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
        let order = if fortran { "True" } else { "False" };
        let mut head =
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
        while (10 + head.len() + 1) % 64 != 0 {
            head.push(' ');
        }
        head.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((head.len() as u16).to_le_bytes());
        bytes.extend(head.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn all_three_widths_are_read() {
        let numbers = [1.0f32, -2.5, 0.0, 8.0];
        let f2: Vec<u8> = (numbers.iter())
            .flat_map(|&x| half::f16::from_f32(x).to_le_bytes())
            .collect();
        let f4: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let f8: Vec<u8> = (numbers.iter())
            .flat_map(|&x| f64::from(x).to_le_bytes())
            .collect();
        for (descr, data) in [("<f2", f2), ("<f4", f4), ("<f8", f8)] {
            let rows = read(&npy(descr, false, "(2, 2)", &data)).unwrap();
            assert_eq!((rows.dim, &rows.numbers[..]), (2, &numbers[..]), "{descr}");
        }
    }

    #[test]
    fn what_is_no_such_array_is_refused() {
        let data = [0u8; 16];
        for (bytes, status) in [
            (b"rubbish".to_vec(), 400),
            (npy("<f4", false, "(2, 3)", &data), 400),
            (npy("<f4", false, "(9223372036854775807, 4)", &data), 400),
            (npy("<f4", false, "(99999999999999999999, 4)", &data), 400),
            (npy("<f4", false, "((((((2, 2))))))", &data), 400),
            (b"\x93NUMPY\x01\x00\xff\xff{}".to_vec(), 400),
            (b"\x93NUMPY\x07\x00\x02\x00{}".to_vec(), 400),
            (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}".to_vec(), 400),
            (npy("<f4", false, "(4,)", &data), 422),
            (npy("<f4", true, "(2, 2)", &data), 422),
            (npy(">f4", false, "(2, 2)", &data), 422),
            (npy("<i4", false, "(2, 2)", &data), 422),
        ] {
            assert_eq!(read(&bytes).unwrap_err().status.as_u16(), status);
        }
    }
}
