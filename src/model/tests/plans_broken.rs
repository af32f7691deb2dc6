//! The checker refuses plans that were broken on purpose.

mod common;

use common::{Machine, STRIPED, THICK, THIN, desired, number, store, tracked, volume};
use eratrack_model::check::{Rule, Violation, check};
use eratrack_model::names::Role;
use eratrack_model::plan::{
    self, DeviceRef, Goal, Plan, Step, plan, plan_boundary, plan_end_point_in_time,
    plan_point_in_time,
};
use eratrack_model::stack::{Beneath, Contents, Desired, Observed, Subject};
use eratrack_model::table::Table;
use eratrack_model::units::{Bytes, Sectors};

/// Plans of every kind, with what they were made for.
fn plans() -> Vec<(Plan, Observed)> {
    let mut plans = Vec::new();
    for (table, lvm) in [(THICK, true), (THICK, false), (STRIPED, true), (THIN, true)] {
        let bare = Machine::new(volume(table, lvm));
        let insertion = plan(&bare.observe(), &desired()).unwrap();
        let mut whole = bare.clone();
        whole.run(&insertion, None);
        for at in 0..=Machine::moves_in(&insertion) {
            let mut cut = bare.clone();
            cut.run(&insertion, Some(at));
            for wish in [desired(), Desired::Untracked] {
                plans.push((plan(&cut.observe(), &wish).unwrap(), cut.observe()));
            }
        }
        plans.push((plan_boundary(&whole.observe()).unwrap(), whole.observe()));
        plans.push((plan(&whole.observe(), &Desired::Untracked).unwrap(), whole.observe()));
        let point = plan_point_in_time(&whole.observe(), &store()).unwrap();
        plans.push((point.clone(), whole.observe()));
        for at in 0..=Machine::moves_in(&point) {
            let mut cut = whole.clone();
            cut.run(&point, Some(at));
            plans.push((plan_end_point_in_time(&cut.observe()).unwrap(), cut.observe()));
            plans.push((plan(&cut.observe(), &Desired::Untracked).unwrap(), cut.observe()));
        }
    }
    plans
}

fn broken_rule(plan: &Plan, observed: &Observed) -> Option<Rule> {
    check(plan, observed).err().map(|Violation { rule, .. }| rule)
}

#[test]
fn no_step_can_be_left_out() {
    let mut tried = 0;
    for (plan, observed) in plans() {
        assert_eq!(broken_rule(&plan, &observed), None);
        for left_out in 0..plan.steps.len() {
            let mut broken = plan.clone();
            let step = broken.steps.remove(left_out);
            assert!(broken_rule(&broken, &observed).is_some(), "without {step}:\n{broken}");
            tried += 1;
        }
    }
    assert!(tried > 500, "only {tried}");
}

/// Steps that have nothing to do with each other may change places.
fn independent(first: &Step, second: &Step) -> bool {
    let own_base = |step: &Step| {
        matches!(
            step,
            Step::Create { role: Role::Base, .. }
                | Step::Load { role: Role::Base, .. }
                | Step::Activate { role: Role::Base }
                | Step::Remove { role: Role::Base }
        )
    };
    let verify = |step: &Step| matches!(step, Step::VerifyLive { .. });
    let zero = |step: &Step| matches!(step, Step::ZeroMetadata { .. });
    let own = |step: &Step| {
        let made = matches!(step, Step::Create { .. } | Step::Remove { .. });
        made || zero(step) || own_base(step) || matches!(step, Step::LimitDiscards { .. })
    };
    let create_era = |step: &Step| matches!(step, Step::Create { role: Role::Era, .. });
    let unlock = |step: &Step| matches!(step, Step::UnlockVolumeGroup { .. });
    let lock = |step: &Step| matches!(step, Step::LockVolumeGroup { .. });
    let create_origin = |step: &Step| matches!(step, Step::Create { role: Role::Origin, .. });
    let cut_off = |step: &Step| matches!(step, Step::Load { role: Role::Snapshot, .. });
    let clear = |step: &Step| matches!(step, Step::ClearSlot { .. });
    let remove_origin = |step: &Step| matches!(step, Step::Remove { role: Role::Origin });
    let activate = |step: &Step, wanted| matches!(step, Step::Activate { role } if *role == wanted);
    // The first proof of X's table may stand anywhere before the swap; whether our own devices
    // are made or removed with the lock held makes no difference to X.
    let apart = |a: &Step, b: &Step| {
        verify(a) && own(b)
            || unlock(a) && own(b)
            || zero(a) && own_base(b)
            || create_era(a) && own_base(b)
            // What a point in time is made of is none of X's.
            || (create_origin(a) || remove_origin(a)) && activate(b, Role::Snapshot)
            || activate(a, Role::Origin) && (lock(b) || verify(b))
            || activate(a, Role::Snapshot) && (lock(b) || verify(b) || clear(b))
            || cut_off(a) && unlock(b)
    };
    apart(first, second) || apart(second, first)
}

