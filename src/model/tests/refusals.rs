//! What cannot be tracked is refused before anything is touched, with the documented reason and
//! a message that names the device, the value and the remedy.

mod common;

use common::{Machine, STRIPED, THICK, THIN, desired, number, store, tracked, volume};
use eratrack_model::names::{Mapping, Role, StackId};
use eratrack_model::plan::{
    Plan, Refusal, Step, eligible, plan, plan_boundary, plan_end_point_in_time, plan_point_in_time,
};
use eratrack_model::stack::{Beneath, Desired, Observed, Subject, Tracked, Volume};
use eratrack_model::units::{Bytes, DevNo, Granularity, Sectors};

fn refused(observed: &Observed) -> (&'static str, String) {
    let refusal = plan(observed, &desired()).unwrap_err();
    let early = eligible(observed, Granularity::DEFAULT);
    assert_eq!(early, Err(refusal.clone()), "known before metadata is made");
    (refusal.reason(), refusal.to_string())
}

fn with_x(change: impl FnOnce(&mut Volume)) -> Observed {
    let mut volume = volume(THICK, true);
    change(&mut volume);
    Machine::new(volume).observe()
}

fn with_table(table: &str) -> Observed {
    with_x(|x| x.device.live = Some(table.parse().unwrap()))
}

#[test]
fn what_is_supported_is_not_refused() {
    for (table, lvm) in [(THICK, true), (STRIPED, false), (THIN, true)] {
        let observed = Machine::new(volume(table, lvm)).observe();
        assert_eq!(eligible(&observed, Granularity::DEFAULT), Ok(()));
        assert!(plan(&observed, &desired()).is_ok());
    }
}

#[test]
fn tables_that_cannot_be_copied() {
    let remedies = [
        ("crypt aes-xts-plain64 :64:logon:cryptsetup:x 0 8:0 0", "crypt", "below the encryption"),
        ("cache 253:5 253:6 253:7 128 0 smq 0", "cache", "split the cache off"),
        ("raid raid1 3 0 region_size 1024 2 253:5 253:6", "raid", "without LVM raid"),
        ("multipath 0 0 1 1 service-time 0 1 2 8:0 1 1", "multipath", "a volume over it"),
        ("thin-pool 253:5 253:6 128 0 0", "thin-pool", "thin volumes in it"),
        ("snapshot 253:5 253:6 P 8", "snapshot", "LVM snapshot"),
        ("era 7:9 8:0 512", "era", "dm-era"),
        ("zero", "zero", "linear, striped and thin"),
    ];
    for (target, kind, remedy) in remedies {
        let (reason, message) = refused(&with_table(&format!("0 131072 {target}")));
        assert_eq!(reason, "TableUnsupported");
        let named = message.contains("vg--a-data") && message.contains(&format!("{kind:?}"));
        assert!(named && message.contains(remedy), "{message}");
    }
    let two = "0 65536 thin 253:2 7\n65536 65536 thin 253:2 8";
    assert_eq!(refused(&with_table(two)).0, "TableUnsupported");
}

#[test]
fn a_volume_with_lvm_snapshots() {
    let (reason, message) = refused(&with_table("0 131072 snapshot-origin 253:9"));
    assert_eq!(reason, "VolumeHasSnapshots");
    assert_eq!(message, "volume vg--a-data has LVM snapshots; remove them first");
}

/// Its mirror is a whole volume of the same group; volumes of other groups, and inner layers,
/// are not.
#[test]
fn a_volume_that_pvmove_moves() {
    let above = |group: &str, layer: &str| {
        let id = |group: &str, volume: &str| group.repeat(32) + &volume.repeat(32);
        let own = format!("LVM-{}", id("g", "x")).parse().unwrap();
        let mut observed = with_x(|x| x.device.uuid = Some(own));
        if let Subject::Mapped(x) = &mut observed.x {
            let uuid = format!("LVM-{}{layer}", id(group, "m")).parse().unwrap();
            x.beneath = vec![Beneath { number: number(9), uuid: Some(uuid) }];
        }
        observed
    };
    let (reason, message) = refused(&above("g", ""));
    assert_eq!(reason, "DeviceBusy");
    assert_eq!(message, "volume vg--a-data is being moved by pvmove; wait until it has finished");
    assert_eq!(eligible(&above("h", ""), Granularity::DEFAULT), Ok(()));
    assert_eq!(eligible(&above("g", "-tpool"), Granularity::DEFAULT), Ok(()));
}

