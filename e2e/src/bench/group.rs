//! For how long the volumes of a group are held for one boundary. What is measured runs in a guest:
//! `src/dm/benches/group.rs`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{in_guest, quantile};
use crate::{failure::Outcome, guest::quote, test};

pub(super) fn measure() -> Outcome<String> {
    let program = test::bench("eratrack-dm", "group")?;
    table(&in_guest("group", &quote(&program.to_string_lossy()))?)
}

fn table(printed: &str) -> Outcome<String> {
    let mut sizes: BTreeMap<u32, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for line in printed.lines() {
        if let ["group", size, held, gap] = line.split(' ').collect::<Vec<_>>()[..] {
            let (helds, gaps) = sizes.entry(size.parse()?).or_default();
            helds.push(held.parse()?);
            gaps.push(gap.parse()?);
        }
    }
    let mut text =
        "a boundary over a group                       p50 ms   p99 ms   max ms\n".to_owned();
    for (size, (mut helds, mut gaps)) in sizes {
        let (volumes, rounds) = (if size == 1 { "volume" } else { "volumes" }, helds.len());
        let rows = [
            (format!("{size} {volumes} held, {rounds} rounds"), &mut helds),
            ("  longest gap of a writer".to_owned(), &mut gaps),
        ];
        for (name, values) in rows {
            let [Some(p50), Some(p99), Some(max)] = [0.5, 0.99, 1.0].map(|at| quantile(values, at))
            else {
                return Err(format!("nothing was measured of {name}").into());
            };
            writeln!(text, "{name:45} {p50:8.1} {p99:8.1} {max:8.1}")?;
        }
    }
    if text.lines().count() < 2 {
        return Err("nothing was measured".into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_has_two_lines_for_each_size() {
        let printed = "chatter\ngroup 10 2.0 3.0\ngroup 1 1.0 2.0\ngroup 10 4.0 5.0\n";
        let table = super::table(printed).unwrap();
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 5, "{table}");
        assert!(lines[1].starts_with("1 volume held, 1 rounds"), "{table}");
        assert!(lines[4].ends_with("3.0      5.0      5.0"), "{table}");
        assert!(super::table("chatter\n").is_err());
    }
}
