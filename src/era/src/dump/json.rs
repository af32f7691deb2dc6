use std::io::{self, Write};

use crate::{BlockSource, Metadata, Part, Run, WritesetState};

pub(super) fn begin<S: BlockSource>(
    metadata: &Metadata<S>,
    out: &mut impl Write,
) -> io::Result<()> {
    write!(
        out,
        "{{\"blockBytes\":{},\"deviceBlocks\":{},\"currentEra\":{},\"writesets\":[",
        u64::from(metadata.granularity_sectors()) * 512,
        metadata.nr_blocks(),
        metadata.current_era(),
    )
}

/// Where in the document the writing is.
#[derive(Debug, Default)]
pub(super) struct Document {
    writesets: Items,
    ranges: Items,
    /// A run that may go on, and its era, or whether its blocks are in the writeset.
    open: Option<(Run, u32)>,
    in_array: bool,
}

impl Document {
    pub(super) fn part(&mut self, part: Part<'_>, out: &mut impl Write) -> io::Result<()> {
        match part {
            Part::Writeset { era, state, nr_bits } => {
                let state = match state {
                    WritesetState::Archived => "archived",
                    WritesetState::Current => "current",
                };
                self.writesets.next(out)?;
                self.ranges = Items::default();
                write!(out, "{{\"era\":{era},\"state\":\"{state}\",\"bits\":{nr_bits},\"ranges\":[")
            }
            Part::Bits { first, words } => {
                let words = words.iter().map(|word| u64::from_le_bytes(*word));
                for (first, word) in (first..).step_by(64).zip(words) {
                    self.word(first, word, out)?;
                }
                Ok(())
            }
            Part::WritesetEnd => {
                self.close(out)?;
                write!(out, "]}}")
            }
            Part::Eras { first, eras } => {
                self.begin_array(out)?;
                for (block, era) in (first..).zip(eras) {
                    self.block(block, u32::from_le_bytes(*era), out)?;
                }
                Ok(())
            }
        }
    }

    pub(super) fn end(mut self, out: &mut impl Write) -> io::Result<()> {
        self.begin_array(out)?;
        self.close(out)?;
        writeln!(out, "]}}")
    }

    fn begin_array(&mut self, out: &mut impl Write) -> io::Result<()> {
        if !std::mem::replace(&mut self.in_array, true) {
            self.ranges = Items::default();
            write!(out, "],\"eras\":[")?;
        }
        Ok(())
    }

    fn word(&mut self, first: u64, word: u64, out: &mut impl Write) -> io::Result<()> {
        if word == 0 {
            return self.close(out);
        }
        for bit in 0..64 {
            if word >> bit & 1 == 1 {
                self.block(first + bit, 0, out)?;
            }
        }
        Ok(())
    }

    /// Adds a block to the run that is open, or begins another.
    fn block(&mut self, block: u64, era: u32, out: &mut impl Write) -> io::Result<()> {
        match &mut self.open {
            Some((run, of)) if *of == era && run.last + 1 == block => {
                run.last = block;
                Ok(())
            }
            _ => {
                self.close(out)?;
                self.open = Some((Run { first: block, last: block }, era));
                Ok(())
            }
        }
    }

    fn close(&mut self, out: &mut impl Write) -> io::Result<()> {
        let Some((Run { first, last }, era)) = self.open.take() else { return Ok(()) };
        self.ranges.next(out)?;
        write!(out, "{{\"first\":{first},\"last\":{last}")?;
        if self.in_array {
            write!(out, ",\"era\":{era}")?;
        }
        write!(out, "}}")
    }
}

/// Commas between the items of a list.
#[derive(Debug, Default)]
struct Items {
    begun: bool,
}

impl Items {
    fn next(&mut self, out: &mut impl Write) -> io::Result<()> {
        let comma = if std::mem::replace(&mut self.begun, true) { "," } else { "" };
        out.write_all(comma.as_bytes())
    }
}
