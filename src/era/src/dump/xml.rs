use std::io::{self, Write};

use crate::{BlockSource, Metadata, Part};

pub(super) fn begin<S: BlockSource>(
    metadata: &Metadata<S>,
    out: &mut impl Write,
) -> io::Result<()> {
    // The kernel never sets the uuid, and era_dump does not look at it.
    writeln!(
        out,
        "<superblock uuid=\"\" block_size=\"{}\" nr_blocks=\"{}\" current_era=\"{}\">",
        metadata.granularity_sectors(),
        metadata.nr_blocks(),
        metadata.current_era(),
    )
}

/// Where in the document the writing is.
#[derive(Debug, Default)]
pub(super) struct Document {
    /// Bits of the writeset that are still to come.
    bits: u64,
    in_array: bool,
}

impl Document {
    pub(super) fn part(&mut self, part: Part<'_>, out: &mut impl Write) -> io::Result<()> {
        match part {
            Part::Writeset { era, state: _, nr_bits } => {
                self.bits = nr_bits.into();
                writeln!(out, "  <writeset era=\"{era}\" nr_bits=\"{nr_bits}\">")
            }
            Part::Bits { first, words } => {
                let bits = words.iter().flat_map(|word| {
                    let word = u64::from_le_bytes(*word);
                    (0..64).map(move |bit| word >> bit & 1 == 1)
                });
                for (block, written) in (first..self.bits).zip(bits) {
                    writeln!(out, "    <bit block=\"{block}\" value=\"{written}\"/>")?;
                }
                Ok(())
            }
            Part::WritesetEnd => writeln!(out, "  </writeset>"),
            Part::Eras { first, eras } => {
                self.begin_array(out)?;
                for (block, era) in (first..).zip(eras) {
                    let era = u32::from_le_bytes(*era);
                    writeln!(out, "    <era block=\"{block}\" era=\"{era}\"/>")?;
                }
                Ok(())
            }
        }
    }

    pub(super) fn end(mut self, out: &mut impl Write) -> io::Result<()> {
        self.begin_array(out)?;
        writeln!(out, "  </era_array>\n</superblock>")
    }

    /// The array of a device that was never activated has no piece.
    fn begin_array(&mut self, out: &mut impl Write) -> io::Result<()> {
        if !std::mem::replace(&mut self.in_array, true) {
            writeln!(out, "  <era_array>")?;
        }
        Ok(())
    }
}
