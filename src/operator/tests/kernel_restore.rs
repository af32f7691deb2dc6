//! Stacks over a reboot: with their chain where it is proven that nothing was written unseen.
//!
//! A guest is not booted twice for this: what a reboot takes away is taken away, and the boot has
//! another name afterwards.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{Eratrack, blocks};
use eratrack_dm::linux::Kernel;
use eratrack_dm::store::StoreConfig;
use eratrack_dm::{Host, HostConfig, Liveness, Recovery};
use eratrack_model::record::Keeper;
use kit::{Disk, VolumeGroup, run, run_with};

/// To a file that is there from then on.
const FILL: &str = "dd if=/dev/urandom bs=64k count=16";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A machine with one tracked volume.
struct Machine {
    eratrack: Eratrack,
    group: VolumeGroup,
    /// Of the kernel's making, before any of ours is put over it.
    boots: kit::Dir,
    /// The udev rule is installed.
    counted: bool,
}

impl Machine {
    fn new() -> Self {
        let eratrack = Eratrack::new();
        let group = VolumeGroup::new([Disk::new(512).into_backing()]);
        group.thick("data", 320);
        Self { eratrack, group, boots: kit::Dir::new("boots"), counted: true }
    }

    fn path(&self) -> String {
        format!("/dev/{}/data", self.group.name())
    }

    fn attach(&self) -> String {
        let words = format!("attach {} --granularity 64Ki", self.path());
        self.eratrack.json(&words)["chain"].as_str().expect("a chain").to_owned()
    }

    fn boundary(&self) -> u64 {
        let era = self.eratrack.ok("boundary data --output name");
        era.trim().parse().expect("an era")
    }

    fn mounted(&self, work: impl FnOnce(&Path)) {
        let at = kit::Dir::new("mount");
        run(&format!("mount {} {}", self.path(), at.path().display()));
        work(at.path());
        run(&format!("umount {}", at.path().display()));
    }

    /// Another machine mounts it and overwrites a file in place; then perhaps its power goes.
    fn written_elsewhere(&self, power_cut: bool) {
        let (path, cut) = (self.path(), self.boots.path().join("cut"));
        self.mounted(|at| {
            let file = run(&format!("find {} -name file", at.display()));
            run(&format!("{FILL} of={} conv=notrunc,fsync", file.trim()));
            if power_cut {
                run(&format!("dd if={path} of={} bs=1M iflag=direct conv=sparse", cut.display()));
            }
        });
        if power_cut {
            run(&format!("dd if={} of={path} bs=1M oflag=direct", cut.display()));
        }
    }

    /// Everything that does not survive one is gone.
    fn reboot(&self) {
        run(&format!("lvchange -an {}/data", self.group.name()));
        let names = run("dmsetup info -c --noheadings -o name");
        for suffix in ["-access", "-era", "-base"] {
            let ours = |name: &&str| name.starts_with("eratrack-") && name.ends_with(suffix);
            for name in names.lines().filter(ours) {
                run(&format!("dmsetup remove {name}"));
            }
        }
        let metadata = self.eratrack.state().join("data/era-metadata");
        let over = run(&format!("losetup --noheadings -O NAME -j {}", metadata.display()));
        over.lines().for_each(|device| drop(run(&format!("losetup -d {device}"))));
        self.another_boot();
        run(&format!("lvchange -ay {}/data", self.group.name()));
        if self.counted {
            self.count_writes();
        }
    }

    /// As the udev rule does when a device appears.
    fn count_writes(&self) {
        let (major, minor) = self.group.volume("data").number();
        let number = format!("{major}:{minor}");
        std::fs::write(format!("/sys/dev/block/{number}/queue/iostats"), "1").expect("it counts");
        std::fs::create_dir_all("/run/udev/data").expect("a directory");
        std::fs::write(format!("/run/udev/data/b{number}"), "G:eratrack-counted\n").expect("a tag");
    }

    fn another_boot(&self) {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid").expect("a uuid");
        let file = self.boots.path().join(id.trim());
        std::fs::write(&file, &id).expect("it is written");
        let _ = run_with("umount", [BOOT_ID]);
        run(&format!("mount --bind {} {BOOT_ID}", file.display()));
    }

