//! How long a writer is stalled by a boundary, beside the drain in it, and beside a plain suspend and resume of the same
//! device. What is measured runs in a guest: `src/dm/benches/stall.rs`.

use std::fmt::Write as _;

use super::{in_guest, quantile};
use crate::{failure::Outcome, guest::quote, test};

/// By how many milliseconds a boundary may exceed its drain, at the 99th percentile.
const GOAL_ABOVE_DRAIN: f64 = 10.0;

pub(super) fn measure() -> Outcome<String> {
    let program = test::bench("eratrack-dm", "stall")?;
    table(&in_guest("stall", &quote(&program.to_string_lossy()))?)
}

/// Milliseconds of each round.
#[derive(Debug, Default)]
struct Rounds {
    boundary: Vec<f64>,
    drain: Vec<f64>,
    plain: Vec<f64>,
}

fn table(printed: &str) -> Outcome<String> {
    let mut rounds = rounds(printed)?;
    let count = rounds.boundary.len();
    let mut text =
        format!("longest gap of a writer, {count} rounds in turn    p50 ms   p99 ms   max ms\n");
    let mut row = |name: &str, values: &mut [f64]| -> Outcome<f64> {
        let [Some(p50), Some(p99), Some(max)] = [0.5, 0.99, 1.0].map(|at| quantile(values, at))
        else {
            return Err(format!("nothing was measured of {name}").into());
        };
        writeln!(text, "{name:45} {p50:8.1} {p99:8.1} {max:8.1}")?;
        Ok(p99)
    };
    let boundary = row("boundary", &mut rounds.boundary)?;
    let drain = row("  the drain in it", &mut rounds.drain)?;
    let plain = row("dmsetup suspend; dmsetup resume", &mut rounds.plain)?;
    let above = boundary - drain;
    Ok(format!(
        "{text}p99 of a boundary: {:.2} of suspend and resume (goal: at most 1), {above:.1} ms above its drain (goal: \
         under {GOAL_ABOVE_DRAIN})",
        boundary / plain
    ))
}

fn rounds(printed: &str) -> Outcome<Rounds> {
    let mut rounds = Rounds::default();
    for line in printed.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["boundary", gap, drain] => {
                rounds.boundary.push(gap.parse()?);
                rounds.drain.push(drain.parse()?);
            }
            ["plain", gap] => rounds.plain.push(gap.parse()?),
            _ => {}
        }
    }
    Ok(rounds)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_has_a_line_for_each_and_the_two_ratios() {
        let printed = "chatter\nboundary 1.0 0.5\nplain 4.0\nboundary 3.0 0.25\n";
        let table = super::table(printed).unwrap();
        assert!(table.lines().nth(1).unwrap().ends_with("1.0      3.0      3.0"), "{table}");
        assert!(table.contains("0.75 of suspend and resume"), "{table}");
        assert!(table.contains(" 2.5 ms above its drain"), "{table}");
        assert_eq!(table.lines().count(), 5);
        assert!(super::table("plain 1.0\n").is_err());
    }
}
