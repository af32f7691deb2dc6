//! What tracking costs, and what reading its lists does. Timing in a guest, or on a busy machine, is noisy: only ratios
//! within one boot or run are compared.

mod era;
mod footprint;
mod group;
mod io;
mod ready;
mod replicate;
mod scale;
mod stall;

use std::time::Duration;

use crate::{
    failure::Outcome,
    guest::{self, Limits, Program},
    paths, progress, setup,
};

const MEMORY_MIB: u32 = 1024;

/// A measurement, and what puts it into a table.
struct Bench {
    name: &'static str,
    measure: fn() -> Outcome<String>,
}

const BENCHES: &[Bench] = &[
    Bench { name: "era", measure: era::measure },
    Bench { name: "io", measure: io::measure },
    Bench { name: "stall", measure: stall::measure },
    Bench { name: "group", measure: group::measure },
    Bench { name: "replicate", measure: replicate::measure },
    Bench { name: "footprint", measure: footprint::measure },
    Bench { name: "ready", measure: ready::measure },
    Bench { name: "scale", measure: scale::measure },
    Bench { name: "merging", measure: scale::merging },
];

/// Runs the benchmarks whose name contains `filter`, and prints a table each.
pub(crate) fn run(filter: Option<&str>) -> Outcome {
    setup::packages()?;
    for bench in BENCHES {
        if filter.is_none_or(|part| bench.name.contains(part)) {
            println!("{}\n", (bench.measure)()?);
        }
    }
    Ok(())
}

/// Runs shell in a guest; what it printed.
fn in_guest(name: &str, script: &str) -> Outcome<String> {
    let words = ["sh".to_owned(), "-ec".to_owned(), script.to_owned()].to_vec();
    let program =
        Program { words, directory: Some(paths::workspace().to_owned()), environment: Vec::new() };
    let limits =
        Limits { total: Duration::from_secs(15 * 60), silence: Duration::from_secs(3 * 60) };
    let mut printed = String::new();
    let name = format!("bench-{name}");
    let ended = progress::step(&format!("measuring {name} in a guest"), || {
        guest::run(&name, MEMORY_MIB, &program, limits, |text| printed.push_str(text))
    })?;
    if ended.status == 0 {
        return Ok(printed);
    }
    let last = crate::process::tail(&printed, 20);
    Err(format!("the benchmark {name} ended with status {}:\n{last}", ended.status).into())
}

/// The value below which `share` of all lie; the values are sorted by this.
fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "few values"
    )]
    let rank = (share * values.len() as f64).ceil().max(1.0) as usize;
    values.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let mut values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(quantile(&mut values, 0.5), Some(100.0));
        assert_eq!(quantile(&mut values, 0.99), Some(198.0));
        assert_eq!(quantile(&mut [7.0], 0.5), Some(7.0));
        assert_eq!(quantile(&mut [], 0.5), None);
    }
}
