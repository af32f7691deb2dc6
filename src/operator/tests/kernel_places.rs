//! Where metadata may live, as the program's users have it: made, read, found again after a
//! reboot, and taken away; what goes wrong says what to do.
//!
//! A guest is not booted twice for this: what a reboot takes away is taken away, and the boot has
//! another name afterwards.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{Eratrack, blocks};
use kit::{Disk, VolumeGroup, run, run_with};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const MIB: u64 = 1 << 20;

/// A disk whose device is another one after a reboot.
struct MovingDisk {
    file: PathBuf,
    device: String,
}

impl MovingDisk {
    fn new(dir: &Path, mib: u64) -> Self {
        let file = dir.join("pool-disk");
        File::create(&file).expect("a file").set_len(mib * MIB).expect("sparse");
        let device = run(&format!("losetup --find --show {}", file.display())).trim().to_owned();
        Self { file, device }
    }

    /// The number that it had is somebody else's afterwards.
    fn reboot(&mut self, dir: &Path) {
        run(&format!("losetup -d {}", self.device));
        let other = dir.join("another-disk");
        File::create(&other).expect("a file").set_len(MIB).expect("sparse");
        run(&format!("losetup {} {}", self.device, other.display()));
        let file = self.file.display();
        let device = run(&format!("losetup --find --show {file}"));
        self.device = device.trim().into();
    }
}

impl Drop for MovingDisk {
    fn drop(&mut self) {
        for file in ["pool-disk", "another-disk"] {
            let file = self.file.with_file_name(file);
            let over = run(&format!("losetup --noheadings -O NAME -j {}", file.display()));
            for device in over.lines() {
                let _ = run_with("losetup", ["-d", device]);
            }
        }
    }
}

/// A machine with a volume to track, and each kind of place for its metadata.
struct Machine {
    eratrack: Eratrack,
    group: VolumeGroup,
    metadata: VolumeGroup,
    pool: MovingDisk,
    dir: kit::Dir,
}

impl Machine {
    fn new() -> Self {
        let eratrack = Eratrack::new();
        let group = VolumeGroup::new([Disk::new(64).into_backing()]);
        group.thick("data", 32);
        let metadata = VolumeGroup::new([Disk::new(16).into_backing()]);
        let dir = kit::Dir::new("places");
        let pool = MovingDisk::new(dir.path(), 16);
        eratrack.ok(&format!("pool init {}", pool.device));
        run(&format!("mkfs.ext4 -q /dev/{}/data", group.name()));
        Self { eratrack, group, metadata, pool, dir }
    }

    /// Each place, as `--metadata` wants it.
    fn places(&self) -> [String; 3] {
        [
            format!("pool:{}", self.pool.device),
            format!("lv:{}", self.metadata.name()),
            format!("file:{}", self.eratrack.state().with_file_name("data.era").display()),
        ]
    }

    fn path(&self) -> String {
        format!("/dev/{}/data", self.group.name())
    }

    fn attach(&self, place: &str) -> String {
        let words = format!("attach {} --granularity 64Ki --metadata {place}", self.path());
        self.eratrack.json(&words)["chain"].as_str().expect("a chain").to_owned()
    }

    fn boundary(&self) -> u64 {
        self.eratrack.ok("boundary data --output name").trim().parse().expect("an era")
    }

    fn write(&self, block: u64) {
        let to = self.path();
        run(&format!("dd if=/dev/urandom of={to} bs=64k count=1 seek={block} oflag=direct"));
    }

    fn changed(&self, since: u64) -> Vec<u64> {
        blocks(&self.eratrack.ok(&format!("changed data --since {since}")))
    }

