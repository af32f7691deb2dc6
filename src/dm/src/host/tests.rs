//! [`Host`] over the kernel in memory, with a machine made of files. No test here lets it touch a
//! loop device: the metadata lies on a disk.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eratrack_model::continuity::{Seal, Trust};
use eratrack_model::discards::DiscardPolicy;
use eratrack_model::names::{DmName, DmUuid, Mapping, Role, StackId};
use eratrack_model::place::MetadataPlace;
use eratrack_model::plan::{era_table, live_table};
use eratrack_model::record::{ChainId, Keeper, Phase, Record};
use eratrack_model::refusal::Refusal;
use eratrack_model::table::Table;
use eratrack_model::units::{Bytes, DevNo, Granularity, Sectors};

use super::*;
use crate::executor::Swapping;
use crate::fake::FakeKernel;
use crate::port::{Access, DmError, DmErrorKind, Info, Listed, Lookup, Slot, StatusLine};
use crate::store::StoreConfig;

const DISK: DevNo = DevNo { major: 8, minor: 0 };
/// No loop device: nothing here may free one of the machine that the tests run on.
const METADATA: DevNo = DevNo { major: 8, minor: 16 };
const LENGTH: Sectors = Sectors(1 << 17);
const GRANULARITY: Granularity = Granularity::DEFAULT;
const GRANULARITY_BYTES: u64 = 256 << 10;

