//! How answers are printed.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

/// The formats of every command that prints things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Table,
    /// One JSON document, as docs/formats.md describes it
    Json,
    /// The names alone, one a line
    Name,
}

/// Things that can be printed in each format.
pub(super) trait Show: Serialize {
    /// The names alone.
    fn names(&self) -> Vec<String>;

    /// A headline and rows, each as wide as the headline.
    fn rows(&self) -> (Vec<&'static str>, Vec<Vec<String>>);
}

/// Prints in that format.
pub(super) fn print(out: &mut impl Write, format: Format, answer: &impl Show) -> io::Result<()> {
    match format {
        Format::Json => {
            serde_json::to_writer(&mut *out, answer)?;
            writeln!(out)
        }
        Format::Name => answer.names().iter().try_for_each(|name| writeln!(out, "{name}")),
        Format::Table => {
            let (head, rows) = answer.rows();
            table(out, &head, &rows)
        }
    }
}

/// Columns as wide as what is in them, three spaces apart.
pub(in crate::cli) fn table(
    out: &mut impl Write,
    head: &[&str],
    rows: &[Vec<String>],
) -> io::Result<()> {
    let head: Vec<String> = head.iter().map(|&word| word.to_owned()).collect();
    let lines = || std::iter::once(&head).chain(rows);
    let width = |column: usize| {
        lines().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<_> = (0..head.len()).map(|column| width(column).unwrap_or(0)).collect();
    for line in lines() {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("   ").trim_end())?;
    }
    Ok(())
}

/// A size as people read it: the largest unit that leaves no more than one digit after the point.
pub(in crate::cli) fn size(bytes: u64) -> String {
    let units = [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
    let fits = units.into_iter().find(|(shift, _)| bytes >= 1 << shift);
    let Some((shift, unit)) = fits else { return bytes.to_string() };
    let tenths = (u128::from(bytes) * 10) >> shift;
    match tenths % 10 {
        0 => format!("{}{unit}", tenths / 10),
        tenth => format!("{}.{tenth}{unit}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Fruit(Vec<(&'static str, u32)>);

    impl Show for Fruit {
        fn names(&self) -> Vec<String> {
            self.0.iter().map(|(name, _)| (*name).to_owned()).collect()
        }

        fn rows(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
            let row = |(name, count): &(&str, u32)| vec![(*name).to_owned(), count.to_string()];
            (vec!["NAME", "COUNT"], self.0.iter().map(row).collect())
        }
    }

    #[test]
    fn one_answer_in_each_format() {
        let printed = |format| {
            let mut out = Vec::new();
            print(&mut out, format, &Fruit(vec![("pear", 3), ("fig", 40)])).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(printed(Format::Table), "NAME   COUNT\npear   3\nfig    40\n");
        assert_eq!(printed(Format::Name), "pear\nfig\n");
        assert_eq!(printed(Format::Json), "[[\"pear\",3],[\"fig\",40]]\n");
    }

    #[test]
    fn sizes_for_people() {
        let sizes = [(0, "0"), (1023, "1023"), (4096, "4Ki"), (1536, "1.5Ki"), (2 << 40, "2Ti")];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
    }
}