    /// Everything that does not survive one is gone.
    fn reboot(&mut self) {
        run(&format!("lvchange -an {}/data", self.group.name()));
        let names = run("dmsetup info -c --noheadings -o name");
        for suffix in ["-era", "-base", "-metadata"] {
            let ours = |name: &&str| name.starts_with("eratrack-") && name.ends_with(suffix);
            for name in names.lines().filter(ours) {
                run(&format!("dmsetup remove {name}"));
            }
        }
        run(&format!("vgchange -an {}", self.metadata.name()));
        let listed = run("losetup --noheadings -O NAME,BACK-FILE");
        for line in listed.lines().filter(|line| line.contains("data.era")) {
            run(&format!("losetup -d {}", line.split_whitespace().next().expect("a name")));
        }
        self.pool.reboot(self.dir.path());
        let id = fs::read_to_string("/proc/sys/kernel/random/uuid").expect("a uuid");
        let file = self.dir.path().join("boot-id");
        fs::write(&file, &id).expect("it is written");
        let _ = run_with("umount", [BOOT_ID]);
        run(&format!("mount --bind {} {BOOT_ID}", file.display()));
        run(&format!("lvchange -ay {}/data", self.group.name()));
        self.count_writes();
    }

    /// As the udev rule does when a device appears.
    fn count_writes(&self) {
        let (major, minor) = self.group.volume("data").number();
        let number = format!("{major}:{minor}");
        fs::write(format!("/sys/dev/block/{number}/queue/iostats"), "1").expect("it counts");
        fs::create_dir_all("/run/udev/data").expect("a directory");
        fs::write(format!("/run/udev/data/b{number}"), "G:eratrack-counted\n").expect("a tag");
    }

    fn restore(&self) -> (String, String) {
        let told = self.eratrack.json("restore");
        let field = |name: &str| told[0][name].as_str().unwrap_or_default().to_owned();
        (field("outcome"), field("why"))
    }

    /// Nothing of a stack is left in any place.
    fn assert_no_metadata(&self) {
        let device = &self.pool.device;
        assert_eq!(self.eratrack.ok(&format!("pool list {device} --output name")), "");
        let lvs = run(&format!("lvs --noheadings {}", self.metadata.name()));
        assert_eq!(lvs.trim(), "");
        assert!(!self.eratrack.state().with_file_name("data.era").exists());
        let names = run("dmsetup info -c --noheadings -o name");
        assert!(!names.contains("eratrack-"), "{names}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.eratrack.run("detach data");
        let _ = run_with("umount", [BOOT_ID]);
        let _ = fs::remove_dir_all("/run/udev/data");
    }
}

#[test]
#[ignore = "kernel tier"]
fn wherever_its_metadata_is_a_stack_is_found_again_with_its_chain() {
    let mut machine = Machine::new();
    for index in 0..3 {
        let place = machine.places()[index].clone();
        let chain = machine.attach(&place);
        let status = machine.eratrack.json("status data");
        assert_eq!(status["metadata"], place.as_str());
        let era = machine.boundary();
        machine.write(100);
        assert_eq!(machine.changed(era), [100], "{place}");
        assert_eq!(machine.attach(&place), chain, "it is there already");
        let other = machine.places()[(index + 1) % 3].clone();
        let words = format!("attach {} --granularity 64Ki --metadata {other}", machine.path());
        let said = machine.eratrack.fails(&words, 1);
        assert!(said.contains("its metadata is at") && said.contains(&place), "{said}");
        machine.eratrack.ok("seal");
        machine.reboot();
        assert_eq!(machine.restore(), ("Intact".to_owned(), String::new()), "{place}");
        assert_eq!(machine.eratrack.json("status data")["chain"], chain.as_str());
        machine.write(200);
        let both = machine.changed(era);
        assert!(both.contains(&100) && both.contains(&200) && both.len() < 20, "{both:?}");
        machine.eratrack.ok("detach data");
        machine.assert_no_metadata();
    }
}

/// What lies where a stack's metadata was is taken for it only if it can be.
#[test]
#[ignore = "kernel tier"]
fn metadata_that_does_not_match_its_record_ends_the_chain() {
    let mut machine = Machine::new();
    let spoilt = |machine: &mut Machine, why: &str, spoil: &dyn Fn(&File)| {
        machine.eratrack.ok("seal");
        let pool = machine.eratrack.json(&format!("pool list {}", machine.pool.device));
        assert!(pool[0]["state"] == "InUse", "{pool}");
        machine.reboot();
        let disk = File::options().read(true).write(true).open(&machine.pool.device).unwrap();
        spoil(&disk);
        disk.sync_all().unwrap();
        let (outcome, said) = machine.restore();
        assert_eq!(outcome, "Broken", "{why}");
        assert!(said.contains(why), "{why}: {said}");
    };
    machine.attach(&machine.places()[0]);
    let area = MIB;
    spoilt(&mut machine, "metadata", &|disk| disk.write_all_at(&[0; 4096], area).unwrap());
    spoilt(&mut machine, "checksum", &|disk| disk.write_all_at(&[7; 4], area).unwrap());
}

/// A disk that appears late keeps nothing from going on once it is there.
#[test]
#[ignore = "kernel tier"]
fn a_pool_that_is_not_there_leaves_its_stack_for_another_attempt() {
    let mut machine = Machine::new();
    let chain = machine.attach(&machine.places()[0]);
    machine.eratrack.ok("seal");
    machine.reboot();
    run(&format!("losetup -d {}", machine.pool.device));
    let output = machine.eratrack.run("restore");
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("attach its disk"), "{said}");
    assert_eq!(machine.eratrack.json("status data")["state"], "Rebooted");
    let file = machine.pool.file.display();
    machine.pool.device = run(&format!("losetup --find --show {file}")).trim().into();
    assert_eq!(machine.restore(), ("Intact".to_owned(), String::new()));
    assert_eq!(machine.eratrack.json("status data")["chain"], chain.as_str());
}

