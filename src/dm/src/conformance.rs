//! What every device mapper does, the kernel's and the fake: one suite for both.

use eratrack_model::names::{DmName, DmUuid};
use eratrack_model::plan::{era_table, live_table, origin_table};
use eratrack_model::table::{Table, Target};
use eratrack_model::units::{DevNo, Granularity, Sectors};

use crate::era_status::{self, EraStatus};
use crate::port::{Access, DeviceMapper, DmErrorKind, Info, Lookup, Slot};

/// Where the suite gets disks from.
pub trait Disks {
    /// A disk of that length, zero at its start; nobody else uses it. It stays until the end.
    fn disk(&self, length: Sectors) -> DevNo;
}

const LENGTH: Sectors = Sectors(16384);

/// One thing that is promised, and the check of it.
pub type Check = (&'static str, fn(&Suite<'_>));

/// Everything that is promised.
pub const CHECKS: &[Check] = &[
    ("a device is found by number, name and uuid until it is removed", found_until_removed),
    ("a name or a uuid that is taken is refused", taken_names_are_refused),
    ("a device that is not there is not found", missing_devices_are_not_found),
    ("a loaded table waits in the slot until a swap or a clear", loaded_tables_wait),
    ("a swap with an empty slot changes nothing", empty_swaps_change_nothing),
    ("a swap replaces the table of a device in use", swaps_replace_in_use),
    ("a device that another maps is busy", mapped_devices_are_busy),
    ("a table that does not fit is refused, and the slot stays", bad_tables_are_refused),
    (
        "a swap that fails leaves the device running on its own table",
        swaps_that_fail_change_nothing,
    ),
    ("a read-only table makes a read-only device", read_only_is_shown),
    ("era counts, and holds one metadata snapshot", era_counts),
    ("an era stack is put under a device and taken out", stacks_go_in_and_out),
    ("a snapshot stands beside an origin, and goes after it", snapshots_stand_beside_origins),
    ("targets are there or not", targets_are_there_or_not),
];

/// Where the checks run.
pub struct Suite<'a> {
    /// The device mapper that is judged.
    pub dm: &'a dyn DeviceMapper,
    /// Its disks.
    pub disks: &'a dyn Disks,
}

/// Runs every check; the last line printed names the one that failed.
///
/// # Panics
/// At the first promise that is not kept.
pub fn run(suite: &Suite<'_>) {
    for (promise, check) in CHECKS {
        println!("{promise}");
        check(suite);
    }
}

impl Suite<'_> {
    fn create(&self, name: &str) -> DevNo {
        self.dm.create(&dm_name(name), &dm_uuid(name)).unwrap()
    }

    fn info(&self, dev: DevNo) -> Info {
        self.dm.info(&dev.into()).unwrap()
    }

    fn active(&self, name: &str, table: &Table) -> DevNo {
        let dev = self.create(name);
        self.dm.load(dev, table, Access::ReadWrite).unwrap();
        self.dm.swap(dev).unwrap();
        dev
    }

    #[track_caller]
    fn load_error(&self, dev: DevNo, table: &Table) -> DmErrorKind {
        match self.dm.load(dev, table, Access::ReadWrite) {
            Ok(()) => panic!("the table {table} is taken"),
            Err(error) => error.kind,
        }
    }

    fn live(&self, dev: DevNo) -> Option<Table> {
        self.dm.table(dev, Slot::Live).unwrap()
    }

    fn inactive(&self, dev: DevNo) -> Option<Table> {
        self.dm.table(dev, Slot::Inactive).unwrap()
    }

    fn status(&self, era: DevNo) -> (u32, Option<u64>) {
        match era_status::parse(&self.dm.status(era).unwrap()) {
            Ok(EraStatus::Working { era, held, .. }) => (era.0, held),
            other => panic!("{other:?}"),
        }
    }
}

