//! The walkthrough of the dm-era tutorial (docs/design/0010-the-tutorial.md), once with dmsetup and the era tools and once with
//! `eratrack device`: the same writes, and every result in between the same.

mod common;

use std::path::Path;

use common::{Eratrack, blocks};
use kit::{Disk, run, run_with};

/// Sectors a block: 2 MiB.
const GRANULARITY: u64 = 4096;
const MIB: u64 = 256;

/// The tutorial's two disks, and its three mappings over them.
struct ByHand {
    metadata: Disk,
    data: Disk,
}

impl ByHand {
    fn new() -> Self {
        run("modprobe dm-era");
        let (metadata, data) = (Disk::new(MIB), Disk::new(MIB));
        // `sectors = 128 * 1024 / 512`, by the tutorial's formula.
        let meta = format!("0 256 linear {} 0", metadata.device().display());
        let sectors = run(&format!("blockdev --getsz {}", data.device().display()));
        let (sectors, origin) = (sectors.trim(), data.device().display());
        let era = format!("0 {sectors} era /dev/mapper/era-meta {origin} {GRANULARITY}");
        create("era-meta", &meta);
        create("era", &era);
        create("era-access", "0 256 linear /dev/mapper/era-meta 0");
        Self { metadata, data }
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        for name in ["era-access", "era", "era-meta"] {
            let _ = run_with("dmsetup", ["remove", "--retry", name]);
        }
        let _ = (&self.metadata, &self.data);
    }
}

fn tool(line: &str) -> String {
    // The tools read through the page cache of the second mapping.
    run("blockdev --flushbufs /dev/mapper/era-access");
    run(&format!("{line} /dev/mapper/era-access"))
}

fn message(text: &str) {
    run(&format!("dmsetup message era 0 {text}"));
}

fn era_by_hand() -> u64 {
    let status = run("dmsetup status era");
    status.split_whitespace().nth(5).expect("the era").parse().expect("a number")
}

fn on_both(line: impl Fn(&str) -> String) {
    for device in ["/dev/mapper/era", "/dev/mapper/tracked"] {
        run(&line(device));
    }
}

fn create(name: &str, table: &str) {
    run_with("dmsetup", ["create", name, "--table", table]).expect("it is made");
}

/// The same with one command.
struct ByUs {
    eratrack: Eratrack,
    data: Disk,
}

impl ByUs {
    fn new() -> Self {
        let (eratrack, data) = (Eratrack::new(), Disk::new(MIB));
        let device = data.device().display();
        let how =
            format!("--granularity {GRANULARITY}s --stage tracked --era-access --discards off");
        eratrack.ok(&format!("attach {device} {how}"));
        Self { eratrack, data }
    }

    fn era(&self) -> u64 {
        let status = self.eratrack.json("status tracked");
        status["era"]["current"].as_u64().expect("the era")
    }
}

impl Drop for ByUs {
    fn drop(&mut self) {
        let _ = self.eratrack.run("release tracked");
        let _ = self.eratrack.run("detach tracked");
    }
}

/// Both, and what is done to both.
struct Walk {
    hand: ByHand,
    ours: ByUs,
}

impl Walk {
    /// `take_metadata_snap`, and what the tools then print, against our own.
    fn snapshot(&self, since: u64) -> String {
        message("take_metadata_snap");
        self.ours.eratrack.ok("hold tracked");
        assert_eq!(era_by_hand(), self.ours.era());

        let theirs = tool(&format!("era_invalidate --written-since {since}"));
        let same = format!("changed tracked --since {since} --output xml");
        assert_eq!(self.ours.eratrack.ok(&same), theirs);
        let theirs = eras(&tool("era_dump"));
        assert_eq!(eras(&self.ours.eratrack.ok("dump tracked --output xml")), theirs);
        // Our stack read by their tools, through the second mapping that is made for them.
        let access = "/dev/mapper/eratrack-tracked-access";
        run(&format!("blockdev --flushbufs {access}"));
        assert_eq!(eras(&run(&format!("era_dump {access}"))), theirs);
        let list = self.ours.eratrack.ok(&format!("changed tracked --since {since}"));

        message("drop_metadata_snap");
        self.ours.eratrack.ok("release tracked");
        list
    }
}