/// A copy of the metadata from before the last boundary lacks what was written since.
#[test]
#[ignore = "kernel tier"]
fn metadata_from_before_the_last_boundary_ends_the_chain() {
    let mut machine = Machine::new();
    machine.attach(&machine.places()[0]);
    machine.boundary();
    let mut old = vec![0; 1 << 20];
    let disk = File::open(&machine.pool.device).unwrap();
    run(&format!("blockdev --flushbufs {}", machine.pool.device));
    disk.read_exact_at(&mut old, MIB).unwrap();
    drop(disk);
    machine.boundary();
    machine.write(100);
    machine.eratrack.ok("seal");
    machine.reboot();
    let disk = File::options().write(true).open(&machine.pool.device).unwrap();
    disk.write_all_at(&old, MIB).unwrap();
    disk.sync_all().unwrap();
    let (outcome, why) = machine.restore();
    assert_eq!(outcome, "Broken");
    assert!(why.contains("older than the last boundary"), "{why}");
}

#[test]
#[ignore = "kernel tier"]
fn each_mistake_with_a_place_says_what_to_do_and_changes_nothing() {
    let machine = Machine::new();
    let fails = |place: &str, code: i32, part: &str| {
        let words = format!("attach {} --granularity 64Ki --metadata {place}", machine.path());
        let said = machine.eratrack.fails(&words, code);
        assert!(said.contains(part), "{place}: {said}");
        machine.assert_no_metadata();
        assert_eq!(machine.eratrack.json("list"), serde_json::json!([]));
    };
    let blank = Disk::new(8);
    fails(&format!("pool:{}", blank.device().display()), 6, "there is no pool on it");
    fails("pool:/dev/no-such", 6, "no block device");
    fails("lv:no-such-group", 6, "there is no volume group no-such-group");
    fails("disk:/dev/sdb", 2, "use file:PATH, lv:VG or pool:DEVICE");
    fails("file:data.era", 2, "absolute path");
    fails("file:/no/such/directory/data.era", 6, "/no/such/directory");
    let taken = machine.dir.path().join("taken");
    fs::write(&taken, "precious").unwrap();
    fails(&format!("file:{}", taken.display()), 5, "is there already");
    assert_eq!(fs::read(&taken).unwrap(), b"precious");
    let full = machine.metadata.name();
    run(&format!("lvcreate -qq -y -Wn -Zn -l 100%FREE -n all {full}"));
    let words = format!("attach {} --granularity 64Ki --metadata lv:{full}", machine.path());
    let said = machine.eratrack.fails(&words, 5);
    assert!(said.contains("has 0 free"), "{said}");
    assert_eq!(run(&format!("lvs --noheadings -o lv_name {full}")).trim(), "all");
    run(&format!("lvremove -qq -y {full}/all"));

    // A volume of the same name that somebody else made.
    run(&format!("lvcreate -qq -y -Wn -Zn -L 4m -n eratrack-data {full}"));
    let said = machine.eratrack.fails(&words, 5);
    assert!(said.contains("that eratrack did not make"), "{said}");
    assert_eq!(run(&format!("lvs --noheadings -o lv_name {full}")).trim(), "eratrack-data");
    run(&format!("lvremove -qq -y {full}/eratrack-data"));
}

