//! What tracking costs, measured in a guest. Timing there is noisy, so only ratios within one boot are compared.

mod io;
mod stall;

use std::time::Duration;

use crate::{
    failure::Outcome,
    guest::{self, Limits, Program},
    paths, progress, setup,
};

pub(crate) use stall::watch;

const MEMORY_MIB: u32 = 1024;

/// A measurement: what it runs in the guest, and how what that prints is read.
struct Bench {
    name: &'static str,
    /// Shell that follows [`STACK`].
    script: String,
    read: fn(&str) -> Outcome<String>,
}

/// Two devices of the same size on one disk: `bare`, and `tracked` with era beneath it as an attached volume has it.
const STACK: &str = include_str!("stack.sh");

/// Runs the benchmarks whose name contains `filter`, and prints a table each.
pub(crate) fn run(filter: Option<&str>) -> Outcome {
    setup::packages()?;
    for bench in [io::bench(), stall::bench()?] {
        if filter.is_none_or(|part| bench.name.contains(part)) {
            let printed = progress::step(&format!("measuring {}", bench.name), || bench.run())?;
            println!("{}", (bench.read)(&printed)?);
        }
    }
    Ok(())
}

impl Bench {
    fn run(&self) -> Outcome<String> {
        let words =
            ["sh".to_owned(), "-ec".to_owned(), format!("{STACK}\n{}", self.script)].to_vec();
        let program = Program {
            words,
            directory: Some(paths::workspace().to_owned()),
            environment: Vec::new(),
        };
        let limits =
            Limits { total: Duration::from_secs(15 * 60), silence: Duration::from_secs(3 * 60) };
        let mut printed = String::new();
        let name = format!("bench-{}", self.name);
        let ended = guest::run(&name, MEMORY_MIB, &program, limits, |text| printed.push_str(text))?;
        if ended.status == 0 {
            return Ok(printed);
        }
        let last = crate::process::tail(&printed, 20);
        Err(format!("the benchmark {} ended with status {}:\n{last}", self.name, ended.status)
            .into())
    }
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
