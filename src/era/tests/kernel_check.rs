//! `check` against the packaged `era_check`: it is never the one that finds nothing. The tool needs no kernel, only to be
//! installed, which it is in a guest.

#[allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its part; the fuzz targets use it too"
)]
mod forge;

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use era_metadata::View;
use era_metadata::check::check;
use forge::mutate::{Random, mutate};
use forge::{Forge, Kind};

/// Whether the tool finds nothing, in ten seconds.
fn era_check(forge: &Forge) -> bool {
    static IMAGES: AtomicU32 = AtomicU32::new(0);
    let number = IMAGES.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("check-{}-{number}.img", std::process::id()));
    std::fs::write(&path, forge.image()).unwrap();
    let output = Command::new("timeout").args(["10", "era_check"]).arg(&path).output();
    let status = output.expect("timeout, of coreutils").status;
    std::fs::remove_file(&path).unwrap();
    status.success() || status.code() == Some(124)
}

fn ours(forge: &Forge) -> bool {
    check(forge, View::Live, 1).unwrap().is_clean()
}

#[test]
#[ignore = "kernel tier"]
fn both_find_nothing_in_what_a_kernel_wrote() {
    for name in forge::SOUND {
        let forge = Forge::fixture(name);
        assert!(ours(&forge), "{name}");
        // The tool misses the array's blocks of a device that has none yet.
        assert_eq!(era_check(&forge), name != "loaded", "{name}");
    }
}

#[test]
#[ignore = "kernel tier"]
fn a_damaged_block_that_the_tool_finds_is_found() {
    let (mut both, mut ours_alone) = (0, Vec::new());
    for name in ["digested", "held", "grown"] {
        let sound = Forge::fixture(name).compact();
        for number in sound.numbers() {
            let mut forge = sound.clone();
            forge.damage(number, 2000, &[!forge.u8(number, 2000)]);
            assert!(!ours(&forge), "{name}: block {number}");
            if era_check(&forge) {
                ours_alone.push(sound.kind(number).unwrap());
            } else {
                both += 1;
            }
        }
    }
    println!("both: {both}, ours alone: {ours_alone:?}");
    assert!(both > 100);
    // The tool looks neither into the space map nor into the metadata snapshot nor into the current writeset.
    assert!(
        ours_alone.contains(&Kind::SpaceMapIndex) && ours_alone.contains(&Kind::SpaceMapBitmap)
    );
}

#[test]
#[ignore = "kernel tier"]
fn what_the_tool_refuses_is_refused() {
    let seeds = ["digested", "held", "unclean"].map(|name| Forge::fixture(name).compact());
    let mut refused = 0;
    for number in 0..400 {
        let mut random = Random::new(number);
        let mut forge = seeds[random.below(seeds.len())].clone();
        mutate(&mut forge, &mut random);
        forge.total = forge.total.min(4096);
        if !era_check(&forge) {
            refused += 1;
            let report = check(&forge, View::Live, 5).unwrap();
            assert!(!report.is_clean(), "seed {number} is clean to us");
        }
    }
    assert!(refused > 50, "{refused}");
}