#[test]
fn devices_in_a_state_that_must_be_left_alone() {
    let reason = |change: fn(&mut Volume)| refused(&with_x(change)).0;
    assert_eq!(reason(|x| x.device.read_only = true), "DeviceReadOnly");
    assert_eq!(reason(|x| x.device.suspended = true), "DeviceBusy");
    assert_eq!(reason(|x| x.dax = true), "FilesystemUnsupported");
    assert_eq!(reason(|x| x.zoned = true), "TableUnsupported");
    assert_eq!(reason(|x| x.device.live = None), "DeviceBusy");
    let foreign = with_x(|x| x.device.inactive = Some("0 131072 linear 8:32 0".parse().unwrap()));
    let refusal = plan(&foreign, &desired()).unwrap_err();
    assert_eq!((refusal.reason(), refusal.is_transient()), ("DeviceBusy", true));
    assert!(refusal.to_string().contains("0 131072 linear 8:32 0"), "{refusal}");
}

#[test]
fn sizes() {
    let at = |granularity: &str, x: Observed| {
        let refusal = eligible(&x, granularity.parse().unwrap()).unwrap_err();
        (refusal.reason(), refusal.to_string())
    };
    let (reason, message) = at("256Ki", with_table("0 16383 linear 8:0 0"));
    assert_eq!(reason, "DeviceTooSmall");
    assert!(message.contains("16383 sectors") && message.contains("16384"), "{message}");
    assert!(eligible(&with_table("0 16384 linear 8:0 0"), Granularity::DEFAULT).is_ok());
    assert_eq!(at("1Gi", with_table("0 131072 linear 8:0 0")).0, "DeviceTooSmall");
    let huge = format!("0 {} linear 8:0 0", 1u64 << 34);
    assert_eq!(at("4Ki", with_table(&huge)).0, "LimitExceeded");
    assert!(eligible(&with_table(&huge), "8Ki".parse().unwrap()).is_ok());
    let odd = with_x(|x| {
        x.logical_block = Bytes(4096);
        x.device.live = Some("0 131073 linear 8:0 0".parse().unwrap());
    });
    assert_eq!(at("256Ki", odd).0, "TableUnsupported");
    let coarse = with_x(|x| x.logical_block = Bytes(65536));
    assert_eq!(at("4Ki", coarse).0, "LimitExceeded");
}

#[test]
fn kernels() {
    let with = |release: &str, has_era, has_switch, table: &str| {
        let mut observed = with_table(table);
        observed.kernel.release = release.parse().unwrap();
        (observed.kernel.has_era, observed.kernel.has_switch) = (has_era, has_switch);
        observed
    };
    for (release, era, switch, table, part) in [
        ("5.15.0-91-generic", true, true, THICK, "kernel 5.15.0 cannot"),
        ("6.0.19", true, true, THICK, "kernel 6.0.19 cannot"),
        ("6.1.176", false, true, THICK, "module dm-era"),
        ("6.1.176", true, false, THIN, "module dm-switch"),
    ] {
        let (reason, message) = refused(&with(release, era, switch, table));
        assert_eq!(reason, "KernelUnsupported");
        assert!(message.contains(part), "{message}");
    }
    let thick = with("5.15.51", true, false, THICK);
    assert_eq!(eligible(&thick, Granularity::DEFAULT), Ok(()), "dm-switch is for thin alone");
}

#[test]
fn devices_that_are_not_the_users() {
    let mut observed = with_x(|_| {});
    observed.x = Subject::Gone;
    assert_eq!(refused(&observed).0, "DeviceNotFound");
    observed.x = Subject::NotDeviceMapper(DevNo { major: 8, minor: 1 });
    let (reason, message) = refused(&observed);
    assert_eq!(reason, "NotDeviceMapper");
    assert!(message.contains("device 8:1"), "{message}");
    let uuid = |uuid: String| with_x(|x| x.device.uuid = Some(uuid.parse().unwrap()));
    assert_eq!(refused(&uuid("CRYPT-SUBDEV-ERATRACK-pv-2-era".into())).0, "DeviceClaimed");
    let (reason, message) = refused(&uuid(format!("{}-tpool", common::LVM_UUID)));
    assert_eq!(reason, "TableUnsupported");
    assert!(message.contains("\"tpool\""), "{message}");
}

#[test]
fn a_volume_of_lvm_whose_group_nobody_can_name() {
    let observed = with_x(|x| x.device.name = "renamed".parse().unwrap());
    let refusal = plan(&observed, &desired()).unwrap_err();
    assert!(matches!(refusal, Refusal::LvmNameUnreadable { .. }), "{refusal}");
    assert_eq!(refusal.reason(), "OperationFailed");
}