type Hook = Box<dyn FnMut(&FakeKernel, &'static str) + Send>;

/// The kernel in memory, with somebody who acts after each call.
struct Interrupted {
    kernel: FakeKernel,
    hook: Mutex<Option<Hook>>,
    /// A device that the kernel tells of and that is not understood.
    odd: Mutex<Option<DevNo>>,
}

impl Interrupted {
    fn after<T>(&self, verb: &'static str, result: T) -> T {
        if let Some(hook) = &mut *self.hook.lock().unwrap() {
            hook(&self.kernel, verb);
        }
        result
    }

    fn understood(&self, verb: &'static str, dev: DevNo) -> Result<(), DmError> {
        match *self.odd.lock().unwrap() {
            Some(odd) if odd == dev => Err(DmError::new(DmErrorKind::Unreadable, verb, dev)),
            _ => Ok(()),
        }
    }
}

impl DeviceMapper for Interrupted {
    fn create(&self, name: &DmName, uuid: &DmUuid) -> Result<DevNo, DmError> {
        self.after("create", self.kernel.create(name, uuid))
    }

    fn load(&self, dev: DevNo, table: &Table, access: Access) -> Result<(), DmError> {
        self.after("load", self.kernel.load(dev, table, access))
    }

    fn swap(&self, dev: DevNo) -> Result<(), DmError> {
        self.after("swap", self.kernel.swap(dev))
    }

    fn clear(&self, dev: DevNo) -> Result<(), DmError> {
        self.after("clear", self.kernel.clear(dev))
    }

    fn remove(&self, dev: DevNo) -> Result<(), DmError> {
        self.after("remove", self.kernel.remove(dev))
    }

    fn info(&self, of: &Lookup) -> Result<Info, DmError> {
        let info = self.kernel.info(of);
        let info = info.and_then(|info| self.understood("info", info.number).map(|()| info));
        self.after("info", info)
    }

    fn table(&self, dev: DevNo, slot: Slot) -> Result<Option<Table>, DmError> {
        let table = self.understood("table", dev).and_then(|()| self.kernel.table(dev, slot));
        self.after("table", table)
    }

    fn status(&self, dev: DevNo) -> Result<Vec<StatusLine>, DmError> {
        self.after("status", self.kernel.status(dev))
    }

    fn message(&self, dev: DevNo, text: &str) -> Result<(), DmError> {
        self.after("message", self.kernel.message(dev, text))
    }

    fn has_target(&self, name: &str) -> Result<bool, DmError> {
        self.after("has_target", self.kernel.has_target(name))
    }

    fn list(&self) -> Result<Vec<Listed>, DmError> {
        self.after("list", self.kernel.list())
    }
}

/// A machine with one stack in place.
struct Rig {
    root: tempfile::TempDir,
    dm: Arc<Interrupted>,
    host: Host,
    record: Record,
    original: Table,
    era: DevNo,
}

impl Rig {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let kernel = FakeKernel::new();
        kernel.add_disk(DISK, Sectors(1 << 20));
        kernel.add_disk(METADATA, Sectors(1 << 12));
        let original: Table = format!("0 {LENGTH} linear {DISK} 2048").parse().unwrap();
        let x = kernel.add_volume("data", None, &original);
        let stack: StackId = "s".parse().unwrap();
        let own = |role, table: &Table| {
            let dev = kernel.create(&stack.name(role), &stack.uuid(role)).unwrap();
            kernel.load(dev, table, Access::ReadWrite).unwrap();
            kernel.swap(dev).unwrap();
            dev
        };
        let base = own(Role::Base, &original);
        let era = own(Role::Era, &era_table(LENGTH, METADATA, base, GRANULARITY));
        kernel.load(x, &live_table(&original, era, Sectors(8)), Access::ReadWrite).unwrap();
        kernel.swap(x).unwrap();
        machine_of_files(root.path(), &[DISK, METADATA, x, base, era]);
        let holder = root.path().join(format!("sys/dev/block/{era}/holders/dm-0"));
        fs::create_dir_all(&holder).unwrap();
        fs::write(holder.join("dev"), x.to_string()).unwrap();
        let dm = Arc::new(Interrupted { kernel, hook: Mutex::default(), odd: Mutex::default() });
        let host = Host::new(HostConfig {
            root: root.path().to_owned(),
            dm: Arc::clone(&dm) as Arc<dyn DeviceMapper>,
            // How full the disk of the machine that the tests run on is must not matter.
            store: StoreConfig {
                per_node_percent: 100,
                keep_free_percent: 0,
                ..StoreConfig::new("/var/lib/eratrack")
            },
            // There is no such directory: no node is ever made.
            nodes: root.path().join("no-nodes"),
            lock_deadline: Duration::from_millis(30),
            keeper: Keeper::Agent,
        });
        let record = Record {
            chain: "0b5e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c11".parse().unwrap(),
            boot: host.machine.boot_id().unwrap(),
            x,
            name: "data".parse().unwrap(),
            uuid: None,
            original: original.clone(),
            sectors: LENGTH,
            granularity: GRANULARITY,
            discards: DiscardPolicy::Limit,
            metadata: MetadataPlace::File(host.store.metadata_on_machine(&stack)),
            metadata_size: Bytes(1 << 20),
            phase: Phase::Attached,
            keeper: Keeper::Agent,
            stage: None,
            access: false,
            seal: None,
            stack,
        };
        host.store.make_dir().unwrap();
        host.store.write_record(&record).unwrap();
        Self { root, dm, host, record, original, era }
    }

    fn kernel(&self) -> &FakeKernel {
        &self.dm.kernel
    }

    fn live(&self) -> Table {
        self.kernel().table(self.record.x, Slot::Live).unwrap().unwrap()
    }

    /// Has somebody act once, right after the n-th call of that verb from now, from 0.
    fn once_after(
        &self,
        verb: &'static str,
        nth: usize,
        act: impl FnOnce(&FakeKernel) + Send + 'static,
    ) {
        let (mut act, mut count) = (Some(act), 0);
        let hook: Hook = Box::new(move |kernel, called| {
            count += usize::from(called == verb);
            if called == verb && count == nth + 1 {
                act.take().expect("once")(kernel);
            }
        });
        *self.dm.hook.lock().unwrap() = Some(hook);
    }

    /// Has somebody act once, just before the first step of a plan whose text begins so.
    fn before_step(&mut self, step: &'static str, act: impl FnOnce(&FakeKernel) + Send + 'static) {
        let (dm, act) = (Arc::clone(&self.dm), Mutex::new(Some(act)));
        self.host = self.host.clone().observed_by(Arc::new(move |moment| {
            let Moment::Step(found) = moment else { return };
            if found.to_string().starts_with(step)
                && let Some(act) = act.lock().unwrap().take()
            {
                act(&dm.kernel);
            }
        }));
    }

    fn set_queue(&self, dev: DevNo, file: &str, text: &str) {
        let path = self.root.path().join(format!("sys/dev/block/{dev}/queue/{file}"));
        fs::write(path, text).unwrap();
    }

    fn recovered(&self) -> Recovery {
        let mut found = self.host.recover().unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0).outcome
    }

    fn assert_restored(&self) {
        assert_eq!(self.live(), self.original);
        assert_eq!(self.kernel().list().unwrap().len(), 1, "something of ours is left");
        assert_eq!(self.host.store.stacks().unwrap(), []);
    }
}

