//! Metadata that was generated, before the packaged tools and the kernel: both take it for the kernel's own.

#[allow(dead_code, reason = "each test binary uses its part of the rig")]
mod rig;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use era_image::{Placement, Spec};
use era_metadata::{Era, FileSource, Metadata, View};

/// In a file that goes with the guest.
fn generate(name: &str, spec: &Spec) -> PathBuf {
    let path = std::env::temp_dir().join(name);
    spec.write(&File::create(&path).unwrap()).unwrap();
    path
}

fn listed_by_us(path: &Path, since: u32) -> BTreeSet<u64> {
    let metadata = Metadata::open(FileSource::open(path).unwrap(), View::Live).unwrap();
    rig::numbers(&metadata.changed_since(Era(since)).unwrap())
}

#[test]
#[ignore = "kernel tier"]
fn the_packaged_tools_take_it() {
    let base = Spec { written_ppm: 5_000, ..Spec::of(300_001) };
    let specs = [
        Spec::of(1),
        base.clone(),
        Spec { placement: Placement::Aged, held: true, unclean: true, ..base.clone() },
        Spec { placement: Placement::Shuffled, undigested: 250, fan_out: 84, ..base },
    ];
    for (index, spec) in specs.iter().enumerate() {
        let path = generate(&format!("tools-{index}"), spec);
        rig::run("era_check", &[path.to_str().unwrap()]);
        // It knows nothing of a current writeset.
        if !spec.unclean {
            let since = spec.digested - 1;
            let document = rig::era_invalidate(&path, Era(since));
            assert_eq!(document, listed_by_us(&path, since), "{spec:?}");
            assert_eq!(document.is_empty(), spec.nr_blocks == 1);
        }
    }
}

/// The checker must be able to refuse, else that it does not says nothing.
#[test]
#[ignore = "kernel tier"]
fn the_packaged_checker_refuses_it_when_it_is_damaged() {
    let path = generate("damaged", &Spec::of(100_000));
    let file = File::options().write(true).open(&path).unwrap();
    // The first array block: superblock, bitmap, index and counts are before it.
    file.write_all_at(&[1], 4 * 4096 + 2000).unwrap();
    let output = Command::new("era_check").arg(&path).output().unwrap();
    assert!(!output.status.success(), "{output:?}");
}

/// The space map too: the kernel allocates from it, digests, and lists what it was given.
#[test]
#[ignore = "kernel tier"]
fn the_kernel_goes_on_with_it() {
    const BLOCKS: u32 = 60_001;
    let specs = [
        Spec { granularity_sectors: 8, free: 700, ..Spec::of(BLOCKS) },
        Spec {
            granularity_sectors: 8,
            free: 700,
            held: true,
            unclean: true,
            placement: Placement::Shuffled,
            ..Spec::of(BLOCKS)
        },
    ];
    for (spec, ram) in specs.iter().zip(0..) {
        let path = generate(&format!("kernel-{ram}"), spec);
        let image = std::fs::read(&path).unwrap();
        let blocks = image.len() as u64 / 4096;
        let metadata = rig::metadata_device(&format!("gen-meta-{ram}"), ram, blocks);
        let device = OpenOptions::new().write(true).open(metadata.path()).unwrap();
        device.write_all_at(&image, 0).unwrap();
        device.sync_all().unwrap();
        let origin = format!("0 {} zero", u64::from(BLOCKS) * 8);
        let origin = rig::Mapped::create(&format!("gen-origin-{ram}"), &origin);
        let name = format!("gen-era-{ram}");
        let mut tracked = rig::Tracked::create(&name, &metadata, &origin, BLOCKS.into());
        let status = tracked.status();
        assert_eq!((status.total, status.held.is_some()), (blocks, spec.held));
        assert!(status.used < blocks - 500, "{} of {blocks}", status.used);
        for first in [3, 40_000, 60_000] {
            tracked.write([first]);
            tracked.message("checkpoint");
        }
        let writes = std::mem::take(&mut tracked.writes);
        drop(tracked);

        let since = spec.digested;
        let mut expected: BTreeSet<u64> =
            spec.runs_since(since).into_iter().flat_map(|(first, last)| first..=last).collect();
        expected.extend(writes.iter().map(|(_, block)| *block));
        let ours = rig::changed(&rig::open(&metadata, View::Live), Era(since));
        assert_eq!(ours, expected);
        assert_eq!(rig::era_invalidate(&metadata.path(), Era(since)), expected);
        rig::run("era_check", &[metadata.path().to_str().unwrap()]);
    }
}
