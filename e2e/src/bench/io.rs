//! Throughput through an attached stack against the bare device, by fio.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Bench, quantile};
use crate::failure::Outcome;

const GOAL: f64 = 0.95;

// A new era before each round: the first write to each block then costs what it costs after a boundary.
const SCRIPT: &str = "
for round in 1 2 3 4 5; do
    for pattern in 'randwrite 4k' 'write 1M'; do
        set -- $pattern
        for device in bare tracked; do
            dmsetup message tracked-era 0 checkpoint
            echo \"== $device $1 $2\"
            fio --name=x --filename=/dev/mapper/$device --direct=1 --ioengine=libaio --iodepth=16 --rw=$1 --bs=$2 \\
                --size=1G --runtime=4 --time_based --randrepeat=0 --output-format=json
        done
    done
done";

pub(super) fn bench() -> Bench {
    Bench { name: "io", script: SCRIPT.to_owned(), read: table }
}

/// Bytes a second by device, of one pattern.
#[derive(Debug, Default, PartialEq)]
struct Rates {
    bare: Vec<f64>,
    tracked: Vec<f64>,
}

fn table(printed: &str) -> Outcome<String> {
    let mut text = String::from("write pattern         bare MiB/s  tracked MiB/s  ratio  goal\n");
    for (pattern, mut rates) in rates(printed)? {
        let (Some(bare), Some(tracked)) =
            (quantile(&mut rates.bare, 0.5), quantile(&mut rates.tracked, 0.5))
        else {
            return Err(format!("fio was not run on both devices with {pattern}").into());
        };
        let mebi = 1024.0 * 1024.0;
        let (bare_shown, tracked_shown, ratio) = (bare / mebi, tracked / mebi, tracked / bare);
        text += &format!(
            "{pattern:20} {bare_shown:11.1} {tracked_shown:14.1}  {ratio:5.2}  {GOAL:.2}\n"
        );
    }
    text += "medians of 5 rounds, in turn, in one boot";
    Ok(text)
}

fn rates(printed: &str) -> Outcome<BTreeMap<String, Rates>> {
    let mut rates = BTreeMap::<String, Rates>::new();
    for run in printed.split("== ").skip(1) {
        let (title, json) = run.split_once('\n').unwrap_or((run, ""));
        let (device, pattern) = title.split_once(' ').unwrap_or((title, ""));
        let rates = rates.entry(pattern.to_owned()).or_default();
        let rate = rate(json).map_err(|error| format!("fio on {title}: {error}"))?;
        if device == "bare" { rates.bare.push(rate) } else { rates.tracked.push(rate) }
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
    fn rates_are_sorted_by_pattern_and_device() {
        let rates = rates(&(run("bare", 4) + &run("tracked", 3) + &run("bare", 5))).unwrap();
        assert_eq!(rates["randwrite 4k"], Rates { bare: vec![4.0, 5.0], tracked: vec![3.0] });
    }

    #[test]
    fn the_table_shows_the_ratio_of_the_medians() {
        let table = table(&(run("bare", 4 << 20) + &run("tracked", 3 << 20))).unwrap();
        assert!(
            table.contains("randwrite 4k                 4.0            3.0   0.75  0.95\n"),
            "{table}"
        );
    }

    #[test]
    fn a_run_without_result_is_an_error() {
        assert!(rates("== bare randwrite 4k\nfio: no such device\n").is_err());
    }
}