fn machine_of_files(root: &Path, devices: &[DevNo]) {
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("proc/sys/kernel/osrelease", "6.1.176\n");
    write("proc/sys/kernel/random/boot_id", "9e107d9d-372b-4b5a-a9f1-7d0c4f3b2a10\n");
    write("proc/sys/kernel/random/uuid", "3c1f6a1c-4d0f-4f9e-8f43-0f5f2a3f0c99\n");
    write("proc/1/mountinfo", "");
    fs::create_dir_all(root.join("sys/block")).unwrap();
    for dev in devices {
        let at = |file: &str| format!("sys/dev/block/{dev}/{file}");
        write(&at("size"), &LENGTH.to_string());
        write(&at("stat"), "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n");
        for (file, text) in [
            ("discard_max_bytes", GRANULARITY_BYTES.to_string()),
            ("discard_granularity", "4096".to_owned()),
            ("logical_block_size", "512".to_owned()),
            ("read_ahead_kb", "128".to_owned()),
            ("iostats", "1".to_owned()),
        ] {
            write(&at(&format!("queue/{file}")), &text);
        }
    }
}

#[test]
fn a_stack_in_place_is_adopted_and_comes_out() {
    let rig = Rig::new();
    assert_eq!(rig.recovered(), Recovery::Adopted(rig.record.clone()));
    let boundary = rig.host.boundary(&rig.record).unwrap();
    assert_eq!((boundary.metadata_used, boundary.metadata_total), (20, 4096));
    assert_eq!(rig.host.detach(&rig.record.stack).unwrap(), Detached::Restored);
    rig.assert_restored();
}

/// A chain does not end for a wish that cannot come true.
#[test]
fn whether_another_granularity_fits_is_told_before_anything_changes() {
    let rig = Rig::new();
    let check = |bytes| rig.host.check_refit(&rig.record, Granularity::new(Bytes(bytes)).unwrap());
    check(1 << 20).unwrap();
    assert!(matches!(check(1 << 28), Err(HostError::Refused(Refusal::TooSmall { .. }))));
    assert_eq!(rig.recovered(), Recovery::Adopted(rig.record.clone()));
}

/// LVM reloads X after we found that it goes through era, and before we look again: what is
/// written in between is recorded by nobody, so the chain must not go on.
#[test]
fn a_reload_while_a_stack_is_taken_over_breaks_its_chain() {
    let rig = Rig::new();
    let (x, original) = (rig.record.x, rig.original.clone());
    rig.once_after("status", 0, move |kernel| kernel.somebody_loads(x, &original, true));
    match rig.recovered() {
        Recovery::Broken { record, found, era_failed: false } => {
            assert_eq!(record, rig.record);
            assert_eq!(found, Liveness::Reloaded { live: Some(rig.original.clone()) });
        }
        other => panic!("{other:?}"),
    }
    rig.assert_restored();
}

#[test]
fn a_reload_while_an_attach_finds_a_stack_begins_a_new_chain() {
    let rig = Rig::new();
    let (x, original) = (rig.record.x, rig.original.clone());
    rig.once_after("status", 0, move |kernel| kernel.somebody_loads(x, &original, true));
    let request = AttachRequest::new(rig.record.stack.clone(), x, GRANULARITY);
    // It gets as far as a loop device, of which there is none here.
    let error = rig.host.attach(&request).unwrap_err();
    assert!(matches!(error, HostError::Loop(_) | HostError::Store(_)), "{error}");
    rig.assert_restored();
}

/// While longer discards went through than the list accounts for, they marked too little (I1).
#[test]
fn a_discard_limit_that_somebody_raised_breaks_the_chain() {
    let rig = Rig::new();
    rig.set_queue(rig.era, "discard_max_bytes", "1073741824");
    let found = Liveness::Intact;
    let record = rig.record.clone();
    assert_eq!(rig.recovered(), Recovery::Broken { record, found, era_failed: false });
    rig.assert_restored();
}

