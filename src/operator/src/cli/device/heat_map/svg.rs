//! The picture as SVG: one rectangle for neighbours of the same age, which says what it is when pointed at.

use std::io::{self, Write};

use super::{Age, Picture, STEPS};
use crate::cli::device::output::size;

/// As the terminal's, on white.
const COLOURS: [&str; STEPS as usize] =
    ["#5f00af", "#8700af", "#af00af", "#d70087", "#ff5f87", "#ff875f", "#ffaf5f", "#ffe14d"];
const CELL: usize = 8;
const LEFT: usize = 70;
const TOP: usize = 40;
const BOTTOM: usize = 50;
/// The legend's boxes and words need this much.
const LEAST_WIDTH: usize = 620;

/// Draws it.
pub(in super::super) fn svg(picture: &Picture, out: &mut impl Write) -> io::Result<()> {
    let rows = picture.cells.len().div_ceil(picture.columns);
    let width = (LEFT + picture.columns * CELL + 20).max(LEAST_WIDTH);
    let height = TOP + rows * CELL + BOTTOM;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#333\">"
    )?;
    writeln!(out, "<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>")?;
    let title = format!("Written since era {}", picture.since);
    writeln!(out, "<title>{title}</title>")?;
    writeln!(out, "<text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{title}</text>")?;
    for (number, (offset, row)) in picture.rows().enumerate() {
        draw_row(picture, number, offset, &row, out)?;
    }
    legend(picture, TOP + rows * CELL + 20, out)?;
    writeln!(out, "</svg>")
}

fn draw_row(
    picture: &Picture,
    number: usize,
    offset: u64,
    row: &[Age],
    out: &mut impl Write,
) -> io::Result<()> {
    let y = TOP + number * CELL;
    // A label at each row would run into the next.
    if number.is_multiple_of(4) {
        let (x, y) = (LEFT - 8, y + CELL);
        writeln!(out, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\">{}</text>", size(offset))?;
    }
    for (begin, length, age) in Picture::runs(row) {
        let (x, width) = (LEFT + begin * CELL, length * CELL);
        let first = (number * picture.columns + begin) as u64 * picture.blocks_per_cell;
        let end = first + length as u64 * picture.blocks_per_cell;
        let last = end.min(picture.nr_blocks).saturating_sub(1);
        writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{CELL}\" fill=\"{}\">\
             <title>blocks {first} to {last}: {}</title></rect>",
            colour(age),
            meaning(picture, age),
        )?;
    }
    Ok(())
}

fn colour(age: Age) -> &'static str {
    match age {
        Age::Never => "#f0f0f0",
        Age::Before => "#b4b4b4",
        Age::Since(step) => COLOURS[usize::from(step.min(STEPS - 1))],
    }
}

fn meaning(picture: &Picture, age: Age) -> String {
    match age {
        Age::Never => "never written".to_owned(),
        Age::Before => format!("last written before era {}", picture.since),
        Age::Since(step) => match picture.eras(step) {
            (first, last) if first == last => format!("last written in era {first}"),
            (first, last) => format!("last written in era {first} to {last}"),
        },
    }
}

fn legend(picture: &Picture, y: usize, out: &mut impl Write) -> io::Result<()> {
    let mut x = LEFT;
    let mut entry = |ages: &[Age], words: &str, room: usize| {
        for age in ages {
            writeln!(
                out,
                "<rect x=\"{x}\" y=\"{y}\" width=\"12\" height=\"12\" fill=\"{}\"/>",
                colour(*age)
            )?;
            x += 12;
        }
        let (text, baseline) = (x + 6, y + 11);
        x += 6 + room;
        writeln!(out, "<text x=\"{text}\" y=\"{baseline}\">{words}</text>")
    };
    let steps: Vec<Age> = (0..STEPS).map(Age::Since).collect();
    entry(&steps, &picture.span(), 150)?;
    entry(&[Age::Before], "before", 60)?;
    entry(&[Age::Never], "never", 60)?;
    let cell = size(picture.cell_bytes());
    entry(&[], &format!("a cell is {cell}"), 0)
}

#[cfg(test)]
mod tests {
    use super::super::tests::drawn;
    use super::*;

    #[test]
    fn one_rectangle_for_what_is_alike() {
        let picture = drawn(4, &[0, 0, 9, 9, 1], 2, 9);
        let mut out = Vec::new();
        svg(&picture, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let body: Vec<_> = text.lines().skip(4).take(5).collect();
        let expected = [
            "<text x=\"62\" y=\"48\" text-anchor=\"end\">0</text>",
            "<rect x=\"70\" y=\"40\" width=\"16\" height=\"8\" fill=\"#f0f0f0\">\
             <title>blocks 0 to 7: never written</title></rect>",
            "<rect x=\"86\" y=\"40\" width=\"16\" height=\"8\" fill=\"#ffe14d\">\
             <title>blocks 8 to 15: last written in era 9</title></rect>",
            "<rect x=\"70\" y=\"48\" width=\"8\" height=\"8\" fill=\"#b4b4b4\">\
             <title>blocks 16 to 18: last written before era 2</title></rect>",
        ];
        assert_eq!(body[..4], expected);
        assert!(
            text.starts_with(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"620\" height=\"106\""
            )
        );
        assert!(
            text.ends_with("<text x=\"484\" y=\"87\">a cell is 1Mi</text>\n</svg>\n"),
            "{text}"
        );
    }
}
