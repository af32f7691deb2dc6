//! What cannot be tracked, as real devices: each is refused with the documented reason, keeps its
//! table, and nothing of ours is left on the machine.

mod common;

use std::path::PathBuf;

use common::{assert_none_suspended, assert_nothing_of_ours, request};
use eratrack_dm::{Host, HostError};
use kit::{Disk, Mount, Volume, VolumeGroup, run, run_with};

/// A device-mapper device made by hand; gone with this value.
struct ByHand(Volume);

impl ByHand {
    fn new(table: &str, options: &[&str]) -> Self {
        let name = kit::unique("refused");
        run_with("dmsetup", [&["create", &name, "--table", table], options].concat()).unwrap();
        let path = PathBuf::from(format!("/dev/mapper/{name}"));
        Self(Volume { lv: String::new(), dm_name: name, path })
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        let _ = run_with("dmsetup", ["remove", "--retry", "-f", &self.0.dm_name]);
    }
}

/// A machine that tracks nothing.
struct Machine {
    store: Mount,
    host: Host,
}

impl Machine {
    fn new() -> Self {
        let store = kit::metadata_dir(64);
        let host = common::host(store.path());
        Self { store, host }
    }

    #[track_caller]
    fn refuses(&self, volume: &Volume, reason: &str, words: &str) {
        self.refuses_at("64Ki", volume, reason, words);
    }

    /// Refused, with everything as it was. The words are those of the message.
    #[track_caller]
    fn refuses_at(&self, granularity: &str, volume: &Volume, reason: &str, words: &str) {
        let before = state();
        let error = self.host.attach(&request(volume, "refused", granularity)).unwrap_err();
        assert!(matches!(error, HostError::Refused(_)), "{error}");
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.to_string().contains(words), "no {words:?} in: {error}");
        assert_eq!(state(), before);
        assert_none_suspended();
        assert_nothing_of_ours(self.store.path());
    }
}

/// Every table, loaded or live, every device and every loop device.
fn state() -> [String; 4] {
    let loaded = run_with("dmsetup", ["table", "--inactive"]).unwrap();
    let devices = run("dmsetup info -c --noheadings -o name,attr,open,uuid");
    let loops = run("losetup --list --noheadings -O NAME,BACK-FILE");
    [run("dmsetup table"), loaded, devices, loops]
}

fn modules(names: &[&str]) {
    for name in names {
        run_with("modprobe", [name]).expect("the guest has the module");
    }
}

/// A device of the group's that LVM keeps for itself.
fn inner(group: &VolumeGroup, name: &str) -> Volume {
    let dm_name = format!("{}-{name}", group.name());
    Volume { lv: String::new(), path: format!("/dev/mapper/{dm_name}").into(), dm_name }
}

const SECTORS: u64 = 32 << 11;

#[test]
#[ignore = "kernel tier"]
fn targets_that_cannot_be_copied() {
    let machine = Machine::new();
    let disk = Disk::new(32);
    let device = disk.device().display();
    modules(&["dm-crypt", "dm-multipath", "dm-round-robin", "dm-zero"]);
    let key = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let crypt = ByHand::new(&format!("0 {SECTORS} crypt aes-xts-plain64 {key} 0 {device} 0"), &[]);
    machine.refuses(&crypt.0, "TableUnsupported", "track the device below the encryption");
    drop(crypt);
    let paths = format!("0 0 1 1 round-robin 0 1 1 {device} 1000");
    let multipath = ByHand::new(&format!("0 {SECTORS} multipath {paths}"), &[]);
    machine.refuses(&multipath.0, "TableUnsupported", "track a volume over it");
    drop(multipath);
    for target in ["error", "zero"] {
        let other = ByHand::new(&format!("0 {SECTORS} {target}"), &[]);
        machine.refuses(&other.0, "TableUnsupported", "only linear, striped and thin can be");
    }
    // One segment that can be copied does not make up for another that cannot.
    let half = SECTORS / 2;
    let table = format!("0 {half} linear {device} 0\n{half} {half} error");
    machine.refuses(&ByHand::new(&table, &[]).0, "TableUnsupported", "\"error\"");
    let linear = format!("0 {SECTORS} linear {device} 0");
    let read_only = ByHand::new(&linear, &["--readonly"]);
    machine.refuses(&read_only.0, "DeviceReadOnly", "read-only");
}