#[test]
fn a_list_is_dilated_by_the_longest_discard_that_was_possible_since() {
    let rig = Rig::new();
    let dilation = |since| rig.host.dilation(&rig.record, since).unwrap();
    let limit = |bytes: u64| rig.set_queue(rig.era, "discard_max_bytes", &bytes.to_string());
    let discard = |count: u64| {
        let stat = format!("0 0 0 0 0 0 0 0 0 0 0 {count} 0 0 0 0 0\n");
        fs::write(rig.root.path().join(format!("sys/dev/block/{}/stat", rig.era)), stat).unwrap();
    };
    let first = rig.host.boundary(&rig.record).unwrap().era;
    assert_eq!(dilation(first), 0);
    discard(1);
    assert_eq!(dilation(first), 1);
    limit(4 * GRANULARITY_BYTES);
    assert_eq!(dilation(first), 4);
    let second = rig.host.boundary(&rig.record).unwrap().era;
    limit(GRANULARITY_BYTES);
    discard(2);
    assert_eq!((dilation(first), dilation(second)), (4, 4));
    let third = rig.host.boundary(&rig.record).unwrap().era;
    assert_eq!((dilation(first), dilation(second), dilation(third)), (4, 4, 0));
    rig.host.forget_counts(&rig.record.stack).unwrap();
    assert_eq!(rig.host.last_boundary(&rig.record.stack).unwrap(), None);
    assert_eq!((dilation(first), dilation(third)), (4, 4), "after a reboot");
}

/// A device that does not count its requests may have discarded although its counter stands still.
#[test]
fn what_was_not_counted_at_any_boundary_since_may_have_happened() {
    let rig = Rig::new();
    let dilation = |since| rig.host.dilation(&rig.record, since).unwrap();
    let first = rig.host.boundary(&rig.record).unwrap().era;
    rig.set_queue(rig.era, "iostats", "0");
    let second = rig.host.boundary(&rig.record).unwrap().era;
    rig.set_queue(rig.era, "iostats", "1");
    let third = rig.host.boundary(&rig.record).unwrap().era;
    assert_eq!((dilation(first), dilation(second), dilation(third)), (1, 1, 0));
}

/// Two agents overlap: the other one has begun a new chain, or is taking the stack out.
#[test]
fn a_record_that_another_process_replaced_has_no_boundary_and_no_list() {
    let other: ChainId = "7a1e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c22".parse().unwrap();
    let replacing: [fn(&Rig, ChainId); 3] = [
        |rig, chain| {
            rig.host.store.write_record(&Record { chain, ..rig.record.clone() }).unwrap();
        },
        |rig, _| {
            let phase = Phase::Detaching;
            rig.host.store.write_record(&Record { phase, ..rig.record.clone() }).unwrap();
        },
        |rig, _| rig.host.store.remove(&rig.record.stack).unwrap(),
    ];
    for replace in replacing {
        let rig = Rig::new();
        replace(&rig, other.clone());
        let before = rig.kernel().era_on(METADATA);
        let refused = rig.host.boundary(&rig.record).unwrap_err();
        assert!(matches!(refused, HostError::OtherRecord { .. }), "{refused}");
        assert_eq!(refused.reason(), "RecordMismatch");
        let refused = rig.host.changes(&rig.record, before.era).unwrap_err();
        assert!(matches!(refused, HostError::OtherRecord { .. }), "{refused}");
        assert_eq!(rig.kernel().era_on(METADATA), before, "era was asked for something");
    }
}

/// The user's device comes first: whoever looks at X-base or X-era does not keep era under it.
#[test]
fn a_stack_that_somebody_has_open_gives_x_its_table_back_all_the_same() {
    for role in [Role::Era, Role::Base] {
        let rig = Rig::new();
        let own = rig.kernel().info(&Lookup::Uuid(rig.record.stack.uuid(role))).unwrap().number;
        rig.kernel().open(own);
        for _ in 0..2 {
            let busy = rig.host.detach(&rig.record.stack).unwrap_err();
            assert_eq!((busy.reason(), busy.is_transient()), ("DeviceBusy", true), "{busy}");
            assert_eq!(rig.live(), rig.original, "{role}");
        }
        rig.kernel().close(own);
        assert_eq!(rig.host.detach(&rig.record.stack).unwrap(), Detached::RemainsRemoved);
        rig.assert_restored();
    }
}

/// As a process leaves X that is killed after the kernel refused a table and before it could
/// resume X.
fn leave_suspended(rig: &Rig) {
    let x = rig.record.x;
    let swap = Swapping { x, read_ahead: Some(384) };
    rig.host.lock_stack(&rig.record.stack).unwrap().note_swapping(Some(swap));
    rig.kernel().somebody_suspends(x);
}