#[test]
#[ignore = "kernel tier"]
fn a_pool_is_made_listed_checked_and_freed() {
    let machine = Machine::new();
    let (eratrack, device) = (&machine.eratrack, machine.pool.device.clone());
    let said = eratrack.fails(&format!("pool init {device}"), 5);
    let serial = machine.pool.file.display().to_string();
    assert!(said.contains("it holds a pool of eratrack's") && said.contains(&serial), "{said}");
    let said = eratrack.fails(&format!("pool init {device} --serial other"), 5);
    assert!(said.contains("nothing was changed"), "{said}");
    let listed = eratrack.json("pool list");
    assert_eq!(
        (&listed[0]["device"], &listed[0]["state"]),
        (&device.as_str().into(), &"Sound".into())
    );
    machine.attach(&machine.places()[0]);
    let areas = eratrack.json(&format!("pool list {device}"));
    assert_eq!((&areas[0]["stack"], &areas[0]["state"]), (&"data".into(), &"InUse".into()));
    let said = eratrack.fails(&format!("pool free {device} data"), 5);
    assert!(said.contains("detach"), "{said}");
    let said = eratrack.fails(&format!("pool grow {device}"), 5);
    assert!(said.contains("nothing to grow into"), "{said}");
    let clean = serde_json::json!({"clean": true, "findings": []});
    assert_eq!(eratrack.json(&format!("pool check {device}")), clean);

    let disk = File::options().write(true).open(&device).unwrap();
    disk.write_all_at(b"torn", 32).unwrap();
    disk.sync_all().unwrap();
    let output = eratrack.run(&format!("pool check {device}"));
    assert_eq!(output.status.code(), Some(8));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("the first copy: the table's checksum is wrong"), "{said}");
    // The next changes mend it.
    eratrack.ok("detach data");
    assert_eq!(eratrack.json(&format!("pool check {device}")), clean);
    eratrack.ok(&format!("pool init {device} --serial {serial}"));
    let said = eratrack.fails("pool list /dev/null", 6);
    assert!(said.contains("no block device"), "{said}");
}

/// Era is out, and its area with it, although somebody still uses the name: so era can come back.
#[test]
#[ignore = "kernel tier"]
fn a_stage_that_stays_keeps_no_metadata_and_can_be_tracked_again() {
    let machine = Machine::new();
    let disk = Disk::new(32);
    let (device, pool) = (disk.device().display(), &machine.pool.device);
    for place in [format!("pool:{pool}"), machine.places()[2].clone()] {
        let attach = format!(
            "attach {device} --stage top --name staged --granularity 64Ki --metadata {place}"
        );
        machine.eratrack.ok(&attach);
        let open = File::open("/dev/mapper/top").unwrap();
        machine.eratrack.fails("detach staged", 4);
        assert_eq!(machine.eratrack.ok(&format!("pool list {pool} --output name")), "");
        machine.eratrack.ok(&attach);
        drop(open);
        machine.eratrack.ok("detach staged");
    }
}