    /// As if they had attached it.
    fn give_to(&self, keeper: &str) {
        let file = self.eratrack.state().join("data/record.json");
        let text = std::fs::read_to_string(&file).expect("a record");
        let mut record: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        record["keeper"] = keeper.into();
        std::fs::write(&file, record.to_string()).expect("it is written");
    }

    /// What the agent makes of it when it starts.
    fn agent_recovers(&self) -> Recovery {
        let host = Host::new(HostConfig {
            root: "/".into(),
            dm: Arc::new(Kernel::open().expect("device mapper")),
            store: StoreConfig::new(self.eratrack.state()),
            nodes: "/dev".into(),
            lock_deadline: Duration::from_secs(10),
            keeper: Keeper::Agent,
        });
        let mut recovered = host.recover().expect("it recovers");
        assert_eq!(recovered.len(), 1, "{recovered:?}");
        recovered.remove(0).outcome
    }

    fn restore(&self, more: &str) -> (String, String, String) {
        let told = self.eratrack.json(&format!("restore {more}"));
        let field = |name: &str| told[0][name].as_str().unwrap_or_default().to_owned();
        (field("outcome"), field("chain"), field("why"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.eratrack.run("detach data");
        let _ = run_with("umount", [BOOT_ID]);
        let _ = std::fs::remove_dir_all("/run/udev/data");
    }
}

/// What was written before the shutdown and what is written after the boot is in one list.
#[test]
#[ignore = "kernel tier"]
fn a_chain_goes_on_over_a_shutdown_in_order() {
    let machine = Machine::new();
    run(&format!("mkfs.ext4 -q {}", machine.path()));
    let chain = machine.attach();
    let era = machine.boundary();
    machine.mounted(|at| {
        run(&format!("dd if=/dev/zero of={}/before bs=64k count=4 conv=fsync", at.display()));
    });
    machine.eratrack.ok("seal");
    machine.reboot();
    assert_eq!(machine.restore(""), ("Intact".into(), chain.clone(), String::new()));
    assert_eq!(machine.restore(""), ("InPlace".into(), chain.clone(), String::new()));
    machine.eratrack.ok("seal");
    assert_eq!(machine.restore(""), ("InPlace".into(), chain, String::new()));
    assert_eq!(machine.eratrack.json("status data")["sealed"], false, "it is used again");
    let before = machine.eratrack.ok(&format!("changed data --since {era}"));
    run(&format!("dd if=/dev/urandom of={} bs=64k count=1 seek=2000 oflag=direct", machine.path()));
    let both = blocks(&machine.eratrack.ok(&format!("changed data --since {era}")));
    let before = blocks(&before);
    assert!(before.len() >= 4 && !before.contains(&2000), "{before:?}");
    assert!(before.iter().all(|block| both.contains(block)) && both.contains(&2000), "{both:?}");
}

/// The unit puts it back before a pod uses it, and the agent, which comes later, takes it over.
#[test]
#[ignore = "kernel tier"]
fn an_agents_chain_goes_on_over_a_shutdown_in_order() {
    let machine = Machine::new();
    run(&format!("mkfs.ext4 -q {}", machine.path()));
    let chain = machine.attach();
    let era = machine.boundary();
    machine.give_to("Agent");
    machine.mounted(|at| {
        run(&format!("dd if=/dev/zero of={}/before bs=64k count=4 conv=fsync", at.display()));
    });
    machine.eratrack.ok("seal");
    machine.reboot();
    assert_eq!(machine.restore(""), ("Intact".into(), chain.clone(), String::new()));
    run(&format!("dd if=/dev/urandom of={} bs=64k count=1 seek=2000 oflag=direct", machine.path()));
    let recovered = machine.agent_recovers();
    let Recovery::Adopted(record) = recovered else { panic!("{recovered:?}") };
    assert_eq!(
        (record.chain.to_string(), record.keeper, record.seal),
        (chain, Keeper::Agent, None)
    );
    machine.give_to("Administrator");
    let both = blocks(&machine.eratrack.ok(&format!("changed data --since {era}")));
    assert!(both.len() >= 5 && both.contains(&2000), "{both:?}");
}

/// Nothing is put back: the agent begins a new chain, if the volume is still to be tracked.
#[test]
#[ignore = "kernel tier"]
fn an_agents_chain_that_is_not_proven_is_left_to_the_agent() {
    let machine = Machine::new();
    machine.attach();
    machine.give_to("Agent");
    machine.reboot();
    let before = machine.group.volume("data").table();
    let (outcome, _, why) = machine.restore("");
    assert!(outcome == "Left" && why.contains("not sealed"), "{outcome}: {why}");
    assert_eq!(machine.group.volume("data").table(), before);
    let recovered = machine.agent_recovers();
    let Recovery::Broken { found, .. } = recovered else { panic!("{recovered:?}") };
    assert_eq!(found, Liveness::Rebooted);
}

/// A boot that left it as it was, and in which nobody recorded what was written, is not forgotten by the next one.
#[test]
#[ignore = "kernel tier"]
fn a_seal_is_good_for_the_next_boot_alone() {
    let machine = Machine::new();
    machine.attach();
    machine.give_to("Agent");
    machine.eratrack.ok("seal");
    machine.reboot();
    let write = "bs=64k count=1 seek=2000 oflag=direct";
    run(&format!("dd if=/dev/urandom of={} {write}", machine.path()));
    let (outcome, _, why) = machine.restore("--trust-powered-off");
    assert!(outcome == "Left" && why.contains("writes reached the device"), "{outcome}: {why}");
    machine.reboot();
    let (outcome, _, why) = machine.restore("--trust-powered-off");
    assert!(outcome == "Left" && why.contains("not sealed"), "{outcome}: {why}");
    machine.give_to("Administrator");
}

/// Nor is one in which `restore` did not run, if it was shut down in order.
#[test]
#[ignore = "kernel tier"]
fn a_boot_that_did_not_restore_ends_the_chain_when_it_is_shut_down() {
    let machine = Machine::new();
    machine.attach();
    machine.eratrack.ok("seal");
    machine.reboot();
    let write = "bs=64k count=1 seek=2000 oflag=direct";
    run(&format!("dd if=/dev/urandom of={} {write}", machine.path()));
    machine.eratrack.run("seal");
    machine.reboot();
    let (outcome, _, why) = machine.restore("--trust-powered-off");
    assert!(outcome == "Broken" && why.contains("not sealed"), "{outcome}: {why}");
}

#[test]
#[ignore = "kernel tier"]
fn a_power_cut_and_early_writes_end_the_chain() {
    let machine = Machine::new();
    run(&format!("mkfs.ext4 -q {}", machine.path()));
    let first = machine.attach();
    machine.reboot();
    let (outcome, second, why) = machine.restore("--trust-powered-off");
    assert_eq!(outcome, "Broken");
    assert!(why.contains("not sealed") && second != first, "{why}");

    machine.eratrack.ok("seal");
    machine.reboot();
    machine.mounted(|_| ());
    let (outcome, third, why) = machine.restore("--trust-powered-off");
    assert_eq!(outcome, "Broken");
    assert!(why.contains("reached the device before") && third != second, "{why}");
    assert_eq!(machine.eratrack.json("status data")["state"], "Intact");
}

/// A boot that ran no `restore`, or another machine, mounts it; after the next boot no counter
/// tells of that, but the superblock does.
#[test]
#[ignore = "kernel tier"]
fn a_mount_elsewhere_ends_the_chain_on_ext() {
    for (make, power_cut) in [
        ("mkfs.ext4 -q", false),
        ("mkfs.ext4 -q", true),
        ("mkfs.ext2 -q", false),
        ("mkfs.ext2 -q", true),
    ] {
        let machine = Machine::new();
        run(&format!("{make} {}", machine.path()));
        let chain = machine.attach();
        machine.mounted(|at| drop(run(&format!("{FILL} of={}/file", at.display()))));
        machine.eratrack.ok("seal");
        machine.reboot();
        assert_eq!(machine.restore(""), ("Intact".into(), chain.clone(), String::new()), "{make}");

        machine.eratrack.ok("seal");
        machine.reboot();
        machine.written_elsewhere(power_cut);
        machine.reboot();
        let (outcome, _, why) = machine.restore("");
        assert_eq!(outcome, "Broken", "{make}");
        assert!(why.contains("written elsewhere"), "{make}: {why}");
    }
}

/// XFS writes its superblock when it is unmounted: what is overwritten in place on another machine
/// whose power then goes leaves no trace in the device's ends.
#[test]
#[ignore = "kernel tier"]
fn xfs_goes_on_only_if_somebody_vouches_for_it() {
    let machine = Machine::new();
    run(&format!("mkfs.xfs -q -f {}", machine.path()));
    let chain = machine.attach();
    machine.mounted(|at| {
        let (first, other) = (at.join("first"), at.join("other"));
        std::fs::create_dir(&first).expect("a directory");
        std::fs::create_dir(&other).expect("another, in another allocation group");
        run(&format!("{FILL} of={}/file", other.display()));
    });
    machine.eratrack.ok("seal");
    machine.reboot();
    let vouched = machine.restore("--trust-powered-off");
    assert_eq!(vouched, ("Intact".into(), chain, String::new()));

    machine.eratrack.ok("seal");
    machine.reboot();
    machine.written_elsewhere(true);
    machine.reboot();
    let (outcome, _, why) = machine.restore("");
    assert_eq!(outcome, "Broken");
    assert!(why.contains("--trust-powered-off"), "the ends are what they were: {why}");
}

#[test]
#[ignore = "kernel tier"]
fn a_raw_device_goes_on_only_if_somebody_vouches_for_it() {
    let machine = Machine::new();
    let first = machine.attach();
    machine.eratrack.ok("seal");
    machine.reboot();
    let (outcome, second, why) = machine.restore("");
    assert_eq!(outcome, "Broken");
    assert!(why.contains("--trust-powered-off") && second != first, "{why}");
    machine.eratrack.ok("seal");
    machine.reboot();
    assert_eq!(machine.restore("--trust-powered-off"), ("Intact".into(), second, String::new()));
}

/// Sealing draws the last boundary: metadata that is further is other metadata, or another's.
#[test]
#[ignore = "kernel tier"]
fn metadata_that_went_on_after_the_seal_ends_the_chain() {
    let machine = Machine::new();
    machine.attach();
    machine.eratrack.ok("seal");
    machine.eratrack.ok("changed data --since 1");
    machine.reboot();
    let (outcome, _, why) = machine.restore("--trust-powered-off");
    assert_eq!(outcome, "Broken");
    assert!(why.contains("not the one that was sealed"), "{why}");
}

/// Whoever reads it slowly, or not at all, keeps nobody from the stack.
#[test]
#[ignore = "kernel tier"]
fn a_dump_that_nobody_reads_blocks_nobody() {
    let machine = Machine::new();
    machine.attach();
    let mut unread = std::process::Command::new(env!("CARGO_BIN_EXE_eratrack"))
        .args(["device", "dump", "data"])
        .env("ERATRACK_METADATA_DIR", machine.eratrack.state())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it runs");
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(unread.try_wait().expect("it is asked").is_none(), "its output fits into the pipe");
    machine.boundary();
    unread.kill().expect("it is ended");
    unread.wait().expect("it has ended");
}

#[test]
#[ignore = "kernel tier"]
fn without_the_udev_rule_nothing_is_proven() {
    let mut machine = Machine::new();
    machine.counted = false;
    run(&format!("mkfs.ext4 -q {}", machine.path()));
    machine.attach();
    machine.eratrack.ok("seal");
    machine.reboot();
    let (outcome, _, why) = machine.restore("--trust-powered-off");
    assert_eq!(outcome, "Broken");
    assert!(why.contains("not counted from the start"), "{why}");
}

/// What would still be written until the end could not be told from what is written elsewhere.
#[test]
#[ignore = "kernel tier"]
fn a_device_in_use_is_not_sealed() {
    let machine = Machine::new();
    run(&format!("mkfs.ext4 -q {}", machine.path()));
    machine.attach();
    machine.mounted(|_| {
        let said = machine.eratrack.fails("seal", 4);
        assert!(said.contains("1 of 1 stacks could not be sealed"), "{said}");
    });
    assert_eq!(machine.eratrack.json("status data")["sealed"], false);
}