#[test]
fn what_a_killed_process_left_suspended_is_resumed_whatever_comes_next() {
    let ways: [fn(&Rig); 4] = [
        |rig| assert_eq!(rig.recovered(), Recovery::Adopted(rig.record.clone())),
        |rig| assert_eq!(rig.host.detach(&rig.record.stack).unwrap(), Detached::Restored),
        |rig| {
            let (stack, x) = (rig.record.stack.clone(), rig.record.x);
            let request = AttachRequest::new(stack, x, GRANULARITY);
            assert!(!rig.host.attach(&request).unwrap().created);
        },
        // The disk of the record may be what failed.
        |rig| {
            let record = rig.root.path().join("var/lib/eratrack/s/record.json");
            fs::write(record, "{").unwrap();
            fs::write(rig.root.path().join("var/lib/eratrack/s/era-metadata"), "").unwrap();
            assert_eq!(rig.recovered(), Recovery::OrphansRemoved);
            rig.assert_restored();
        },
    ];
    for way in ways {
        let rig = Rig::new();
        leave_suspended(&rig);
        way(&rig);
        assert_eq!(rig.kernel().suspended(), []);
        let read_ahead = format!("sys/dev/block/{}/queue/read_ahead_kb", rig.record.x);
        assert_eq!(fs::read_to_string(rig.root.path().join(read_ahead)).unwrap(), "384");
    }
}

#[test]
fn what_somebody_else_suspended_stays_so_also_when_that_ended_a_boundary() {
    let rig = Rig::new();
    let x = rig.record.x;
    rig.once_after("status", 0, move |kernel| kernel.somebody_suspends(x));
    let busy = rig.host.boundary(&rig.record).unwrap_err();
    assert_eq!(busy.reason(), "DeviceBusy", "{busy}");
    let found = rig.recovered();
    assert!(matches!(found, Recovery::Failed(_)), "{found:?}");
    assert_eq!(rig.kernel().suspended(), [x]);
}

#[test]
fn a_metadata_snapshot_is_dropped_wherever_a_read_fails() {
    let rig = Rig::new();
    let since = rig.host.boundary(&rig.record).unwrap().era;
    let taken = |rig: &Rig| rig.kernel().era_on(METADATA).era;
    // The status right after it was taken: the second call from there.
    let before = taken(&rig);
    rig.once_after("message", 0, |kernel| kernel.fail_at(1, DmErrorKind::Errno(5)));
    let error = rig.host.changes(&rig.record, since).unwrap_err();
    assert!(matches!(error, HostError::DeviceMapper(_)), "{error}");
    assert!(taken(&rig) > before && !rig.kernel().era_on(METADATA).held);
    // There is no node to open the metadata by.
    rig.kernel().no_faults();
    let before = taken(&rig);
    let error = rig.host.changes(&rig.record, since).unwrap_err();
    assert!(matches!(error, HostError::Unexpected { .. }), "{error}");
    assert!(taken(&rig) > before && !rig.kernel().era_on(METADATA).held);
}

#[test]
fn a_start_drops_the_metadata_snapshot_that_a_killed_process_held() {
    let rig = Rig::new();
    rig.kernel().message(rig.era, "take_metadata_snap").unwrap();
    assert_eq!(rig.recovered(), Recovery::Adopted(rig.record.clone()));
    assert!(!rig.kernel().era_on(METADATA).held);
}

/// One device of somebody's that is not understood keeps no stack from anything.
#[test]
fn an_odd_device_of_somebody_else_is_passed_over() {
    let rig = Rig::new();
    let odd =
        rig.kernel().add_volume("odd", None, &format!("0 8 linear {DISK} 0").parse().unwrap());
    *rig.dm.odd.lock().unwrap() = Some(odd);
    assert_eq!(rig.recovered(), Recovery::Adopted(rig.record.clone()));
    assert_eq!(rig.host.detach(&rig.record.stack).unwrap(), Detached::Restored);
    assert_eq!(rig.live(), rig.original);
}

