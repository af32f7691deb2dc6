//! The picture as lines of text.

use std::io::{self, Write};

use super::{Age, Picture, STEPS};
use crate::cli::device::output::size;

/// What ages are drawn with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Ink {
    /// Of the 256 colours of terminals, as background.
    Colour,
    /// Characters of more and more ink.
    Shade,
}

/// Of the terminal's 256: from violet over red to yellow, each lighter than the one before.
const COLOURS: [u8; STEPS as usize] = [55, 91, 127, 162, 204, 209, 215, 227];
const SHADES: [char; 4] = ['░', '▒', '▓', '█'];

/// Room that each line takes beside its cells.
pub(in super::super) const MARGIN: u32 = 8;

/// Draws it, a line for each row, and what the colours mean.
pub(in super::super) fn text(picture: &Picture, ink: Ink, out: &mut impl Write) -> io::Result<()> {
    for (offset, row) in picture.rows() {
        write!(out, "{:>7} ", size(offset))?;
        for (_, length, age) in Picture::runs(&row) {
            cells(ink, age, length, out)?;
        }
        writeln!(out)?;
    }
    legend(picture, ink, out)
}

fn cells(ink: Ink, age: Age, length: usize, out: &mut impl Write) -> io::Result<()> {
    match ink {
        Ink::Colour => {
            let colour = colour(age);
            write!(out, "\x1b[48;5;{colour}m{:length$}\x1b[0m", "")
        }
        Ink::Shade => write!(out, "{}", shade(age).to_string().repeat(length)),
    }
}

fn colour(age: Age) -> u8 {
    match age {
        Age::Never => 236,
        Age::Before => 244,
        Age::Since(step) => COLOURS[usize::from(step.min(STEPS - 1))],
    }
}

fn shade(age: Age) -> char {
    match age {
        Age::Never => ' ',
        Age::Before => '·',
        Age::Since(step) => SHADES[usize::from(step.min(STEPS - 1)) / 2],
    }
}

fn legend(picture: &Picture, ink: Ink, out: &mut impl Write) -> io::Result<()> {
    write!(out, "{:8}", "")?;
    let steps = match ink {
        Ink::Colour => (0..STEPS).collect::<Vec<_>>(),
        Ink::Shade => (0..STEPS).step_by(2).collect(),
    };
    for step in steps {
        cells(ink, Age::Since(step), 1, out)?;
    }
    write!(out, " {}   ", picture.span())?;
    cells(ink, Age::Before, 1, out)?;
    write!(out, " before   ")?;
    cells(ink, Age::Never, 1, out)?;
    writeln!(out, " never   a cell is {}", size(picture.cell_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::drawn;
    use super::*;

    fn drawing(picture: &Picture, ink: Ink) -> String {
        let mut out = Vec::new();
        text(picture, ink, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn shades() {
        let picture = drawn(8, &[0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 9], 2, 9);
        let expected = "      0  ·░░░▒▒▓\n    8Mi ▓██  █\n        ░▒▓█ era 2 to 9   · before     never   a cell is 1Mi\n";
        assert_eq!(drawing(&picture, Ink::Shade), expected);
    }

    #[test]
    fn colours() {
        let picture = drawn(4, &[0, 1, 9, 9, 2], 2, 9);
        let cell = |colour: u8, length: usize| format!("\x1b[48;5;{colour}m{:length$}\x1b[0m", "");
        let rows = format!(
            "      0 {}{}{}\n    4Mi {}\n",
            cell(236, 1),
            cell(244, 1),
            cell(227, 2),
            cell(55, 1),
        );
        let drawing = drawing(&picture, Ink::Colour);
        assert!(drawing.starts_with(&rows), "{drawing:?}");
        assert!(drawing.ends_with(" never   a cell is 1Mi\n"), "{drawing:?}");
    }

    #[test]
    fn a_device_without_blocks_has_a_legend_alone() {
        let expected = "        ░▒▓█ era 0   · before     never   a cell is 1Mi\n";
        assert_eq!(drawing(&drawn(8, &[], 1, 0), Ink::Shade), expected);
    }
}