fn found_until_removed(suite: &Suite<'_>) {
    let dev = suite.create("found");
    let expected = suite.info(dev);
    assert_eq!((expected.number, &expected.name), (dev, &dm_name("found")));
    assert_eq!(expected.uuid, Some(dm_uuid("found")));
    assert!(!expected.live && !expected.inactive && expected.open_count == 0);
    for of in [Lookup::Name(dm_name("found")), Lookup::Uuid(dm_uuid("found"))] {
        assert_eq!(suite.dm.info(&of).unwrap(), expected);
    }
    let listed = || suite.dm.list().unwrap().into_iter().any(|one| one.number == dev);
    assert!(listed());
    assert_eq!((suite.live(dev), suite.inactive(dev)), (None, None));
    suite.dm.remove(dev).unwrap();
    assert!(!listed());
    assert!(suite.dm.info(&Lookup::Uuid(dm_uuid("found"))).unwrap_err().is_not_found());
}

fn taken_names_are_refused(suite: &Suite<'_>) {
    let dev = suite.create("taken");
    let refused =
        |name: &str, uuid: &str| suite.dm.create(&dm_name(name), &dm_uuid(uuid)).unwrap_err().kind;
    assert_eq!(refused("taken", "other"), DmErrorKind::Busy);
    assert_eq!(refused("other", "taken"), DmErrorKind::Busy);
    suite.dm.remove(dev).unwrap();
}

fn missing_devices_are_not_found(suite: &Suite<'_>) {
    let dev = suite.create("gone");
    suite.dm.remove(dev).unwrap();
    let table = linear(suite.disks.disk(LENGTH), LENGTH);
    let errors = [
        suite.dm.info(&dev.into()).unwrap_err(),
        suite.dm.load(dev, &table, Access::ReadWrite).unwrap_err(),
        suite.dm.swap(dev).unwrap_err(),
        suite.dm.clear(dev).unwrap_err(),
        suite.dm.remove(dev).unwrap_err(),
        suite.dm.table(dev, Slot::Live).unwrap_err(),
        suite.dm.status(dev).unwrap_err(),
        suite.dm.message(dev, "checkpoint").unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_not_found(), "{error}");
        assert_eq!(error.device, dev.to_string());
    }
}

fn loaded_tables_wait(suite: &Suite<'_>) {
    let table = linear(suite.disks.disk(LENGTH), LENGTH);
    let dev = suite.create("waits");
    suite.dm.load(dev, &table, Access::ReadWrite).unwrap();
    assert_eq!((suite.live(dev), suite.inactive(dev)), (None, Some(table.clone())));
    suite.dm.clear(dev).unwrap();
    suite.dm.clear(dev).unwrap();
    assert_eq!((suite.live(dev), suite.inactive(dev)), (None, None));
    suite.dm.load(dev, &table, Access::ReadWrite).unwrap();
    suite.dm.swap(dev).unwrap();
    assert_eq!((suite.live(dev), suite.inactive(dev)), (Some(table), None));
    let info = suite.info(dev);
    assert!(info.live && !info.inactive && !info.suspended && info.access == Access::ReadWrite);
    suite.dm.remove(dev).unwrap();
}

fn empty_swaps_change_nothing(suite: &Suite<'_>) {
    let table = linear(suite.disks.disk(LENGTH), LENGTH);
    let dev = suite.active("still", &table);
    suite.dm.swap(dev).unwrap();
    assert_eq!((suite.live(dev), suite.inactive(dev)), (Some(table), None));
    assert!(!suite.info(dev).suspended);
    suite.dm.remove(dev).unwrap();
}

fn swaps_replace_in_use(suite: &Suite<'_>) {
    let (first, second) = (suite.disks.disk(LENGTH), suite.disks.disk(LENGTH));
    let dev = suite.active("replaced", &linear(first, LENGTH));
    let above = suite.active("above-it", &linear(dev, LENGTH));
    assert_eq!(suite.info(dev).open_count, 1);
    suite.dm.load(dev, &linear(second, LENGTH), Access::ReadWrite).unwrap();
    assert_eq!(suite.live(dev), Some(linear(first, LENGTH)));
    suite.dm.swap(dev).unwrap();
    assert_eq!(suite.live(dev), Some(linear(second, LENGTH)));
    assert!(!suite.info(dev).suspended);
    suite.dm.remove(above).unwrap();
    suite.dm.remove(dev).unwrap();
}