#[test]
fn a_device_of_another_stack() {
    let mut observed = with_x(|_| {});
    let Subject::Mapped(x) = &mut observed.x else { panic!("X is mapped") };
    let uuid = Some("CRYPT-SUBDEV-ERATRACK-pv-2-era".parse().unwrap());
    x.beneath.push(Beneath { number: number(40), uuid });
    let (reason, message) = refused(&observed);
    assert_eq!(reason, "DeviceClaimed");
    assert!(message.contains("CRYPT-SUBDEV-ERATRACK-pv-2-era"), "{message}");
}

#[test]
fn metadata_on_what_is_tracked() {
    let observed = with_x(|_| {});
    let ours = Some("CRYPT-SUBDEV-ERATRACK-pv-2-base".parse().unwrap());
    for (minor, uuid) in [(3, None), (40, ours)] {
        let mut wanted = tracked();
        wanted.metadata.beneath.push(Beneath { number: number(minor), uuid });
        let refusal = plan(&observed, &Desired::Tracked(wanted)).unwrap_err();
        assert_eq!(refusal.reason(), "MetadataOnTrackedVolume");
        assert!(refusal.to_string().contains(&format!("lies on 253:{minor}")), "{refusal}");
    }
}

/// The area of a pool shows as a device of ours; another stack's is as bad as any.
#[test]
fn metadata_in_an_area_of_its_own() {
    let mut machine = Machine::new(volume(THICK, true));
    let own = machine.observe().stack.uuid(Mapping::Metadata);
    let mut wanted = tracked();
    wanted.metadata.beneath.push(Beneath { number: number(50), uuid: Some(own) });
    let plan_of = |wanted: &Tracked| plan(&machine.observe(), &Desired::Tracked(wanted.clone()));
    let made = plan_of(&wanted).unwrap();
    let other = "pv-other".parse::<StackId>().unwrap().uuid(Mapping::Metadata);
    wanted.metadata.beneath.push(Beneath { number: number(51), uuid: Some(other) });
    assert_eq!(plan_of(&wanted).unwrap_err().reason(), "MetadataOnTrackedVolume");
    machine.run(&made, None);
}

fn with_point() -> Machine {
    let mut machine = whole();
    let point = plan_point_in_time(&machine.observe(), &store()).unwrap();
    assert!(machine.run(&point, None));
    machine
}

fn own(observed: &mut Observed, role: Role) -> &mut eratrack_model::stack::Device {
    let device = match role {
        Role::Era => observed.era.as_mut(),
        Role::Base => observed.base.as_mut(),
        Role::Origin => observed.origin.as_mut(),
        Role::Snapshot => observed.snapshot.as_mut(),
    };
    device.expect("it is there")
}

#[test]
fn a_store_of_a_point_in_time_on_what_is_tracked() {
    let observed = whole().observe();
    let ours = Some("CRYPT-SUBDEV-ERATRACK-pv-2-base".parse().unwrap());
    for (minor, uuid) in [(3, None), (40, ours)] {
        let mut copies = store();
        copies.beneath.push(Beneath { number: number(minor), uuid });
        let refusal = plan_point_in_time(&observed, &copies).unwrap_err();
        assert_eq!(refusal.reason(), "MetadataOnTrackedVolume");
        assert!(refusal.to_string().contains(&format!("lies on 253:{minor}")), "{refusal}");
    }
    let odd = Machine::new(volume("0 131073 linear 8:0 2048", true));
    let mut odd_tracked = odd.clone();
    let insertion = plan(&odd.observe(), &desired()).unwrap();
    assert!(odd_tracked.run(&insertion, None));
    let refusal = plan_point_in_time(&odd_tracked.observe(), &store()).unwrap_err();
    assert!(matches!(refusal, Refusal::OddLength { block: 4096, .. }), "{refusal}");
    let bare = Machine::new(volume(THICK, true)).observe();
    let refusal = plan_point_in_time(&bare, &store()).unwrap_err();
    assert!(matches!(refusal, Refusal::NotTracked { .. }), "{refusal}");
}

fn whole() -> Machine {
    let mut machine = Machine::new(volume(THICK, true));
    let plan = plan(&machine.observe(), &desired()).unwrap();
    machine.run(&plan, None);
    machine
}

