//! The frame of a tar archive (POSIX.1-1988 "ustar", sizes from 8 GiB on as GNU writes them).

/// Bytes that everything in an archive is padded to.
pub(super) const BLOCK: u64 = 512;
/// Two empty blocks end an archive.
pub(super) const END: [u8; 1024] = [0; 1024];
/// Longest name of a file.
pub(super) const NAME_MAX: usize = 100;
/// Largest size that the plain field holds: eleven octal digits.
const OCTAL_MAX: u64 = (1 << 33) - 1;

/// The header of a file of `size` bytes, last changed so many seconds after 1970; `None` where the
/// name is too long.
pub(super) fn header(name: &str, size: u64, changed: u64) -> Option<[u8; BLOCK as usize]> {
    let mut header = [0; BLOCK as usize];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    if name.len() > NAME_MAX {
        return None;
    }
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size <= OCTAL_MAX {
        put(124, format!("{size:011o}\0").as_bytes());
    } else {
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    put(136, format!("{:011o}\0", changed.min(OCTAL_MAX)).as_bytes());
    // The sum counts its own field as blanks.
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Some(header)
}

/// Bytes that follow a file of `size` bytes to fill its last block.
pub(super) fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}

#[cfg(test)]
mod tests {
    use super::{header, padding};

    #[test]
    fn a_header_is_as_tar_reads_it() {
        let header = header("segments/1", 1_000, 1_700_000_000).unwrap();
        assert_eq!(&header[..11], b"segments/1\0");
        assert_eq!(&header[124..136], b"00000001750\0");
        assert_eq!(&header[257..265], b"ustar\x0000");
        let told = std::str::from_utf8(&header[148..154]).unwrap();
        let mut blank = header;
        blank[148..156].fill(b' ');
        let sum: u64 = blank.iter().map(|&byte| u64::from(byte)).sum();
        assert_eq!(u64::from_str_radix(told, 8).unwrap(), sum);
        assert_eq!((padding(0), padding(1), padding(512)), (0, 511, 0));
    }

    #[test]
    fn large_files_have_binary_sizes_and_long_names_are_refused() {
        let size = 20 << 30;
        let large = header("a", size, 0).unwrap();
        assert_eq!(large[124], 0x80);
        assert_eq!(large[128..136], size.to_be_bytes());
        assert!(header(&"x".repeat(101), 1, 0).is_none());
    }
}
