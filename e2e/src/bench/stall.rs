//! How long a writer is stalled by a boundary, beside the drain alone, and a plain suspend and resume of the same device.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::fs::OFlags;

use super::{in_guest, quantile};
use crate::{failure::Outcome, guest::quote};

const ROUNDS: u32 = 200;

/// The drain loads X's own table and swaps it in one ioctl.
macro_rules! drain {
    () => {
        "dmsetup load tracked --table \"$(dmsetup table tracked)\"; dmsetup resume --nolockfs tracked"
    };
}

/// What is measured, by name. A boundary begins a new era, then drains.
const COMMANDS: [(&str, &str); 3] = [
    (BOUNDARY, concat!("dmsetup message tracked-era 0 checkpoint; ", drain!())),
    (DRAIN, drain!()),
    (PLAIN, "dmsetup suspend tracked; dmsetup resume tracked"),
];
const BOUNDARY: &str = "boundary";
const DRAIN: &str = "the drain alone";
const PLAIN: &str = "suspend and resume";
/// By how many milliseconds a boundary may exceed its drain, at the 99th percentile.
const GOAL_ABOVE_DRAIN: f64 = 10.0;

pub(super) fn measure() -> Outcome<String> {
    let us = quote(&env::current_exe()?.to_string_lossy());
    let commands: Vec<String> =
        COMMANDS.iter().flat_map(|(name, command)| [quote(name), quote(command)]).collect();
    let watch = format!("{us} bench-watch /dev/mapper/tracked {ROUNDS} {}", commands.join(" "));
    table(&in_guest("stall", &watch)?)
}

/// Milliseconds, by what was done.
type Gaps = BTreeMap<String, Vec<f64>>;

fn table(printed: &str) -> Outcome<String> {
    let mut gaps = gaps(printed)?;
    let mut text = format!(
        "longest gap of a writer over {ROUNDS} rounds, in turn    p50 ms   p99 ms   max ms\n"
    );
    let mut p99s = BTreeMap::new();
    for (name, _) in COMMANDS {
        let of = gaps.get_mut(name).ok_or_else(|| format!("nothing was measured of {name}"))?;
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| quantile(of, share).unwrap_or_default());
        writeln!(text, "{name:51} {p50:8.1} {p99:8.1} {max:8.1}")?;
        p99s.insert(name, p99);
    }
    let (boundary, drain, plain) = (p99s[BOUNDARY], p99s[DRAIN], p99s[PLAIN]);
    let above = boundary - drain;
    write!(
        text,
        "p99 of a boundary: {:.2} of suspend and resume (goal: at most 1), {above:.1} ms above the drain alone \
         (goal: under {GOAL_ABOVE_DRAIN})",
        boundary / plain
    )?;
    Ok(text)
}

fn gaps(printed: &str) -> Outcome<Gaps> {
    let mut gaps = Gaps::new();
    for line in printed.lines() {
        let Some((name, gap)) = line.rsplit_once(": ") else { continue };
        gaps.entry(name.to_owned()).or_default().push(gap.parse()?);
    }
    Ok(gaps)
}

/// What runs in the guest: writes to `device` without pause, runs the commands in turn again and again, and prints the
/// name of each with the longest gap between two finished writes, in milliseconds.
pub(crate) fn watch(device: &Path, rounds: u32, commands: &[String]) -> Outcome {
    let over = AtomicBool::new(false);
    let finished = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let writer = scope.spawn(|| write(device, &over, &finished));
        let measured = (0..rounds).try_for_each(|_| {
            commands.chunks_exact(2).try_for_each(|pair| {
                let gap = measure_one(&pair[1], &finished)?;
                println!("{}: {:.3}", pair[0], gap.as_secs_f64() * 1000.0);
                Ok(())
            })
        });
        over.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| "the writer panicked")??;
        measured
    })
}

fn measure_one(command: &str, finished: &Mutex<Vec<Instant>>) -> Outcome<Duration> {
    thread::sleep(Duration::from_millis(20));
    let start = Instant::now();
    let status = Command::new("sh").args(["-ec", command]).status()?;
    if !status.success() {
        return Err(format!("`{command}` ended with {status}").into());
    }
    let end = Instant::now();
    // Long enough for the write that was held up to have finished.
    thread::sleep(Duration::from_millis(50));
    let times = std::mem::take(&mut *finished.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(longest_gap(&times, start, end))
}

/// Among the gaps that touch the time from `start` to `end`.
fn longest_gap(finished: &[Instant], start: Instant, end: Instant) -> Duration {
    let gaps = finished.windows(2).filter(|pair| pair[1] >= start && pair[0] <= end);
    gaps.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// Direct I/O asks for aligned memory.
#[repr(align(4096))]
struct Page([u8; 4096]);

fn write(device: &Path, over: &AtomicBool, finished: &Mutex<Vec<Instant>>) -> Outcome {
    let direct = i32::try_from(OFlags::DIRECT.bits())?;
    let file = fs::File::options().write(true).custom_flags(direct).open(device)?;
    let page = Box::new(Page([7; 4096]));
    // All over the first GiB, without need of a random number: 40503 is odd, so every block has its turn.
    for turn in 0_u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        file.write_all_at(&page.0, (turn * 40503 % (1 << 18)) * 4096)?;
        finished.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_gaps_that_touch_the_round_count() {
        let zero = Instant::now();
        let at = |milliseconds| zero + Duration::from_millis(milliseconds);
        let finished = [at(0), at(50), at(52), at(60), at(90)];
        assert_eq!(longest_gap(&finished, at(51), at(55)), Duration::from_millis(8));
        assert_eq!(longest_gap(&finished, at(10), at(55)), Duration::from_millis(50));
        assert_eq!(longest_gap(&finished, at(95), at(99)), Duration::ZERO);
    }

    #[test]
    fn the_table_has_a_line_for_each_and_the_two_ratios() {
        let printed =
            "boundary: 1.0\nthe drain alone: 0.5\nboundary: 3.0\nsuspend and resume: 4.0\n";
        let table = table(printed).unwrap();
        assert!(table.lines().nth(1).unwrap().ends_with("1.0      3.0      3.0"), "{table}");
        assert!(table.contains("boundary: 0.75 of suspend and resume"), "{table}");
        assert!(table.contains(" 2.5 ms above the drain alone"), "{table}");
        assert_eq!(table.lines().count(), 5);
        assert!(super::table("boundary: 1.0\n").is_err());
    }
}
