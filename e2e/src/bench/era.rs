//! How fast a list of changed blocks is read from an image, beside what the packaged tool needs, and beside plainly reading
//! the same bytes: each ratio of one run. What is measured from within is `src/era/benches/changed.rs`.

mod run;

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use era_image::Spec;

use self::run::{Ended, Numbers};
use super::quantile;
use crate::{
    cleanup::{self, Leftover, Ticket},
    failure::Outcome,
    paths, process, progress, setup, test,
};

/// Blocks of 64 KiB in a tebibyte.
const TEBIBYTE: u32 = 1 << 24;
const ROUNDS: usize = 7;
/// Rounds are cheaper from within.
const ROUNDS_WITHIN: usize = 15;
const GOAL_FASTER: f64 = 100.0;
const GOAL_OF_PLAIN: f64 = 1.3;
/// What a list may take of memory beyond a bit for each block.
const GOAL_BEYOND_BITS: f64 = 16.0;
const MEBI: f64 = 1024.0 * 1024.0;

pub(super) fn measure() -> Outcome<String> {
    setup::valgrind()?;
    let programs = progress::step("building eratrack as it is released", Programs::build)?;
    let spec = Spec::of(TEBIBYTE);
    let image = Image::write("1tib", &spec)?;
    // Nearly all of its changes are in the array; since the era after it, all are in writesets.
    let (since, undigested) = (spec.digested - 3, spec.digested + 1);
    let mut text = progress::step("the list of 1 TiB, beside era_invalidate", || {
        beside_the_tool(&programs, &image, since)
    })?;
    text += &progress::step("the same around the page cache", || {
        beside_plain_reading(&programs, &image, since)
    })?;
    text += &incremental(&programs, &image, undigested)?;
    text += &progress::step("counting instructions", || instructions(&programs, &image, since))?;
    drop(image);
    text += &sixteen(&programs)?;
    Ok(text.trim_end().to_owned())
}

struct Programs {
    eratrack: PathBuf,
    changed: PathBuf,
}

impl Programs {
    fn build() -> Outcome<Self> {
        let eratrack = test::released("eratrack", "--bin", "eratrack")?;
        let changed = test::released("era-metadata", "--bench", "changed")?;
        Ok(Self { eratrack, changed })
    }

    fn list(&self, image: &Image, since: u32, output: &str) -> Command {
        let mut command = Command::new(&self.eratrack);
        command.args(["device", "changed", "--output", output, "--since", &since.to_string()]);
        command.arg("--image").arg(&image.path);
        command
    }

    fn within(&self, mode: &str, image: &Image, since: u32) -> Command {
        let mut command = Command::new(&self.changed);
        command.arg(mode).arg(&image.path).arg(since.to_string());
        command
    }
}

/// An image that goes when this is dropped.
struct Image {
    path: PathBuf,
    bytes: u64,
    _ticket: Ticket,
}

impl Image {
    fn write(name: &str, spec: &Spec) -> Outcome<Self> {
        let directory = paths::cache().join("bench");
        fs::create_dir_all(&directory)?;
        let path = directory.join(format!("era-{name}-{}.img", std::process::id()));
        let ticket = cleanup::defer(Leftover::File(path.clone()));
        let written = progress::step(&format!("writing metadata: {name}"), || {
            spec.write(&File::create(&path)?)
        })?;
        Ok(Self { path, bytes: written.blocks * 4096, _ticket: ticket })
    }
}

fn era_invalidate(image: &Path, since: u32) -> Command {
    let mut command = Command::new("era_invalidate");
    command.args(["--written-since", &since.to_string()]).arg(image);
    command
}

/// Whole processes, in turn.
fn beside_the_tool(programs: &Programs, image: &Image, since: u32) -> Outcome<String> {
    let theirs = process::output(&mut era_invalidate(&image.path, since))?;
    let ours = process::output(&mut programs.list(image, since, "xml"))?;
    if ours != theirs {
        return Err("eratrack and era_invalidate list different blocks".into());
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(run::to_end(&mut era_invalidate(&image.path, since))?);
        for _ in 0..3 {
            ours.push(run::to_end(&mut programs.list(image, since, "list"))?);
        }
    }
    let mut text = format!(
        "changed, 1 TiB at 64 KiB, {:.0} MB of metadata   fastest s  median s  times as fast  goal\n",
        small(image.bytes) / 1e6
    );
    let (theirs, ours) = (Spread::of(&mut theirs)?, Spread::of(&mut ours)?);
    writeln!(
        text,
        "{:46} {:10.3} {:9.3}",
        "era_invalidate 0.9, cached", theirs.least, theirs.median
    )?;
    writeln!(
        text,
        "{:46} {:10.4} {:9.4} {:14.0}  {GOAL_FASTER:4.0}",
        "eratrack device changed, cached",
        ours.least,
        ours.median,
        theirs.median / ours.median
    )?;
    writeln!(text, "by the fastest of each: {:.0} times\n", theirs.least / ours.least)?;
    Ok(text)
}