#[test]
fn a_device_that_is_gone_is_not_found() {
    let rig = Rig::new();
    rig.host.detach(&rig.record.stack).unwrap();
    let x = DevNo { major: 253, minor: 99 };
    let (stack, granularity) = (rig.record.stack.clone(), GRANULARITY);
    let request = AttachRequest::new(stack, x, granularity);
    let error = rig.host.attach(&request).unwrap_err();
    assert_eq!(error.reason(), "DeviceNotFound", "{error}");
}

/// A clean detach that was killed when only its directory was left has nothing to tell.
#[test]
fn a_directory_that_a_detach_left_empty_is_no_stack() {
    let rig = Rig::new();
    rig.host.detach(&rig.record.stack).unwrap();
    fs::create_dir(rig.root.path().join("var/lib/eratrack/s")).unwrap();
    assert_eq!(rig.host.recover().unwrap(), []);
    assert_eq!(rig.host.detach(&rig.record.stack).unwrap(), Detached::NothingThere);
}

/// Between our look at the slot and the clearing of it, somebody else may have loaded a table.
#[test]
fn a_table_that_somebody_loaded_instead_of_ours_is_not_cleared() {
    let theirs: Table = format!("0 {LENGTH} linear {DISK} 4096").parse().unwrap();
    for boundary in [true, false] {
        let mut rig = Rig::new();
        let x = rig.record.x;
        let ours = rig.live();
        rig.kernel().load(x, &ours, Access::ReadWrite).unwrap();
        let table = theirs.clone();
        rig.before_step("clear", move |kernel| kernel.somebody_loads(x, &table, false));
        let busy = if boundary {
            rig.host.boundary(&rig.record).unwrap_err()
        } else {
            rig.host.detach(&rig.record.stack).unwrap_err()
        };
        assert_eq!(busy.reason(), "DeviceBusy", "{busy}");
        assert_eq!(rig.kernel().table(x, Slot::Inactive).unwrap(), Some(theirs.clone()));
    }
}

/// Whoever shares no lock with us may come between our load and our swap.
#[test]
fn a_table_that_somebody_loads_over_ours_is_not_made_live_by_us() {
    let theirs: Table = format!("0 {LENGTH} linear {DISK} 4096").parse().unwrap();
    for live in [false, true] {
        let rig = Rig::new();
        let (x, before, table) = (rig.record.x, rig.live(), theirs.clone());
        rig.once_after("load", 0, move |kernel| kernel.somebody_loads(x, &table, live));
        let busy = rig.host.detach(&rig.record.stack).unwrap_err();
        assert_eq!(busy.reason(), "DeviceBusy", "{busy}");
        let (in_use, waiting) = if live { (&theirs, None) } else { (&before, Some(&theirs)) };
        assert_eq!(rig.live(), *in_use);
        assert_eq!(rig.kernel().table(x, Slot::Inactive).unwrap().as_ref(), waiting);
    }
}

#[test]
fn what_an_administrator_keeps_is_not_the_agents_to_recover() {
    let rig = Rig::new();
    let keeper = Keeper::Administrator;
    rig.host.store.write_record(&Record { keeper, ..rig.record.clone() }).unwrap();
    assert_eq!(rig.host.recover().unwrap(), []);
    assert_eq!(rig.live(), live_table(&rig.original, rig.era, Sectors(8)));
}