fn mapped_devices_are_busy(suite: &Suite<'_>) {
    let dev = suite.active("below", &linear(suite.disks.disk(LENGTH), LENGTH));
    let above = suite.create("above");
    suite.dm.load(above, &linear(dev, LENGTH), Access::ReadWrite).unwrap();
    assert_eq!(suite.dm.remove(dev).unwrap_err().kind, DmErrorKind::Busy, "by its slot");
    suite.dm.swap(above).unwrap();
    assert_eq!(suite.dm.remove(dev).unwrap_err().kind, DmErrorKind::Busy, "by its table");
    suite.dm.remove(above).unwrap();
    suite.dm.remove(dev).unwrap();
}

fn bad_tables_are_refused(suite: &Suite<'_>) {
    let disk = suite.disks.disk(LENGTH);
    let good = linear(disk, LENGTH);
    let dev = suite.create("fits");
    suite.dm.load(dev, &good, Access::ReadWrite).unwrap();
    let kind = Target::Other { kind: "nonesuch".into(), params: String::new() };
    let unknown = Table::single(LENGTH, kind).unwrap();
    assert_eq!(suite.load_error(dev, &unknown), DmErrorKind::Invalid);
    let nowhere = linear(DevNo { major: 4000, minor: 1 }, LENGTH);
    assert_eq!(suite.load_error(dev, &nowhere), DmErrorKind::MissingDependency);
    let odd =
        Target::Era { metadata: suite.disks.disk(LENGTH), origin: disk, granularity: Sectors(9) };
    assert_eq!(suite.load_error(dev, &Table::single(LENGTH, odd).unwrap()), DmErrorKind::Invalid);
    assert_eq!(suite.live(dev), None);
    suite.dm.remove(dev).unwrap();
}

/// The kernel looks at lengths when it loads a device's first table, and for later ones only in
/// the swap, after the drain (`dm_calculate_queue_limits`, drivers/md/dm-table.c).
fn swaps_that_fail_change_nothing(suite: &Suite<'_>) {
    let disk = suite.disks.disk(LENGTH);
    let (good, longer) = (linear(disk, LENGTH), linear(disk, Sectors(LENGTH.0 * 2)));
    let fresh = suite.create("longer");
    assert_eq!(suite.load_error(fresh, &longer), DmErrorKind::Invalid);
    suite.dm.remove(fresh).unwrap();
    let dev = suite.active("goes-on", &good);
    let loaded = suite.dm.load(dev, &longer, Access::ReadWrite);
    let refused = loaded.and_then(|()| suite.dm.swap(dev)).unwrap_err();
    assert_eq!(refused.kind, DmErrorKind::Invalid, "{refused}");
    assert!(!suite.info(dev).suspended, "left suspended");
    assert_eq!((suite.live(dev), suite.inactive(dev)), (Some(good), None));
    suite.dm.remove(dev).unwrap();
}

fn read_only_is_shown(suite: &Suite<'_>) {
    let dev = suite.create("read-only");
    let table = linear(suite.disks.disk(LENGTH), LENGTH);
    suite.dm.load(dev, &table, Access::ReadOnly).unwrap();
    suite.dm.swap(dev).unwrap();
    assert_eq!(suite.info(dev).access, Access::ReadOnly);
    suite.dm.remove(dev).unwrap();
}

fn era_counts(suite: &Suite<'_>) {
    let (metadata, origin) = (suite.disks.disk(LENGTH), suite.disks.disk(LENGTH));
    let table = era_table(LENGTH, metadata, origin, Granularity::MIN);
    let dev = suite.active("counts", &table);
    assert_eq!(suite.live(dev), Some(table));
    assert_eq!(suite.status(dev), (1, None));
    suite.dm.message(dev, "checkpoint").unwrap();
    let (era, held) = suite.status(dev);
    assert!(era > 1 && held.is_none());
    suite.dm.message(dev, "take_metadata_snap").unwrap();
    let (later, held) = suite.status(dev);
    assert!(later > era && held.is_some());
    let refused = |text: &str| suite.dm.message(dev, text).unwrap_err().kind;
    assert_eq!(refused("take_metadata_snap"), DmErrorKind::Invalid);
    suite.dm.message(dev, "drop_metadata_snap").unwrap();
    assert_eq!(suite.status(dev).1, None);
    assert_eq!(refused("drop_metadata_snap"), DmErrorKind::Invalid);
    assert_eq!(refused("nonesuch"), DmErrorKind::Invalid);
    suite.dm.remove(dev).unwrap();
}

