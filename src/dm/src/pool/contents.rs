//! What a disk holds, by the marks of its first and last MiB: only to tell a person. Whether it
//! is blank is decided by every byte of both being zero.

/// Marks at an offset from the start, most telling first.
const AT_START: [(&str, usize, &[u8]); 17] = [
    ("a pool of eratrack's", 0, b"eratrack pool"),
    ("an XFS filesystem", 0, b"XFSB"),
    ("LUKS", 0, b"LUKS\xba\xbe"),
    ("an LVM physical volume", 0, b"LABELONE"),
    ("an LVM physical volume", 512, b"LABELONE"),
    ("an LVM physical volume", 1024, b"LABELONE"),
    ("an LVM physical volume", 1536, b"LABELONE"),
    ("an md array's member", 0, b"\xfc\x4e\x2b\xa9"),
    ("an md array's member", 4096, b"\xfc\x4e\x2b\xa9"),
    ("metadata of dm-era", 32, b"\x7b\x07\xc1\x7e\0\0\0\0"),
    ("a Ceph OSD", 0, b"bluestore block device"),
    ("an ext filesystem", 1080, b"\x53\xef"),
    ("swap space", 4086, b"SWAPSPACE2"),
    ("a partition table", 512, b"EFI PART"),
    ("a partition table", 4096, b"EFI PART"),
    ("a btrfs filesystem", 65600, b"_BHRfS_M"),
    ("a partition table, or a filesystem that can be booted", 510, b"\x55\xaa"),
];

/// Marks at an offset from the end.
const AT_END: [(&str, usize, &[u8]); 2] = [
    ("the end of a partition table", 512, b"EFI PART"),
    ("an md array's member", 8192, b"\xfc\x4e\x2b\xa9"),
];

/// What there is, in words; none if both are zero to the last byte.
pub(crate) fn contents(first: &[u8], last: &[u8]) -> Option<String> {
    let blank = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    if blank(first) && blank(last) {
        return None;
    }
    let starts = AT_START.iter().find(|(_, at, mark)| has(first, *at, mark));
    let ends = || {
        AT_END.iter().find(|(_, before, mark)| {
            last.len().checked_sub(*before).is_some_and(|at| has(last, at, mark))
        })
    };
    let pool_ends = || has(last, 0, b"eratrack pool").then_some("a pool of eratrack's");
    let name = starts.or_else(ends).map(|(name, _, _)| *name).or_else(pool_ends);
    Some(match name {
        Some(name) => format!("it holds {name}"),
        None if blank(first) => "its last MiB is not all zero".to_owned(),
        None => "its first MiB is not all zero".to_owned(),
    })
}

fn has(bytes: &[u8], at: usize, mark: &[u8]) -> bool {
    bytes.get(at..at + mark.len()) == Some(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn with(at: usize, mark: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; MIB];
        bytes[at..at + mark.len()].copy_from_slice(mark);
        bytes
    }

    #[test]
    fn only_zeroes_are_blank() {
        assert_eq!(contents(&with(0, b""), &with(0, b"")), None);
        for at in [0, 777, MIB - 1] {
            let odd = with(at, &[1]);
            let first = contents(&odd, &with(0, b"")).unwrap();
            let last = contents(&with(0, b""), &odd).unwrap();
            assert!(first.contains("first MiB") && last.contains("last MiB"), "{first}, {last}");
        }
    }

    #[test]
    fn what_is_known_is_named() {
        for (name, at, mark) in AT_START {
            let found = contents(&with(at, mark), &with(0, b"")).unwrap();
            assert_eq!(found, format!("it holds {name}"));
        }
        for (name, before, mark) in AT_END {
            let found = contents(&with(0, b""), &with(MIB - before, mark)).unwrap();
            assert_eq!(found, format!("it holds {name}"));
        }
        let pool = contents(&with(0, b""), &with(0, b"eratrack pool \r\n")).unwrap();
        assert!(pool.contains("a pool"), "{pool}");
    }

    #[test]
    fn the_mark_of_era_is_its_magic() {
        let magic = 2_126_579_579_u64.to_le_bytes();
        assert!(AT_START.iter().any(|(_, at, mark)| *at == 32 && *mark == magic));
    }
}
