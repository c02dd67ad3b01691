//! One 512-byte header block.

use super::pax::Time;

/// The size of a tar block.
pub(crate) const BLOCK: usize = 512;

/// One block.
pub(crate) type Block = [u8; BLOCK];

/// What a header block says before extended records change it.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    /// The type flag as it stands in the block.
    pub(crate) kind: u8,
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: Time,
    pub(crate) device: (u32, u32),
}

/// Parses a header block; the checksum must be right.
pub(crate) fn parse(block: &Block) -> Result<Header, String> {
    let raw = tar::Header::from_byte_slice(block);
    let old = raw.as_old();
    check_sum(block, &old.cksum)?;
    let mode = number(&old.mode, "mode")?;
    let device = match old.linkflag[0] {
        b'3' | b'4' => {
            let (major, minor) = device_fields(block);
            (device_number(major)?, device_number(minor)?)
        }
        _ => (0, 0),
    };
    Ok(Header {
        kind: old.linkflag[0],
        path: raw.path_bytes().into_owned(),
        link: raw.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default(),
        size: unsigned(&old.size, "size")?,
        // Some writers leave the file type in the upper bits.
        mode: u32::try_from(mode & 0o7777).unwrap_or(0),
        uid: unsigned(&old.uid, "user number")?,
        gid: unsigned(&old.gid, "group number")?,
        mtime: Time { seconds: number(&old.mtime, "modification time")?, nanoseconds: 0 },
        device,
    })
}

/// Offset and length of each stretch of a sparse file that holds data.
pub(crate) type Segments = Vec<(u64, u64)>;

/// The sparse map entries and continuation flag of an old GNU sparse header, and the file's real size.
pub(crate) fn gnu_sparse(block: &Block) -> Result<(Segments, bool, u64), String> {
    let raw = tar::Header::from_byte_slice(block);
    let gnu = raw.as_gnu().ok_or("a sparse entry without a GNU header")?;
    let map = sparse_entries(&gnu.sparse)?;
    Ok((map, gnu.is_extended(), unsigned(&gnu.realsize, "real size")?))
}

/// The map entries and continuation flag of a GNU sparse extension block.
pub(crate) fn gnu_sparse_extension(block: &Block) -> Result<(Segments, bool), String> {
    let mut extension = tar::GnuExtSparseHeader::new();
    extension.as_mut_bytes().copy_from_slice(block);
    Ok((sparse_entries(extension.sparse())?, extension.is_extended()))
}

fn sparse_entries(entries: &[tar::GnuSparseHeader]) -> Result<Segments, String> {
    entries
        .iter()
        .take_while(|entry| entry.offset[0] != 0 && entry.numbytes[0] != 0)
        .map(|entry| {
            Ok((unsigned(&entry.offset, "sparse offset")?, unsigned(&entry.numbytes, "sparse length")?))
        })
        .collect()
}

/// Major and minor fields: ustar and GNU headers keep them at the same place.
fn device_fields(block: &Block) -> (&[u8], &[u8]) {
    (&block[329..337], &block[337..345])
}

fn device_number(field: &[u8]) -> Result<u32, String> {
    u32::try_from(unsigned(field, "device number")?).map_err(|_| "a device number is out of range".into())
}

/// The sum of all bytes, the checksum's own taken as spaces. Historic writers summed signed bytes.
fn check_sum(block: &Block, field: &[u8]) -> Result<(), String> {
    let want = unsigned(field, "checksum")?;
    let bytes =
        block.iter().enumerate().map(|(at, &byte)| if (148..156).contains(&at) { b' ' } else { byte });
    let sum: u64 = bytes.clone().map(u64::from).sum();
    let signed: i64 = bytes.map(|byte| i64::from(byte.cast_signed())).sum();
    if want == sum || i64::try_from(want) == Ok(signed) {
        return Ok(());
    }
    Err(format!("a header's checksum is {want}, its bytes sum to {sum}"))
}

fn unsigned(field: &[u8], name: &str) -> Result<u64, String> {
    u64::try_from(number(field, name)?).map_err(|_| format!("a header's {name} is negative"))
}

/// A numeric field: octal digits with spaces or NULs around them, or GNU's base 256 when the top bit is set (two's
/// complement, big endian).
fn number(field: &[u8], name: &str) -> Result<i64, String> {
    let malformed = || format!("a header's {name} is not a number");
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut value: i64 = if negative { -1 } else { 0 };
        for (at, &byte) in field.iter().enumerate() {
            let byte = match (at, negative) {
                (0, false) => byte & 0x3f,
                _ => byte,
            };
            let shifted =
                value.checked_mul(256).ok_or_else(|| format!("a header's {name} is out of range"))?;
            value = shifted | i64::from(byte);
        }
        return Ok(value);
    }
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    let text = field[..end].trim_ascii();
    let mut value: i64 = 0;
    for &digit in text {
        if !(b'0'..=b'7').contains(&digit) {
            return Err(malformed());
        }
        // Twelve octal digits at most: no overflow.
        value = value * 8 + i64::from(digit - b'0');
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealed(mut header: tar::Header) -> Block {
        header.set_cksum();
        *header.as_bytes()
    }

    #[test]
    fn fields_are_read() {
        let mut header = tar::Header::new_gnu();
        header.set_path("dir/file").unwrap();
        header.set_entry_type(tar::EntryType::Char);
        header.set_mode(0o104_755);
        header.set_uid(1 << 31);
        header.set_gid(7);
        header.set_size(1 << 40);
        header.set_mtime(99);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        let parsed = parse(&sealed(header)).unwrap();
        assert_eq!((parsed.path.as_slice(), parsed.kind), (&b"dir/file"[..], b'3'));
        assert_eq!((parsed.mode, parsed.uid, parsed.gid), (0o4755, 1 << 31, 7));
        assert_eq!((parsed.size, parsed.mtime.seconds, parsed.device), (1 << 40, 99, (1, 3)));
    }

    #[test]
    fn a_wrong_checksum_is_refused() {
        let mut block = sealed(tar::Header::new_gnu());
        block[0] ^= 1;
        assert!(parse(&block).unwrap_err().contains("checksum"));
    }

    #[test]
    fn negative_and_oversized_numbers_are_told_apart() {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().size = [0xff; 12];
        assert!(parse(&sealed(header.clone())).unwrap_err().contains("negative"));
        header.as_old_mut().size = [0xbf; 12];
        assert!(parse(&sealed(header.clone())).unwrap_err().contains("out of range"));
        header.as_old_mut().size = *b"12345678901z";
        assert!(parse(&sealed(header.clone())).unwrap_err().contains("not a number"));
        header.set_size(0);
        header.as_old_mut().mtime = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe];
        assert_eq!(parse(&sealed(header)).unwrap().mtime.seconds, -2);
    }

    proptest! {
        #[test]
        fn any_block_parses_or_fails(bytes in proptest::collection::vec(any::<u8>(), BLOCK)) {
            let mut block = [0; BLOCK];
            block.copy_from_slice(&bytes);
            let _ = parse(&block);
            let _ = gnu_sparse(&block);
            let mut header = tar::Header::from_byte_slice(&block).clone();
            header.set_cksum();
            let _ = parse(header.as_bytes());
            let _ = gnu_sparse(header.as_bytes());
            let _ = gnu_sparse_extension(&block);
        }
    }
}