fn stacks_go_in_and_out(suite: &Suite<'_>) {
    let (metadata, disk) = (suite.disks.disk(LENGTH), suite.disks.disk(LENGTH));
    let original = linear(disk, LENGTH);
    let x = suite.active("x", &original);
    let base = suite.active("x-base", &original);
    let era = suite.active("x-era", &era_table(LENGTH, metadata, base, Granularity::MIN));
    let above = live_table(&original, era, Sectors(0));
    suite.dm.load(x, &above, Access::ReadWrite).unwrap();
    suite.dm.swap(x).unwrap();
    let (before, _) = suite.status(era);
    suite.dm.message(era, "checkpoint").unwrap();
    suite.dm.load(x, &above, Access::ReadWrite).unwrap();
    suite.dm.swap(x).unwrap();
    assert!(suite.status(era).0 > before);
    assert_eq!(suite.live(x), Some(above));
    suite.dm.load(x, &original, Access::ReadWrite).unwrap();
    suite.dm.swap(x).unwrap();
    for dev in [era, base, x] {
        assert!(!suite.info(dev).suspended);
        suite.dm.remove(dev).unwrap();
    }
}

fn snapshots_stand_beside_origins(suite: &Suite<'_>) {
    let (disk, store) = (suite.disks.disk(LENGTH), suite.disks.disk(LENGTH));
    let below = suite.active("below", &linear(disk, LENGTH));
    let of = |chunk| {
        let target = Target::Snapshot { origin: below, store, chunk: Sectors(chunk) };
        Table::single(LENGTH, target).expect("a length above zero")
    };
    let snapshot = suite.create("snapshot");
    assert_eq!(suite.load_error(snapshot, &of(24)), DmErrorKind::Invalid);
    suite.dm.load(snapshot, &of(32), Access::ReadWrite).unwrap();
    suite.dm.swap(snapshot).unwrap();
    assert_eq!(suite.live(snapshot), Some(of(32)));
    let status = suite.dm.status(snapshot).unwrap();
    assert_eq!(status[0].text.trim(), format!("0/{LENGTH} 0"));
    let origin = suite.active("origin", &origin_table(LENGTH, below));
    let x = suite.active("above", &linear(below, LENGTH));
    assert_eq!(suite.info(below).open_count, 3);
    suite.dm.load(x, &linear(origin, LENGTH), Access::ReadWrite).unwrap();
    suite.dm.swap(x).unwrap();
    assert_eq!((suite.info(origin).open_count, suite.info(below).open_count), (1, 2));
    assert_eq!(suite.dm.remove(origin).unwrap_err().kind, DmErrorKind::Busy);
    suite.dm.load(x, &linear(below, LENGTH), Access::ReadWrite).unwrap();
    suite.dm.swap(x).unwrap();
    for dev in [origin, snapshot, x, below] {
        suite.dm.remove(dev).unwrap();
    }
}

fn targets_are_there_or_not(suite: &Suite<'_>) {
    assert!(suite.dm.has_target("linear").unwrap());
    assert!(suite.dm.has_target("era").unwrap());
    assert!(suite.dm.has_target("snapshot").unwrap());
    assert!(suite.dm.has_target("snapshot-origin").unwrap());
    assert!(!suite.dm.has_target("nonesuch").unwrap());
}

fn linear(device: DevNo, length: Sectors) -> Table {
    let target = Target::Linear { device, offset: Sectors(0) };
    Table::single(length, target).expect("a length above zero")
}

fn dm_name(name: &str) -> DmName {
    format!("conformance-{name}").parse().expect("a valid name")
}

fn dm_uuid(name: &str) -> DmUuid {
    format!("CRYPT-SUBDEV-CONFORMANCE-{name}").parse().expect("a valid uuid")
}