/// Another version's, say: it may not be understood, but it tells whose it is.
#[test]
fn what_an_administrator_keeps_is_left_alone_also_if_its_record_is_not_understood() {
    let rig = Rig::new();
    let file = rig.root.path().join("var/lib/eratrack/s/record.json");
    fs::write(&file, r#"{"version": 99, "stack": "s", "keeper": "Administrator"}"#).unwrap();
    assert_eq!(rig.host.recover().unwrap(), []);
    fs::rename(&file, file.with_file_name("returning.json")).unwrap();
    assert_eq!(rig.host.recover().unwrap(), [], "on its way back");
    assert_eq!(rig.live(), live_table(&rig.original, rig.era, Sectors(8)));
}

/// It came as far as to be in place, but nobody looked whether X was written before that.
#[test]
fn a_return_that_was_cut_short_is_no_chain_that_goes_on() {
    let recovering: fn(&Rig) = |rig| {
        let (record, found) = (rig.record.clone(), Liveness::Rebooted);
        assert_eq!(rig.recovered(), Recovery::Broken { record, found, era_failed: false });
    };
    let attaching: fn(&Rig) = |rig| {
        let request = AttachRequest::new(rig.record.stack.clone(), rig.record.x, GRANULARITY);
        // It gets as far as a loop device, of which there is none here.
        let error = rig.host.attach(&request).unwrap_err();
        assert!(matches!(error, HostError::Loop(_) | HostError::Store(_)), "{error}");
    };
    for act in [recovering, attaching] {
        let rig = Rig::new();
        rig.host.store.write_returning(&rig.record).unwrap();
        act(&rig);
        assert_eq!(rig.live(), rig.original);
    }
}

/// Nobody but its keeper knows whether it is still wanted.
#[test]
fn what_another_keeps_and_whose_chain_has_ended_is_left_to_them() {
    let rig = Rig::new();
    let theirs = Record { keeper: Keeper::Administrator, ..rig.record.clone() };
    rig.host.store.write_record(&theirs).unwrap();
    let reloaded: fn(&Rig) = |rig| {
        rig.kernel().load(rig.record.x, &rig.original, Access::ReadWrite).unwrap();
        rig.kernel().swap(rig.record.x).unwrap();
    };
    let returning: fn(&Rig) = |rig| rig.host.store.write_returning(&rig.record).unwrap();
    for prepare in [reloaded, returning] {
        prepare(&rig);
        let restored =
            rig.host.restore(Trust::PoweredOff, |_| ()).unwrap().pop().expect("it is told");
        let outcome = restored.outcome.expect("no error");
        assert!(matches!(outcome, RestoreOutcome::Left { .. }), "{outcome:?}");
        assert_eq!(rig.host.store.read_record(&theirs.stack).unwrap(), Some(theirs.clone()));
    }
}

/// A seal tells of a device that nobody uses any more.
#[test]
fn a_stack_that_is_taken_over_is_sealed_no_more() {
    let rig = Rig::new();
    let (boot, contents) = (rig.record.boot.clone(), eratrack_model::continuity::Contents::Unknown);
    let seal = Seal { boot, ends: "0".repeat(64).parse().unwrap(), contents, used: None };
    rig.host.store.write_record(&Record { seal: Some(seal), ..rig.record.clone() }).unwrap();
    assert_eq!(rig.recovered(), Recovery::Adopted(rig.record.clone()));
    assert_eq!(rig.host.record(&rig.record.stack).unwrap(), Some(rig.record.clone()));
}

#[test]
fn a_stack_that_was_attached_since_is_not_on_its_way_back() {
    let rig = Rig::new();
    let chain = "7a1e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c22".parse().unwrap();
    let before = Record { chain, ..rig.record.clone() };
    rig.host.store.write_returning(&before).unwrap();
    let restored =
        rig.host.restore(Trust::Nothing, |_| ()).unwrap().pop().unwrap().outcome.unwrap();
    assert_eq!(restored, RestoreOutcome::InPlace(rig.record.clone()));
    rig.host.store.write_returning(&before).unwrap();
    let request = AttachRequest::new(rig.record.stack.clone(), rig.record.x, GRANULARITY);
    assert!(!rig.host.attach(&request).unwrap().created);
    assert_eq!(rig.host.store.read_returning(&rig.record.stack).unwrap(), None);
}

#[test]
fn a_record_that_is_not_understood_is_no_stack_that_was_restored() {
    for text in [r#"{"version": 99, "stack": "s", "keeper": "Agent"}"#, "{"] {
        let rig = Rig::new();
        fs::write(rig.root.path().join("var/lib/eratrack/s/record.json"), text).unwrap();
        let restored = rig.host.restore(Trust::Nothing, |_| ()).unwrap().pop().expect("it is told");
        assert!(matches!(restored.outcome, Err(HostError::Store(_))), "{restored:?}");
    }
}

#[test]
fn a_name_that_a_kill_left_is_led_to_the_device_that_has_it() {
    let rig = Rig::new();
    let links = rig.root.path().join("dev/mapper");
    fs::create_dir_all(&links).unwrap();
    let link = links.join("top");
    std::os::unix::fs::symlink("../dm-77", &link).unwrap();
    let (stack, name) = ("t".parse().unwrap(), "top".parse().unwrap());
    let number = rig.host.map(&stack, Mapping::Top, &name, &rig.original).unwrap();
    let wanted = format!("../dm-{}", number.minor);
    assert_eq!(fs::read_link(link).unwrap(), Path::new(&wanted));
}
