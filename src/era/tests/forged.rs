//! Metadata that is nearly right, with right checksums: never a panic, never a walk that does not end, never more memory
//! than was read; and where the checker finds nothing, all ways to read agree. A short run of what `fuzz/` does for long.

#[allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its part; the fuzz targets use it too"
)]
mod forge;

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use forge::Forge;
use forge::mutate::{Random, mutate};
use forge::trial::{READINGS, agree};
use peak_alloc::PeakAlloc;
use proptest::prelude::*;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

static SEEDS: LazyLock<Vec<Forge>> =
    LazyLock::new(|| forge::SOUND.map(|name| Forge::fixture(name).compact()).to_vec());

/// One test at a time: the allocator counts for the whole process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn frugal(forge: &Forge) {
    for reading in &READINGS {
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        let bound = reading.run(forge);
        let used = MEMORY.peak_usage().saturating_sub(before) as u64;
        assert!(used <= bound, "{}: {used} bytes, {bound} are the bound", reading.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn nearly_right_metadata_is_read_frugally_and_consistently(
        seed in any::<prop::sample::Index>(),
        random in any::<u64>(),
        changes in 1..6,
    ) {
        let _alone = alone();
        let mut forge = SEEDS[seed.index(SEEDS.len())].clone();
        let mut random = Random::new(random);
        for _ in 0..changes {
            mutate(&mut forge, &mut random);
        }
        frugal(&forge);
        agree(&forge);
    }
}

#[test]
fn what_was_not_changed_is_read_in_every_way() {
    let _alone = alone();
    for seed in SEEDS.iter() {
        frugal(seed);
        agree(seed);
        assert_eq!(&Forge::decode(&seed.encode()), seed);
    }
}

/// Found by chance: a check that took more memory than was read.
#[test]
fn a_check_keeps_no_more_than_was_read() {
    let _alone = alone();
    let (seed, random, changes) = (2_049_638_230_412_172_402_u128, 2_619_283_156_898_232_990, 2);
    // As proptest scales an index.
    let index = (seed * SEEDS.len() as u128) >> 64;
    let mut forge = SEEDS[usize::try_from(index).unwrap()].clone();
    let mut random = Random::new(random);
    for _ in 0..changes {
        mutate(&mut forge, &mut random);
    }
    frugal(&forge);
}