#[test]
fn no_two_steps_can_change_places() {
    let mut tried = 0;
    for (plan, observed) in plans() {
        for first in 1..plan.steps.len() {
            if independent(&plan.steps[first - 1], &plan.steps[first]) {
                continue;
            }
            let mut broken = plan.clone();
            broken.steps.swap(first - 1, first);
            let rule = broken_rule(&broken, &observed);
            assert!(rule.is_some(), "{first} and {} in\n{broken}", first + 1);
            tried += 1;
        }
    }
    assert!(tried > 300, "only {tried}");
}

#[test]
fn no_step_can_be_done_twice() {
    for (plan, observed) in plans() {
        for (index, step) in plan.steps.iter().enumerate() {
            let harmless = matches!(step, Step::VerifyLive { .. } | Step::LimitDiscards { .. });
            if !harmless {
                let mut broken = plan.clone();
                broken.steps.insert(index, step.clone());
                assert!(broken_rule(&broken, &observed).is_some(), "twice {step}:\n{broken}");
            }
        }
    }
}

fn insertion(table: &str) -> (Plan, Observed) {
    let observed = Machine::new(volume(table, true)).observe();
    (plan(&observed, &desired()).unwrap(), observed)
}

fn table(text: &str) -> Table<DeviceRef> {
    let table: Table = text.parse().unwrap();
    let own = |minor| match minor {
        101 => DeviceRef::Own(Role::Era),
        102 => DeviceRef::Own(Role::Base),
        minor => DeviceRef::Number(number(minor)),
    };
    let name = |n: &eratrack_model::units::DevNo| {
        Ok::<_, ()>(if n.major == 253 { own(n.minor) } else { DeviceRef::Number(*n) })
    };
    table.try_map(name).unwrap()
}

/// The rule that is broken once a new table of X is another one.
fn with_new_table(original: &str, new: &str) -> Option<Rule> {
    let (mut plan, observed) = insertion(original);
    let mut swapped = false;
    for step in &mut plan.steps {
        match step {
            Step::SwapIn { table: found, .. } => (*found, swapped) = (table(new), true),
            Step::VerifyLive { table: found, .. } if swapped => *found = table(new),
            _ => {}
        }
    }
    broken_rule(&plan, &observed)
}

#[test]
fn all_of_x_must_lead_to_era_at_the_same_place() {
    let good = "0 131072 linear 253:101 0";
    assert_eq!(with_new_table(THICK, good), None);
    let thin = "0 128 switch 2 128 0 253:101 0 253:2 0\n128 130944 linear 253:101 128";
    assert_eq!(with_new_table(THIN, thin), None);
    for bad in [
        "0 131072 linear 253:101 8",
        "0 131064 linear 253:101 0\n131064 8 linear 253:102 131064",
        "0 131064 linear 253:101 0\n131064 8 thin 253:2 7",
        "0 8 switch 2 8 0 253:2 0 253:101 0\n8 131064 linear 253:101 8",
        "0 16 switch 2 8 0 253:101 0 253:2 0\n16 131056 linear 253:101 16",
        "0 8 switch 2 8 0 253:101 8 253:2 0\n8 131064 linear 253:101 8",
        "0 8 linear 253:101 0\n8 131064 linear 253:101 0",
    ] {
        assert_eq!(with_new_table(THICK, bad), Some(Rule::WhollyTracked), "{bad}");
    }
    assert_eq!(with_new_table(THICK, "0 131064 linear 253:101 0"), Some(Rule::SameLength));
    assert_eq!(with_new_table(THICK, "0 131072 linear 253:102 0"), Some(Rule::TableGivenBack));
}