#[test]
#[ignore = "kernel tier"]
fn the_tutorial_gives_the_same_by_hand_and_by_us() {
    let (hand, ours) = (ByHand::new(), ByUs::new());
    let walk = Walk { hand, ours };
    assert_eq!((era_by_hand(), walk.ours.era()), (1, 1));

    // "It has to be the same size as the underlying data block device."
    for device in ["/dev/mapper/era", "/dev/mapper/tracked"] {
        assert_eq!(run(&format!("blockdev --getsz {device}")).trim(), "524288");
    }
    // "This doesn't work since the usage of dm-era makes the underlying block device" busy.
    for disk in [walk.hand.data.device(), walk.ours.data.device()] {
        let refused = run_with("mkfs.ext4", ["-q", &disk.display().to_string()]);
        assert!(refused.is_err(), "{} was formatted", disk.display());
    }
    on_both(|device| format!("mkfs.ext4 -q -E nodiscard {device}"));
    same_content(walk.hand.data.device(), Path::new("/dev/mapper/era"));
    same_content(walk.ours.data.device(), Path::new("/dev/mapper/tracked"));

    let formatted = walk.snapshot(1);
    assert!(!blocks(&formatted).is_empty());
    assert_eq!(walk.snapshot(1), formatted);
    let before = walk.ours.era();

    // "This writes exactly 40 MB of random data starting at the 60th 1 MB block."
    let random = "if=/dev/zero bs=1M seek=60 count=40 oflag=direct status=none";
    on_both(|device| format!("dd of={device} {random}"));
    let since_the_start = blocks(&walk.snapshot(1));
    assert!((30..50).all(|block| since_the_start.contains(&block)), "{since_the_start:?}");
    assert_eq!(walk.snapshot(before), "30-49\n");

    the_loop(&walk);
}

/// A full copy, then only what changed, again and again: the tutorial's loop, and our one command.
fn the_loop(walk: &Walk) {
    let dir = kit::metadata_dir(600);
    let (theirs, ours) = (dir.path().join("by-hand"), dir.path().join("by-us"));
    let eratrack = &walk.ours.eratrack;
    let replicate = || eratrack.json(&format!("replicate tracked {}", ours.display()));
    let mut since = boundary_by_hand();
    run(&format!(
        "dd if=/dev/mapper/era of={} bs=1M iflag=direct conv=sparse status=none",
        theirs.display()
    ));
    assert_eq!(replicate()["state"], "Consistent");
    for round in 0..3 {
        let seek = 10 + 50 * round;
        on_both(|device| {
            format!(
                "dd if=/dev/urandom of={device} bs=1M seek={seek} count=9 oflag=direct status=none"
            )
        });
        let next = boundary_by_hand();
        message("take_metadata_snap");
        let listed = invalid_blocks(&tool(&format!("era_invalidate --written-since {since}")));
        message("drop_metadata_snap");
        since = next;
        copy_by_hand(&listed, &theirs);
        let copied = replicate();
        assert_eq!(
            (copied["kind"].as_str(), copied["blocks"].as_u64()),
            (Some("Changed"), Some(5))
        );
        assert_eq!(listed.len(), 5, "{listed:?}");
        same_content(&theirs, Path::new("/dev/mapper/era"));
        same_content(&ours, Path::new("/dev/mapper/tracked"));
    }
}

/// The era that later writes have.
fn boundary_by_hand() -> u64 {
    message("checkpoint");
    era_by_hand()
}

/// The blocks in a document of `era_invalidate`.
fn invalid_blocks(xml: &str) -> Vec<u64> {
    let values = |line: &str| -> Vec<u64> {
        line.split('"').skip(1).step_by(2).map(|value| value.parse().expect("a number")).collect()
    };
    let blocks = xml.lines().flat_map(|line| match values(line)[..] {
        [block] => block..block + 1,
        [begin, end] => begin..end,
        _ => 0..0,
    });
    blocks.collect()
}

fn copy_by_hand(blocks: &[u64], to: &Path) {
    for block in blocks {
        let at = format!("bs=2M count=1 skip={block} seek={block} conv=notrunc status=none");
        run(&format!("dd if=/dev/mapper/era of={} {at} iflag=direct", to.display()));
    }
}

/// What a dump says of the device: its sizes, and the last era of each block. `era_dump` 0.9 reads
/// the metadata as last committed, also while a snapshot is held, so that an era may be in a
/// writeset in one dump and in the array already in another.
fn eras(dump: &str) -> (String, Vec<u64>) {
    let head = dump.lines().next().expect("a superblock").to_owned();
    let (mut last, mut writeset) = (Vec::new(), 0);
    for line in dump.lines() {
        let values: Vec<_> = line.split('"').skip(1).step_by(2).collect();
        let number = |index: usize| values[index].parse::<u64>().expect("a number");
        let (block, era) = match line.trim_start().split(' ').next() {
            Some("<writeset") => {
                writeset = number(0);
                continue;
            }
            Some("<bit") if values[1] == "true" => (number(0), writeset),
            Some("<era") => (number(0), number(1)),
            _ => continue,
        };
        let block = usize::try_from(block).expect("small");
        last.resize(last.len().max(block + 1), 0);
        last[block] = era.max(last[block]);
    }
    (head, last)
}

fn same_content(a: &Path, b: &Path) {
    run(&format!("cmp -n {} {} {}", MIB << 20, a.display(), b.display()));
}
