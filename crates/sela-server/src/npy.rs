//! NumPy's `.npy` as a body: rows of f16, f32 or f64.

use npyz::{DType, NpyHeader, Order};

use crate::dto::rows::Rows;
use crate::error::ApiError;

/// The type of such a body.
pub(crate) const CONTENT_TYPE: &str = "application/x-npy";

/// Reads a two-dimensional array, little endian, row after row.
pub(crate) fn read(bytes: &[u8]) -> Result<Rows, ApiError> {
    let mut rest = bytes;
    let header = NpyHeader::from_reader(&mut rest)
        .map_err(|e| ApiError::malformed("malformed_npy", format!("the body is no .npy: {e}")))?;
    let refused = |why: String| {
        ApiError::invalid("body", format!("the array cannot be used: {why}"))
            .hint("send a two-dimensional array of float16, float32 or float64 in C order")
    };
    let &[rows, dim] = header.shape() else {
        let axes = header.shape().len();
        return Err(refused(format!("its shape has {axes} axes")));
    };
    if header.order() == Order::Fortran && rows > 1 && dim > 1 {
        return Err(refused("it is in Fortran order".to_owned()));
    }
    let kind = match header.dtype() {
        DType::Plain(kind) => kind.to_string(),
        _ => return Err(refused("its rows are records".to_owned())),
    };
    let (size, read): (u64, fn(&[u8]) -> f32) = match kind.as_str() {
        "<f2" => (2, |b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()),
        "<f4" => (4, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        "<f8" => (8, |b| {
            f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32
        }),
        _ => return Err(refused(format!("its numbers are `{kind}`"))),
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
            (npy("<f4", false, "(4,)", &data), 422),
            (npy("<f4", true, "(2, 2)", &data), 422),
            (npy(">f4", false, "(2, 2)", &data), 422),
            (npy("<i4", false, "(2, 2)", &data), 422),
        ] {
            assert_eq!(read(&bytes).unwrap_err().status.as_u16(), status);
        }
    }
}