fn point(original: &str) -> (Plan, Observed) {
    let mut machine = Machine::new(volume(original, true));
    machine.run(&insertion(original).0, None);
    let observed = machine.observe();
    (plan_point_in_time(&observed, &store()).unwrap(), observed)
}

/// The rule that a point in time breaks once a load, or X's new table, is another one.
fn with_point_table(of: Option<Role>, new: &str) -> Option<Rule> {
    let (mut plan, observed) = point(THIN);
    let (era, mut swapped) = (observed.era.clone().unwrap().number, false);
    let name = |number: &eratrack_model::units::DevNo| {
        Ok::<_, ()>(match (number.major, number.minor) {
            (253, 101) => DeviceRef::Number(era),
            (253, 103) => DeviceRef::Own(Role::Origin),
            _ => DeviceRef::Number(*number),
        })
    };
    let new = new.parse::<Table>().unwrap().try_map(name).unwrap();
    for step in &mut plan.steps {
        match step {
            Step::Load { role, table } if of == Some(*role) => *table = new.clone(),
            Step::SwapIn { table, .. } if of.is_none() => {
                (*table, swapped) = (new.clone(), true);
            }
            Step::VerifyLive { table, .. } if swapped => *table = new.clone(),
            _ => {}
        }
    }
    broken_rule(&plan, &observed)
}

#[test]
fn a_point_in_time_changes_the_device_that_x_leads_to_and_nothing_else() {
    let good = "0 128 switch 2 128 0 253:103 0 253:2 0\n128 130944 linear 253:103 128";
    assert_eq!(with_point_table(None, good), None);
    for bad in [
        "0 131072 linear 253:103 0",
        "0 128 switch 2 128 0 253:101 0 253:2 0\n128 130944 linear 253:103 128",
        "0 128 switch 2 128 0 253:103 0 253:2 0\n128 130944 linear 253:103 0",
        "0 131064 linear 253:103 0\n131064 8 thin 253:2 7",
    ] {
        assert_eq!(with_point_table(None, bad), Some(Rule::SameShape), "{bad}");
    }
}

#[test]
fn a_point_in_time_is_made_of_the_era_device_and_a_store_apart() {
    let snapshot = |table| with_point_table(Some(Role::Snapshot), table);
    assert_eq!(snapshot("0 131072 snapshot 253:101 7:1 N 16"), None);
    for bad in [
        "0 131072 snapshot 253:101 7:9 N 32",
        "0 131072 snapshot 253:3 7:1 N 32",
        "0 131064 snapshot 253:101 7:1 N 32",
        "0 131072 snapshot 253:101 7:1 N 24",
        "0 131072 linear 253:101 0",
    ] {
        assert_eq!(snapshot(bad), Some(Rule::PointIsReady), "{bad}");
    }
    for bad in ["0 131072 snapshot-origin 253:3", "0 131072 linear 253:101 0"] {
        assert_eq!(with_point_table(Some(Role::Origin), bad), Some(Rule::PointIsReady), "{bad}");
    }
    let with_store = |change: fn(&mut eratrack_model::stack::CopyStore)| {
        let (mut plan, observed) = point(THICK);
        let mut other = store();
        change(&mut other);
        plan.goal = Goal::PointInTime(other);
        broken_rule(&plan, &observed)
    };
    let on_x = |store: &mut eratrack_model::stack::CopyStore| {
        store.beneath.push(Beneath { number: number(3), uuid: None });
    };
    assert_eq!(with_store(on_x), Some(Rule::StoreApart));
    let on_tracked = |store: &mut eratrack_model::stack::CopyStore| {
        let uuid = Some("CRYPT-SUBDEV-ERATRACK-pv-2-era".parse().unwrap());
        store.beneath.push(Beneath { number: number(40), uuid });
    };
    assert_eq!(with_store(on_tracked), Some(Rule::StoreApart));
}

