//! Throughput through an attached stack against the bare device, by fio.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{in_guest, quantile};
use crate::failure::Outcome;

const GOAL: &str = "0.95";
const MEBI: f64 = 1024.0 * 1024.0;

/// Two devices of the same size on one disk: `bare`, and `tracked` with era beneath it as an attached volume has it.
const STACK: &str = include_str!("stack.sh");

// `new-era` is the tracked device just after a boundary, when the first write to each block has to be noted.
const SCRIPT: &str = "
for round in 1 2 3 4 5; do
    for pattern in 'randwrite 4k' 'write 1M'; do
        set -- $pattern
        for variant in bare new-era tracked; do
            device=tracked
            if [ $variant = bare ]; then device=bare; fi
            if [ $variant = new-era ]; then dmsetup message tracked-era 0 checkpoint; fi
            echo \"== $variant $1 $2\"
            fio --name=x --filename=/dev/mapper/$device --direct=1 --ioengine=libaio --iodepth=16 --rw=$1 --bs=$2 \\
                --size=1G --runtime=4 --time_based --randrepeat=0 --output-format=json
        done
    done
done";

pub(super) fn measure() -> Outcome<String> {
    table(&in_guest("io", &format!("{STACK}\n{SCRIPT}"))?)
}

/// Bytes a second of each round, by pattern and variant.
type Rates = BTreeMap<(String, String), Vec<f64>>;

fn table(printed: &str) -> Outcome<String> {
    let mut rates = rates(printed)?;
    let medians: BTreeMap<(String, String), f64> = rates
        .iter_mut()
        .filter_map(|(run, rates)| Some((run.clone(), quantile(rates, 0.5)?)))
        .collect();
    let mut text = String::from("writes                             MiB/s  of bare  goal\n");
    for ((pattern, variant), &median) in &medians {
        let bare = medians.get(&(pattern.clone(), "bare".to_owned()));
        let bare =
            bare.ok_or_else(|| format!("fio was not run on the bare device with {pattern}"))?;
        let goal = if variant == "tracked" { GOAL } else { "" };
        let line = format!(
            "{pattern:14} {variant:14} {:10.1} {:8.2}  {goal}",
            median / MEBI,
            median / bare
        );
        text += line.trim_end();
        text.push('\n');
    }
    text += "medians of 5 rounds, in turn, in one boot";
    Ok(text)
}

fn rates(printed: &str) -> Outcome<Rates> {
    let mut rates = Rates::new();
    for run in printed.split("== ").skip(1) {
        let (title, json) = run.split_once('\n').unwrap_or((run, ""));
        let (variant, pattern) = title.split_once(' ').unwrap_or((title, ""));
        let rate = rate(json).map_err(|error| format!("fio on {title}: {error}"))?;
        rates.entry((pattern.to_owned(), variant.to_owned())).or_default().push(rate);
    }
    Ok(rates)
}

fn rate(json: &str) -> Outcome<f64> {
    let start = json.find('{').ok_or("it printed no JSON")?;
    // What follows the object, if anything, is chatter.
    let mut values = serde_json::Deserializer::from_str(&json[start..]).into_iter::<Fio>();
    let fio = values.next().ok_or("it printed no JSON")??;
    Ok(fio.jobs.first().ok_or("it ran no job")?.write.bw_bytes)
}

#[derive(Deserialize)]
struct Fio {
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    write: Direction,
}

#[derive(Deserialize)]
struct Direction {
    bw_bytes: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(device: &str, bytes: u32) -> String {
        format!(
            "== {device} randwrite 4k\nnote: x\n{{\"jobs\": [{{\"write\": {{\"bw_bytes\": {bytes}}}}}]}}\n"
        )
    }

    #[test]
    fn rates_are_sorted_by_pattern_and_variant() {
        let rates = rates(&(run("bare", 4) + &run("tracked", 3) + &run("bare", 5))).unwrap();
        assert_eq!(rates[&("randwrite 4k".to_owned(), "bare".to_owned())], [4.0, 5.0]);
        assert_eq!(rates[&("randwrite 4k".to_owned(), "tracked".to_owned())], [3.0]);
    }

    #[test]
    fn the_table_shows_the_ratio_of_the_medians() {
        let table = table(&(run("bare", 4 << 20) + &run("tracked", 3 << 20))).unwrap();
        assert!(
            table.contains("randwrite 4k   tracked               3.0     0.75  0.95\n"),
            "{table}"
        );
        assert!(table.contains("randwrite 4k   bare                  4.0     1.00\n"), "{table}");
    }

    #[test]
    fn a_run_without_result_is_an_error() {
        assert!(rates("== bare randwrite 4k\nfio: no such device\n").is_err());
    }
}