#[test]
#[ignore = "kernel tier"]
fn what_is_no_device_mapper_device() {
    let machine = Machine::new();
    let disk = Disk::new(32);
    let path = disk.device().to_owned();
    let volume = Volume { lv: String::new(), dm_name: String::new(), path };
    machine.refuses(&volume, "NotDeviceMapper", "use a volume of LVM");
}

#[test]
#[ignore = "kernel tier"]
fn mirrors_of_lvm() {
    let machine = Machine::new();
    modules(&["dm-mirror", "dm-raid", "raid1"]);
    let group = VolumeGroup::new([Disk::new(96).into_backing(), Disk::new(96).into_backing()]);
    let create = "lvcreate -qq -y -Wn -Zn -L 16m";
    run(&format!("{create} --type mirror --mirrorlog core -m1 -n mirror {}", group.name()));
    machine.refuses(&group.volume("mirror"), "TableUnsupported", "\"mirror\"");
    run(&format!("{create} --type raid1 -m1 -n raid {}", group.name()));
    machine.refuses(&group.volume("raid"), "TableUnsupported", "\"raid\"");
}

#[test]
#[ignore = "kernel tier"]
fn thin_pools_and_what_they_are_made_of() {
    let machine = Machine::new();
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    group.thin_pool("pool", 32, 64);
    group.thin("pool", "data", 32);
    for (name, words) in [("pool", "pool"), ("pool-tpool", "tpool"), ("pool_tdata", "tdata")] {
        machine.refuses(&inner(&group, name), "TableUnsupported", words);
    }
}

#[test]
#[ignore = "kernel tier"]
fn volumes_with_snapshots_and_the_snapshots_themselves() {
    let machine = Machine::new();
    let group = VolumeGroup::new([Disk::new(96).into_backing()]);
    let volume = group.thick("data", 16);
    run(&format!("lvcreate -qq -y -s -L 16m -n snap {}", volume.lv));
    machine.refuses(&volume, "VolumeHasSnapshots", "remove them first");
    machine.refuses(&group.volume("snap"), "TableUnsupported", "it is an LVM snapshot");
    machine.refuses(&inner(&group, "data-real"), "TableUnsupported", "real");
    machine.refuses(&inner(&group, "snap-cow"), "TableUnsupported", "cow");
}

#[test]
#[ignore = "kernel tier"]
fn cached_volumes() {
    let machine = Machine::new();
    modules(&["dm-cache", "dm-cache-smq", "dm-writecache"]);
    let group = VolumeGroup::new([Disk::new(128).into_backing()]);
    let vg = group.name();
    run(&format!("lvcreate -qq -y -Wn -Zn -L 32m -n data {vg}"));
    run(&format!("lvcreate -qq -y -Wn -Zn -L 16m -n fast {vg}"));
    run(&format!("lvconvert -qq -y --type cache --cachevol {vg}/fast {vg}/data"));
    machine.refuses(&group.volume("data"), "TableUnsupported", "lvconvert --splitcache");
}

#[test]
#[ignore = "kernel tier"]
fn volumes_that_are_too_small() {
    let machine = Machine::new();
    let group = VolumeGroup::new([Disk::new(64).into_backing()]);
    machine.refuses(&group.thick("small", 4), "DeviceTooSmall", "use a larger volume");
    let volume = group.thick("data", 8);
    machine.refuses_at("16Mi", &volume, "DeviceTooSmall", "or a finer granularity");
    let record = machine.host.attach(&request(&volume, "least", "64Ki")).unwrap().record;
    machine.host.detach(&record.stack).unwrap();
    assert_nothing_of_ours(machine.store.path());
}