#[test]
fn a_point_in_time_is_not_begun_or_ended_by_a_plan_for_something_else() {
    let (mut plan, observed) = point(THICK);
    plan.goal = Goal::Boundary;
    assert_eq!(broken_rule(&plan, &observed), Some(Rule::GoalReached));
    let mut machine = Machine::new(volume(THICK, true));
    machine.run(&insertion(THICK).0, None);
    machine.run(&point(THICK).0, None);
    let observed = machine.observe();
    let mut end = plan_end_point_in_time(&observed).unwrap();
    assert_eq!(broken_rule(&end, &observed), None);
    let read_on = |end: &mut Plan, keep: &dyn Fn(&Step) -> bool| {
        let steps = std::mem::take(&mut end.steps);
        end.steps = steps.into_iter().filter(keep).collect();
        broken_rule(end, &observed)
    };
    let cut_off =
        |step: &Step| matches!(step, Step::Load { .. } | Step::Activate { role: Role::Snapshot });
    assert_eq!(read_on(&mut end.clone(), &|step| !cut_off(step)), Some(Rule::PointIsCutOff));
    end.goal = Goal::Boundary;
    assert_eq!(broken_rule(&end, &observed), Some(Rule::GoalReached));
}

fn with_step(change: impl Fn(&mut Step)) -> Option<Rule> {
    let (mut plan, observed) = insertion(THICK);
    plan.steps.iter_mut().for_each(change);
    broken_rule(&plan, &observed)
}

#[test]
fn steps_with_other_values_are_refused() {
    let limit = |limit| {
        with_step(move |step| {
            if let Step::LimitDiscards { bytes } = step {
                *bytes = Bytes(limit);
            }
        })
    };
    assert_eq!((limit(0), limit(128 << 10)), (None, None));
    assert_eq!(limit(512 << 10), Some(Rule::DiscardsLimited));
    assert_eq!(limit(32 << 10), Some(Rule::DiscardsLimited));
    let read_ahead = with_step(|step| {
        if let Step::SwapIn { keep_read_ahead, .. } = step {
            *keep_read_ahead = false;
        }
    });
    assert_eq!(read_ahead, Some(Rule::ReadAheadKept));
    let zero = with_step(|step| {
        if let Step::ZeroMetadata { length, .. } = step {
            *length = Sectors(4096);
        }
    });
    assert_eq!(zero, Some(Rule::ZeroOnlyFresh));
    let other_x = with_step(|step| {
        if let Step::SwapIn { x, .. } = step {
            *x = number(4);
        }
    });
    assert_eq!(other_x, Some(Rule::RightX));
    let other_base = with_step(|step| {
        if let Step::Load { role: Role::Base, table: found } = step {
            *found = table("0 131072 linear 8:0 2048");
        }
    });
    assert_eq!(other_base, Some(Rule::EraIsReady));
    let other_name = with_step(|step| {
        if let Step::Create { name, .. } = step {
            *name = "eratrack-pv-2-era".parse().unwrap();
        }
    });
    assert_eq!(other_name, Some(Rule::MadeOnce));
    let other_group = with_step(|step| {
        if let Step::LockVolumeGroup { vg } | Step::UnlockVolumeGroup { vg } = step {
            *vg = eratrack_model::lvm::VgName::new("vg").unwrap();
        }
    });
    assert_eq!(other_group, Some(Rule::LockBalanced));
}

#[test]
fn a_good_plan_for_another_machine_is_refused() {
    let (plan, observed) = insertion(THICK);
    let with_x = |change: fn(&mut eratrack_model::stack::Volume)| {
        let mut observed = observed.clone();
        if let Subject::Mapped(volume) = &mut observed.x {
            change(volume);
        }
        broken_rule(&plan, &observed)
    };
    assert_eq!(with_x(|x| x.device.suspended = true), Some(Rule::XIsActive));
    assert_eq!(with_x(|x| x.device.read_only = true), Some(Rule::XIsActive));
    let foreign = |x: &mut eratrack_model::stack::Volume| {
        x.device.inactive = Some("0 131072 linear 8:32 0".parse().unwrap());
    };
    assert_eq!(with_x(foreign), Some(Rule::SlotIsEmpty));
    let other = |x: &mut eratrack_model::stack::Volume| {
        x.device.live = Some("0 131072 linear 8:32 0".parse().unwrap());
    };
    assert_eq!(with_x(other), Some(Rule::ExpectedIsLive));
    let gone = Observed { x: Subject::Gone, ..observed.clone() };
    assert_eq!(broken_rule(&plan, &gone), Some(Rule::LockBalanced));
}

