//! Lists of changed blocks as text.

use std::io::{self, Write};

use crate::{Era, Run};

/// What a list is about, for the formats that say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The list has the blocks written in this era or later.
    pub since: Era,
    /// The era that was current when the metadata was read.
    pub current: Era,
    /// Bytes in a block.
    pub block_bytes: u64,
    /// Blocks on the device.
    pub device_blocks: u64,
}

/// The kernel's list format and a line feed: `0,2-4,30-49`, both ends included
/// (Documentation/admin-guide/kernel-parameters.rst, "cpu lists").
pub fn list(out: &mut impl Write, runs: impl Iterator<Item = Run>) -> io::Result<()> {
    for (i, Run { first, last }) in runs.enumerate() {
        let comma = if i == 0 { "" } else { "," };
        if first == last {
            write!(out, "{comma}{first}")?;
        } else {
            write!(out, "{comma}{first}-{last}")?;
        }
    }
    writeln!(out)
}

/// One JSON object; the ends of a range are both included, in blocks.
pub fn json(
    out: &mut impl Write,
    header: &Header,
    runs: impl Iterator<Item = Run>,
) -> io::Result<()> {
    let Header { since, current, block_bytes, device_blocks } = *header;
    write!(out, "{{\"since\":{since},\"currentEra\":{current},\"blockBytes\":{block_bytes},")?;
    write!(out, "\"deviceBlocks\":{device_blocks},\"ranges\":[")?;
    let mut changed = 0;
    for (i, run) in runs.enumerate() {
        let comma = if i == 0 { "" } else { "," };
        write!(out, "{comma}{{\"first\":{},\"last\":{}}}", run.first, run.last)?;
        changed += run.blocks();
    }
    writeln!(out, "],\"changedBlocks\":{changed}}}")
}

/// The extents in bytes, a headline first. The last block is cut off where the device ends,
/// if its length is known: the metadata knows whole blocks only.
pub fn csv(
    out: &mut impl Write,
    block_bytes: u64,
    device_bytes: Option<u64>,
    runs: impl Iterator<Item = Run>,
) -> io::Result<()> {
    writeln!(out, "offset,length")?;
    for run in runs {
        // Blocks are fewer than 2^31, of less than 2^41 bytes each.
        let offset = u128::from(run.first) * u128::from(block_bytes);
        let length = u128::from(run.blocks()) * u128::from(block_bytes);
        let rest = device_bytes.map(|bytes| u128::from(bytes).saturating_sub(offset));
        match rest.map_or(length, |rest| length.min(rest)) {
            0 => {}
            length => writeln!(out, "{offset},{length}")?,
        }
    }
    Ok(())
}

/// The document that `era_invalidate` 0.9 prints, byte for byte, with its spaces around one
/// of the equals signs; later versions have none there. The end of a range is not included.
pub fn xml(out: &mut impl Write, runs: impl Iterator<Item = Run>) -> io::Result<()> {
    writeln!(out, "<blocks>")?;
    for Run { first, last } in runs {
        if first == last {
            writeln!(out, "  <block block=\"{first}\"/>")?;
        } else {
            writeln!(out, "  <range begin=\"{first}\" end = \"{}\"/>", last + 1)?;
        }
    }
    writeln!(out, "</blocks>")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNS: [Run; 3] =
        [Run { first: 0, last: 0 }, Run { first: 2, last: 4 }, Run { first: 30, last: 49 }];

    fn text(render: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        render(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_kernels_list_format() {
        assert_eq!(text(|out| list(out, RUNS.into_iter())), "0,2-4,30-49\n");
        assert_eq!(text(|out| list(out, [].into_iter())), "\n");
    }

    #[test]
    fn json_says_what_it_is_about() {
        let header =
            Header { since: Era(3), current: Era(7), block_bytes: 262_144, device_blocks: 50 };
        let expected = concat!(
            r#"{"since":3,"currentEra":7,"blockBytes":262144,"deviceBlocks":50,"#,
            r#""ranges":[{"first":0,"last":0},{"first":2,"last":4},{"first":30,"last":49}],"#,
            r#""changedBlocks":24}"#,
            "\n",
        );
        assert_eq!(text(|out| json(out, &header, RUNS.into_iter())), expected);
    }

    #[test]
    fn csv_has_bytes_up_to_the_end_of_the_device() {
        let whole = text(|out| csv(out, 4096, None, RUNS.into_iter()));
        assert_eq!(whole, "offset,length\n0,4096\n8192,12288\n122880,81920\n");
        let cut = text(|out| csv(out, 4096, Some(50 * 4096 - 512), RUNS.into_iter()));
        assert_eq!(cut, "offset,length\n0,4096\n8192,12288\n122880,81408\n");
        // Nothing of what is not there.
        let short = text(|out| csv(out, 4096, Some(8192), RUNS.into_iter()));
        assert_eq!(short, "offset,length\n0,4096\n");
    }

    #[test]
    fn xml_ends_are_exclusive() {
        let expected = concat!(
            "<blocks>\n",
            "  <block block=\"0\"/>\n",
            "  <range begin=\"2\" end = \"5\"/>\n",
            "  <range begin=\"30\" end = \"50\"/>\n",
            "</blocks>\n",
        );
        assert_eq!(text(|out| xml(out, RUNS.into_iter())), expected);
    }
}
