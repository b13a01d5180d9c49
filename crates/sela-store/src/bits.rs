//! Bitmaps of rows: one bit per row, lowest first.

/// A bitmap of `rows` ones; bits beyond are 0.
pub(crate) fn ones(rows: u32) -> Vec<u64> {
    let mut words = vec![u64::MAX; rows as usize / 64];
    if !rows.is_multiple_of(64) {
        words.push((1 << (rows % 64)) - 1);
    }
    words
}

/// Whether a row's bit is set.
pub(crate) fn get(words: &[u64], row: u32) -> bool {
    words
        .get(row as usize / 64)
        .is_some_and(|word| word >> (row % 64) & 1 == 1)
}

/// Sets a row's bit.
pub(crate) fn set(words: &mut [u64], row: u32) {
    words[row as usize / 64] |= 1 << (row % 64);
}

/// Clears a row's bit; whether it was set.
pub(crate) fn clear(words: &mut [u64], row: u32) -> bool {
    let was = get(words, row);
    if was {
        words[row as usize / 64] &= !(1 << (row % 64));
    }
    was
}

/// How many bits are set.
pub(crate) fn count(words: &[u64]) -> u32 {
    words.iter().map(|word| word.count_ones()).sum()
}

/// The rows whose bits are set, from `first` on.
pub(crate) fn iter(words: &[u64], first: u32) -> impl Iterator<Item = u32> + '_ {
    let start = first as usize / 64;
    words
        .iter()
        .enumerate()
        .skip(start)
        .flat_map(move |(index, &word)| {
            let mut left = if index == start {
                word & (u64::MAX << (first % 64))
            } else {
                word
            };
            std::iter::from_fn(move || {
                if left == 0 {
                    return None;
                }
                let bit = left.trailing_zeros();
                left &= left - 1;
                Some(index as u32 * 64 + bit)
            })
        })
}
