//! Sparse files: where the stored bytes of an entry belong in the file.

use super::pax;

/// The most segments of one file.
pub(crate) const SEGMENTS_MAX: usize = 1 << 20;

/// A validated map: segments in ascending order that do not overlap and lie within `real_size`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Map {
    pub(crate) segments: Vec<(u64, u64)>,
    pub(crate) real_size: u64,
}

impl Map {
    /// Checks a map against the number of bytes stored for it.
    pub(crate) fn new(segments: Vec<(u64, u64)>, real_size: u64, stored: u64) -> Result<Self, String> {
        if i64::try_from(real_size).is_err() {
            return Err("a sparse file's size is out of range".into());
        }
        let mut end = 0;
        let mut sum = 0u64;
        for &(offset, length) in &segments {
            let next = offset.checked_add(length).ok_or("a sparse map overflows")?;
            if offset < end || next > real_size {
                return Err("a sparse map's segments overlap or pass the end".into());
            }
            end = next;
            sum += length;
        }
        if sum != stored {
            return Err(format!("a sparse map covers {sum} bytes, the entry stores {stored}"));
        }
        Ok(Self { segments, real_size })
    }
}

/// What PAX records say about a sparse file (GNU tar's formats 0.0, 0.1 and 1.0).
#[derive(Clone, Debug, Default)]
pub(crate) struct PaxSparse {
    /// The real name of format 0.1 and 1.0.
    pub(crate) name: Option<Vec<u8>>,
    /// The map of format 0.0 and 0.1; `None` with `major` 1 means that it stands before the data.
    pub(crate) map: Option<Vec<(u64, u64)>>,
    pub(crate) real_size: Option<u64>,
    pub(crate) major: u64,
    pending_offset: Option<u64>,
}

impl PaxSparse {
    /// Takes one `GNU.sparse.*` record; `keyword` is what follows the prefix.
    pub(crate) fn record(&mut self, keyword: &[u8], value: &[u8]) -> Result<(), String> {
        let number = || pax::decimal(value).ok_or("a sparse record is not a number");
        match keyword {
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.real_size = Some(number()?),
            b"major" => self.major = number()?,
            b"offset" => self.pending_offset = Some(number()?),
            b"numbytes" => {
                let offset = self.pending_offset.take().ok_or("a sparse length without its offset")?;
                self.push((offset, number()?))?;
            }
            b"map" => {
                let numbers: Option<Vec<u64>> = value.split(|&byte| byte == b',').map(pax::decimal).collect();
                let numbers = numbers.ok_or("a sparse map is not a list of numbers")?;
                if numbers.len() % 2 != 0 {
                    return Err("a sparse map has an odd count of numbers".into());
                }
                self.map = None;
                for pair in numbers.chunks_exact(2) {
                    self.push((pair[0], pair[1]))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, segment: (u64, u64)) -> Result<(), String> {
        let map = self.map.get_or_insert_default();
        if map.len() == SEGMENTS_MAX {
            return Err("a sparse map is too long".into());
        }
        map.push(segment);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_must_be_ordered_and_match_what_is_stored() {
        assert!(Map::new(vec![(0, 10), (100, 5)], 200, 15).is_ok());
        assert!(Map::new(vec![(200, 0)], 200, 0).is_ok());
        for (segments, real, stored) in [
            (vec![(0, 10), (5, 5)], 200, 15),
            (vec![(100, 5), (0, 10)], 200, 15),
            (vec![(0, 10)], 9, 10),
            (vec![(0, 10)], 20, 11),
            (vec![(u64::MAX, 2)], u64::MAX, 2),
            (vec![], u64::MAX, 0),
        ] {
            assert!(Map::new(segments.clone(), real, stored).is_err(), "{segments:?}");
        }
    }

    #[test]
    fn both_pax_spellings_of_a_map_are_read() {
        let mut one = PaxSparse::default();
        one.record(b"map", b"0,1,20,3").unwrap();
        let mut two = PaxSparse::default();
        for (keyword, value) in
            [(&b"offset"[..], &b"0"[..]), (b"numbytes", b"1"), (b"offset", b"20"), (b"numbytes", b"3")]
        {
            two.record(keyword, value).unwrap();
        }
        assert_eq!(one.map, Some(vec![(0, 1), (20, 3)]));
        assert_eq!(one.map, two.map);
        assert!(one.record(b"map", b"1,2,3").is_err());
        assert!(one.record(b"numbytes", b"3").is_err());
    }
}
