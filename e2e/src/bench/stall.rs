//! How long a writer is stalled by a boundary, beside what a plain suspend and resume of the same device costs.

use std::{
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

use super::{Bench, quantile};
use crate::{failure::Outcome, guest::quote};

const ROUNDS: u32 = 200;

// As dm-era.md's boundary: a new era, then a drain by loading X's own table and swapping it in one ioctl.
const BOUNDARY: &str = "dmsetup message tracked-era 0 checkpoint; dmsetup load tracked --table \"$(dmsetup table tracked)\"; \
    dmsetup resume --nolockfs tracked";
const PLAIN: &str = "dmsetup suspend tracked; dmsetup resume tracked";

pub(super) fn bench() -> Outcome<Bench> {
    let us = quote(&env::current_exe()?.to_string_lossy());
    let round = |what, command| {
        format!(
            "echo '== {what}'\n{us} bench-watch /dev/mapper/tracked {ROUNDS} {}\n",
            quote(command)
        )
    };
    let script = round("boundary", BOUNDARY) + &round("suspend and resume", PLAIN);
    Ok(Bench { name: "stall", script, read: table })
}

fn table(printed: &str) -> Outcome<String> {
    let mut text =
        format!("longest gap of a writer over {ROUNDS} rounds    p50 ms   p99 ms   max ms\n");
    for part in printed.split("== ").skip(1) {
        let (what, lines) = part.split_once('\n').unwrap_or((part, ""));
        let mut gaps = lines.lines().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
        let [Some(p50), Some(p99), Some(max)] =
            [0.5, 0.99, 1.0].map(|share| quantile(&mut gaps, share))
        else {
            return Err(format!("nothing was measured of {what}").into());
        };
        writeln!(text, "{what:42} {p50:8.1} {p99:8.1} {max:8.1}")?;
    }
    Ok(text.trim_end().to_owned())
}

/// What runs in the guest: writes to `device` without pause, runs `command` again and again, and prints the longest gap
/// between two finished writes in each round, in milliseconds.
pub(crate) fn watch(device: &Path, rounds: u32, command: &str) -> Outcome {
    let over = AtomicBool::new(false);
    let finished = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let writer = scope.spawn(|| write(device, &over, &finished));
        let measured = measure(rounds, command, &finished);
        over.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| "the writer panicked")??;
        measured
    })
}

fn measure(rounds: u32, command: &str, finished: &Mutex<Vec<Instant>>) -> Outcome {
    for _ in 0..rounds {
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
        println!("{:.3}", longest_gap(&times, start, end).as_secs_f64() * 1000.0);
    }
    Ok(())
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
    fn the_table_has_a_line_for_each() {
        let table = table("== boundary\n1.0\n3.0\n2.0\n== suspend and resume\n4.0\n").unwrap();
        assert!(table.lines().nth(1).unwrap().ends_with("2.0      3.0      3.0"), "{table}");
        assert_eq!(table.lines().count(), 3);
        assert!(super::table("== boundary\n").is_err());
    }
}
