//! Rounds of `eratrack device replicate`: with nothing to copy, and beside `dd` of the same bytes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{in_guest, quantile};
use crate::{cluster, failure::Outcome, guest::quote};

/// How long a round of a whole 1 TiB device may take, in milliseconds, if nothing changed.
const GOAL_UNCHANGED: f64 = 1000.0;
const GOAL_RATE: f64 = 0.9;
const SCRIPT: &str = include_str!("replicate.sh");

pub(super) fn measure() -> Outcome<String> {
    let program = cluster::static_program()?;
    let program = quote(&program.to_string_lossy());
    table(&in_guest("replicate", &format!("eratrack={program}\n{SCRIPT}"))?)
}

/// Milliseconds of each round, by what was measured.
type Rounds = BTreeMap<String, Vec<f64>>;

fn table(printed: &str) -> Outcome<String> {
    let mut rounds = rounds(printed);
    let mut median = |what: &str| {
        let values =
            rounds.get_mut(what).ok_or_else(|| format!("nothing was measured of {what}"))?;
        quantile(values, 0.5).ok_or_else(|| format!("nothing was measured of {what}"))
    };
    let unchanged = median("unchanged")?;
    let mut text = format!(
        "a round of 1 TiB, nothing changed: {unchanged:.0} ms (goal: under {GOAL_UNCHANGED} ms)\n\n\
         1 % of 256 GiB changed          replicate ms    dd ms  rate, of dd  goal\n"
    );
    for (what, name, goal) in [
        ("piece", "2.6 GiB in one piece", GOAL_RATE),
        ("scattered", "256 MiB, each fourth block", 0.0),
    ] {
        let (ours, dd) = (median(&format!("{what} replicate"))?, median(&format!("{what} dd"))?);
        let goal = if goal > 0.0 { goal.to_string() } else { String::new() };
        let line = format!("{name:31} {ours:12.0} {dd:8.0} {:12.2}  {goal}", dd / ours);
        writeln!(text, "{}", line.trim_end())?;
    }
    text += "medians of rounds in turn, in one boot; dd copies the same bytes, or as many in one piece, to the same place";
    Ok(text)
}

/// Lines that end in a number of milliseconds; everything else is chatter.
fn rounds(printed: &str) -> Rounds {
    let mut rounds = Rounds::new();
    for line in printed.lines() {
        let measured = line.rsplit_once(' ').and_then(|(what, value)| {
            let known =
                what == "unchanged" || what.ends_with(" replicate") || what.ends_with(" dd");
            value.parse().ok().filter(|_| known).map(|value| (what.to_owned(), value))
        });
        if let Some((what, value)) = measured {
            rounds.entry(what).or_default().push(value);
        }
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_ratio_of_the_medians() {
        let printed = "chatter 7\nunchanged 300\nunchanged 500\nunchanged 400\npiece replicate 1000\n\
                       piece dd 950\nscattered replicate 400\nscattered dd 200\n";
        let table = table(printed).unwrap();
        assert!(table.starts_with("a round of 1 TiB, nothing changed: 400 ms"), "{table}");
        assert!(table.contains("1000      950         0.95  0.9\n"), "{table}");
        assert!(table.contains("400      200         0.50\n"), "{table}");
    }

    #[test]
    fn what_was_not_measured_is_an_error() {
        assert!(table("unchanged 300\n").is_err());
    }
}