#[test]
fn a_volume_tracked_in_another_way() {
    let observed = whole().observe();
    let finer = Tracked { granularity: "64Ki".parse().unwrap(), ..tracked() };
    let mut moved = tracked();
    moved.metadata.number = DevNo { major: 7, minor: 5 };
    for wanted in [finer, moved] {
        let refusal = plan(&observed, &Desired::Tracked(wanted)).unwrap_err();
        let (granularity, metadata) = (Sectors(512), tracked().metadata.number);
        let name = "vg--a-data".parse().unwrap();
        assert_eq!(refusal, Refusal::TrackedOtherwise { name, granularity, metadata });
    }
}

#[test]
fn a_stack_that_is_not_as_it_was_made() {
    let mut machine = whole();
    let era = machine.era.as_ref().unwrap().number;
    let astray = format!("0 131072 linear {era} 8");
    machine.x.as_mut().unwrap().device.live = Some(astray.parse().unwrap());
    let observed = machine.observe();
    for refusal in [
        plan(&observed, &desired()).unwrap_err(),
        plan(&observed, &Desired::Untracked).unwrap_err(),
        plan_boundary(&observed).unwrap_err(),
    ] {
        assert!(matches!(refusal, Refusal::Inconsistent { .. }), "{refusal}");
        assert!(refusal.to_string().contains(&astray), "{refusal}");
    }
}

#[test]
fn a_device_of_ours_that_others_have_open() {
    let mut machine = with_point();
    machine.lvm_reloads(THICK);
    // Its reader is told first.
    let mut read = machine.observe();
    own(&mut read, Role::Snapshot).open_count = 1;
    let told = |plan: Plan| matches!(plan.steps[..2], [Step::Load { .. }, Step::Activate { .. }]);
    assert!(told(plan(&read, &Desired::Untracked).unwrap()));
    assert!(told(plan_end_point_in_time(&read).unwrap()));
    let error = "0 131072 error".parse().unwrap();
    machine.snapshot.as_mut().unwrap().live = Some(error);
    for (role, opens) in [(Role::Snapshot, 1), (Role::Origin, 1), (Role::Era, 2), (Role::Base, 2)] {
        let mut observed = machine.observe();
        own(&mut observed, role).open_count = opens;
        let refusal = plan(&observed, &Desired::Untracked).unwrap_err();
        assert!(matches!(refusal, Refusal::Busy { open_count: 1, .. }), "{role}: {refusal}");
        assert!(refusal.is_transient());
        let ends = plan_end_point_in_time(&observed);
        assert_eq!(ends.is_err(), matches!(role, Role::Snapshot | Role::Origin), "{role}");
    }
}

#[test]
fn boundaries_of_what_is_not_tracked() {
    let refusal = plan_boundary(&with_x(|_| {})).unwrap_err();
    assert_eq!(refusal.reason(), "NotTracked");
}

/// A checkpoint would block, and so would the drain of X, with X suspended.
#[test]
fn nothing_is_drained_through_a_suspended_device() {
    for role in Role::ALL {
        let mut observed = with_point().observe();
        own(&mut observed, role).suspended = true;
        let plans = [
            plan_boundary(&observed),
            plan(&observed, &Desired::Untracked),
            plan_end_point_in_time(&observed),
        ];
        for plan in plans {
            let refusal = plan.unwrap_err();
            assert!(matches!(refusal, Refusal::Suspended { .. }), "{role}: {refusal}");
        }
    }
}

/// The words are part of the API's interface; docs/reasons.md lists them all.
#[test]
fn every_reason_is_documented() {
    let documented = include_str!("../../../docs/reasons.md");
    let x = || "vg--a-data".parse().unwrap();
    let volume = with_x(|_| {});
    let reasons = [
        refused(&with_table("0 131072 zero")).0,
        refused(&with_table("0 131072 snapshot-origin 253:9")).0,
        refused(&with_table("0 8 linear 8:0 0")).0,
        refused(&with_x(|x| x.device.read_only = true)).0,
        refused(&with_x(|x| x.device.suspended = true)).0,
        refused(&with_x(|x| x.dax = true)).0,
        refused(&Observed { x: Subject::Gone, ..volume.clone() }).0,
        refused(&Observed { x: Subject::NotDeviceMapper(number(1)), ..volume }).0,
        Refusal::OwnDevice { name: x() }.reason(),
        Refusal::TargetMissing { target: "era" }.reason(),
        Refusal::MetadataOnTrackedVolume { name: x(), beneath: number(1) }.reason(),
        Refusal::LvmNameUnreadable { name: x() }.reason(),
        Refusal::NotTracked { name: x() }.reason(),
    ];
    for reason in reasons {
        assert!(documented.contains(&format!("| `{reason}` |")), "{reason}");
    }
}