/// Around the page cache, in turn.
fn beside_plain_reading(programs: &Programs, image: &Image, since: u32) -> Outcome<String> {
    let (mut listed, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS_WITHIN {
        for (mode, times) in [("plain", &mut plain), ("direct", &mut listed)] {
            let printed = process::output(&mut programs.within(mode, image, since))?;
            times.push(Numbers::parse(&printed).get("micros")? / 1000.0);
        }
    }
    let (plain, listed) = (Spread::of(&mut plain)?, Spread::of(&mut listed)?);
    let mut text = format!(
        "O_DIRECT, {ROUNDS_WITHIN} rounds in turn   fastest ms  median ms  of plain  goal\n"
    );
    writeln!(
        text,
        "{:31} {:10.1} {:10.1}",
        "plainly reading it, 1 MiB each", plain.least, plain.median
    )?;
    writeln!(
        text,
        "{:31} {:10.1} {:10.1} {:9.2}  {GOAL_OF_PLAIN:4.1}",
        "listing what changed",
        listed.least,
        listed.median,
        listed.median / plain.median
    )?;
    writeln!(text, "by the fastest of each: {:.2}\n", listed.least / plain.least)?;
    Ok(text)
}

fn incremental(programs: &Programs, image: &Image, since: u32) -> Outcome<String> {
    let mut times = Vec::new();
    let mut bytes = 0.0;
    for _ in 0..ROUNDS_WITHIN {
        let printed = process::output(&mut programs.within("cached", image, since))?;
        let numbers = Numbers::parse(&printed);
        times.push(numbers.get("micros")? / 1000.0);
        bytes = numbers.get("bytes")?;
    }
    let Spread { least, median } = Spread::of(&mut times)?;
    Ok(format!(
        "incremental (the oldest archived writeset is of the era asked for): {:.1} MB of {:.1} MB are read, in {median:.2} \
         ms (fastest {least:.2})\n",
        bytes / 1e6,
        small(image.bytes) / 1e6,
    ))
}

/// Under callgrind, without what opening the image takes.
fn instructions(programs: &Programs, image: &Image, since: u32) -> Outcome<String> {
    let count = |mode: &str| run::callgrind(&programs.within(mode, image, since));
    let all = count("cached")? - count("open")?;
    let printed = process::output(&mut programs.within("cached", image, since))?;
    let blocks = Numbers::parse(&printed).get("bytes")? / 4096.0;
    let released = run::callgrind(&programs.list(image, since, "list"))?;
    Ok(format!(
        "instructions, counted by callgrind: {:.1} million, {:.0} for each block of metadata of 4 KiB; the released program, \
         from its start to its end: {:.0} million\n",
        all / 1e6,
        all / blocks,
        released / 1e6
    ))
}

fn sixteen(programs: &Programs) -> Outcome<String> {
    let spec = Spec::of(16 * TEBIBYTE);
    let image = Image::write("16tib", &spec)?;
    let mut command = programs.list(&image, spec.digested - 3, "list");
    let Ended { seconds, peak_bytes } =
        progress::step("the list of 16 TiB", || run::with_peak(&mut command))?;
    let (peak, bits) = (peak_bytes / MEBI, f64::from(spec.nr_blocks) / 8.0 / MEBI);
    Ok(format!(
        "16 TiB at 64 KiB, {:.0} MB of metadata: {seconds:.2} s; peak memory of the process {peak:.1} MiB (goal: at most \
         {:.0}, which is a bit for each block and {GOAL_BEYOND_BITS:.0} MiB)\n",
        small(image.bytes) / 1e6,
        bits + GOAL_BEYOND_BITS
    ))
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn small(bytes: u64) -> f64 {
    bytes as f64
}

struct Spread {
    least: f64,
    median: f64,
}

impl Spread {
    fn of(values: &mut [f64]) -> Outcome<Self> {
        match (quantile(values, 0.0), quantile(values, 0.5)) {
            (Some(least), Some(median)) => Ok(Self { least, median }),
            _ => Err("nothing was measured".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn the_least_and_the_median_are_told() {
        let spread = Spread::of(&mut [3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.least, spread.median), (1.0, 2.0));
        assert!(Spread::of(&mut []).is_err());
    }
}
