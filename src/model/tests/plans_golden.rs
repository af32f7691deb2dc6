//! What plans look like, word for word. `UPDATE_GOLDEN=1 cargo test` writes them anew.

mod common;

use std::path::Path;

use common::{Machine, STRIPED, THICK, THIN, desired, store, volume};
use eratrack_model::plan::{
    Plan, Step, plan, plan_boundary, plan_end_point_in_time, plan_point_in_time,
};
use eratrack_model::stack::Desired;

fn golden(name: &str, plan: &Plan) {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, plan.to_string()).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(plan.to_string(), expected, "{}; UPDATE_GOLDEN=1 writes it anew", path.display());
}

fn track(machine: &Machine) -> Plan {
    plan(&machine.observe(), &desired()).unwrap()
}

fn untrack(machine: &Machine) -> Plan {
    plan(&machine.observe(), &Desired::Untracked).unwrap()
}

fn tracked(table: &str, lvm: bool) -> Machine {
    let mut machine = Machine::new(volume(table, lvm));
    let plan = track(&machine);
    assert!(machine.run(&plan, None));
    machine
}

/// Killed before the step whose text starts so, or in the middle of a swap.
fn killed_before(mut machine: Machine, plan: &Plan, step: &str) -> Machine {
    let at = plan.steps.iter().position(|found| found.to_string().starts_with(step));
    machine.run(plan, Some(at.expect("such a step")));
    machine
}

fn killed_in_swap(mut machine: Machine, plan: &Plan, swap: &str) -> Machine {
    let at = plan.steps.iter().position(|found| found.to_string().starts_with(swap));
    machine.run(plan, Some(at.expect("a swap") + 1));
    machine
}

#[test]
fn insertions() {
    golden("insert_thick", &track(&Machine::new(volume(THICK, true))));
    golden("insert_not_lvm", &track(&Machine::new(volume(THICK, false))));
    golden("insert_striped", &track(&Machine::new(volume(STRIPED, true))));
    golden("insert_thin", &track(&Machine::new(volume(THIN, true))));
}

#[test]
fn insertions_that_were_killed() {
    let bare = Machine::new(volume(THICK, true));
    let first = track(&bare);
    let no_era = killed_before(bare.clone(), &first, "create era");
    golden("insert_again_without_era", &track(&no_era));
    golden("undo_without_era", &untrack(&no_era));
    golden("insert_again_half_made", &track(&killed_before(bare.clone(), &first, "load era")));
    let in_slot = killed_in_swap(bare, &first, "swap");
    golden("insert_again_slot_taken", &track(&in_slot));
    golden("undo_slot_taken", &untrack(&in_slot));
}

#[test]
fn removals() {
    let whole = tracked(THICK, true);
    golden("remove_thick", &untrack(&whole));
    golden("remove_thin", &untrack(&tracked(THIN, true)));
    let first = untrack(&whole);
    golden("remove_again_slot_taken", &untrack(&killed_in_swap(whole.clone(), &first, "swap")));
    golden("remove_again_base_left", &untrack(&killed_before(whole, &first, "remove base")));
    golden("remove_nothing", &untrack(&Machine::new(volume(THICK, true))));
}

#[test]
fn boundaries() {
    let boundary = |machine: &Machine| plan_boundary(&machine.observe()).unwrap();
    let whole = tracked(THICK, true);
    golden("boundary_thick", &boundary(&whole));
    golden("boundary_thin", &boundary(&tracked(THIN, true)));
    let first = boundary(&whole);
    golden("tracked_after_killed_boundary", &track(&killed_in_swap(whole, &first, "drain")));
}

#[test]
fn points_in_time() {
    let begin = |machine: &Machine| plan_point_in_time(&machine.observe(), &store()).unwrap();
    let end = |machine: &Machine| plan_end_point_in_time(&machine.observe()).unwrap();
    let whole = tracked(THICK, true);
    golden("point_thick", &begin(&whole));
    golden("point_not_lvm", &begin(&tracked(THICK, false)));
    let mut thin = tracked(THIN, true);
    let first = begin(&thin);
    golden("point_thin", &first);
    assert!(thin.run(&first, None) && thin.holds_point_in_time());
    golden("end_point_thin", &end(&thin));
    golden("end_point_slot_taken", &end(&killed_in_swap(whole.clone(), &begin(&whole), "swap")));
    golden("remove_with_point", &untrack(&thin));
    golden("tracked_with_point", &track(&thin));
    thin.lvm_reloads("0 262144 thin 253:2 7");
    golden("end_point_reloaded", &end(&thin));
    golden("insert_with_point_left", &track(&thin));
}

#[test]
fn what_others_did() {
    let mut reloaded = tracked(THICK, true);
    golden("tracked_already", &track(&reloaded));
    reloaded.lvm_reloads("0 262144 linear 8:0 2048");
    golden("reloaded_insert", &track(&reloaded));
    golden("reloaded_remove", &untrack(&reloaded));
    reloaded.x = None;
    golden("gone_remove", &untrack(&reloaded));
}

/// In a group the middles happen together; nothing else of a plan is left out or another.
#[test]
fn a_members_parts_are_its_plan() {
    let whole = tracked(THICK, true);
    let boundary = plan_boundary(&whole.observe()).unwrap();
    let point = plan_point_in_time(&whole.observe(), &store()).unwrap();
    for (plan, begins_point) in [(&boundary, false), (&point, true)] {
        let member = plan.as_member().expect("it draws a boundary");
        assert_eq!(member.table.is_some(), begins_point);
        let is_lock = |step: &&Step| {
            matches!(step, Step::LockVolumeGroup { .. } | Step::UnlockVolumeGroup { .. })
        };
        let rest: Vec<_> = plan.steps.iter().filter(|step| !is_lock(step)).collect();
        let (before, after) = (member.before.len(), member.after.len());
        assert_eq!(rest.len(), before + 3 + after, "checkpoint, read the era, swap");
        assert_eq!(rest[..before], member.before.iter().collect::<Vec<_>>());
        assert_eq!(rest[before + 3..], member.after.iter().collect::<Vec<_>>());
        assert!(member.lock.is_some());
    }
    assert!(untrack(&whole).as_member().is_none());
}