#[test]
fn metadata_that_must_not_be_zeroed_or_lies_on_x_is_refused() {
    let with = |change: fn(&mut eratrack_model::stack::MetadataArea)| {
        let (mut plan, observed) = insertion(THICK);
        let mut wanted = tracked();
        change(&mut wanted.metadata);
        plan.goal = Goal::Reach(Desired::Tracked(wanted));
        broken_rule(&plan, &observed)
    };
    assert_eq!(with(|_| {}), None);
    assert_eq!(with(|area| area.contents = Contents::Kept), Some(Rule::ZeroOnlyFresh));
    let on_x = |area: &mut eratrack_model::stack::MetadataArea| {
        area.beneath.push(Beneath { number: number(3), uuid: None });
    };
    assert_eq!(with(on_x), Some(Rule::MetadataApart));
    let on_tracked = |area: &mut eratrack_model::stack::MetadataArea| {
        let uuid = Some("CRYPT-SUBDEV-ERATRACK-pv-2-era".parse().unwrap());
        area.beneath.push(Beneath { number: number(40), uuid });
    };
    assert_eq!(with(on_tracked), Some(Rule::MetadataApart));
}

/// While X did not go through era, nobody recorded what was written to it (invariant I2).
#[test]
fn a_chain_does_not_go_on_in_metadata_that_x_went_without() {
    let (mut plan, observed) = insertion(THICK);
    let mut wanted = tracked();
    wanted.metadata.contents = Contents::Kept;
    plan.goal = Goal::Reach(Desired::Tracked(wanted));
    plan.steps.retain(|step| !matches!(step, Step::ZeroMetadata { .. }));
    assert_eq!(broken_rule(&plan, &observed), Some(Rule::ChainUnbroken));
}

/// After a reboot, somebody has proven that nothing was written meanwhile.
#[test]
fn a_proven_chain_goes_on_and_is_never_zeroed() {
    let mut wanted = tracked();
    wanted.metadata.contents = Contents::Proven;
    let observed = Machine::new(volume(THICK, true)).observe();
    let mut plan = plan::plan(&observed, &Desired::Tracked(wanted)).unwrap();
    assert!(!plan.steps.iter().any(|step| matches!(step, Step::ZeroMetadata { .. })), "{plan}");
    assert_eq!(broken_rule(&plan, &observed), None);
    let zero = Step::ZeroMetadata { device: tracked().metadata.number, length: Sectors(8) };
    plan.steps.insert(2, zero);
    assert_eq!(broken_rule(&plan, &observed), Some(Rule::ZeroOnlyFresh));
}

#[test]
fn somebody_elses_table_may_not_be_cleared() {
    let (mut plan, mut observed) = insertion(THICK);
    if let Subject::Mapped(volume) = &mut observed.x {
        volume.device.inactive = Some("0 131072 linear 8:32 0".parse().unwrap());
    }
    plan.steps.insert(1, Step::ClearSlot { x: number(3), table: table("0 131072 linear 8:32 0") });
    assert_eq!(broken_rule(&plan, &observed), Some(Rule::SlotIsOurs));
    // Nor another one than the plan says.
    let mut machine = Machine::new(volume(THICK, true));
    let first = insertion(THICK).0;
    let load = first.steps.iter().position(|step| matches!(step, Step::SwapIn { .. })).unwrap();
    machine.run(&first, Some(load + 1));
    let observed = machine.observe();
    let mut plan = plan::plan(&observed, &desired()).unwrap();
    for step in &mut plan.steps {
        if let Step::ClearSlot { table: found, .. } = step {
            *found = table("0 131072 linear 8:32 0");
        }
    }
    assert_eq!(broken_rule(&plan, &observed), Some(Rule::SlotIsOurs));
}
