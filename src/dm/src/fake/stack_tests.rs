//! The model's plans on the strict kernel: killed or refused at every single call, then taken up
//! again by observing and planning anew.

use std::panic::{AssertUnwindSafe, catch_unwind};

use eratrack_model::discards::{DiscardLimits, DiscardPolicy};
use eratrack_model::names::{Role, StackId};
use eratrack_model::plan::{self, Plan};
use eratrack_model::stack::{
    Contents, CopyStore, Desired, Device, Kernel, MetadataArea, Observed, Subject, Tracked, Volume,
};
use eratrack_model::table::Table;
use eratrack_model::units::{Bytes, DevNo, Granularity, Sectors};

use super::*;
use crate::executor::{Executor, Outcome, StepError, StepErrorKind, Surroundings};
use crate::port::{DeviceMapper, DmErrorKind, Lookup, Slot};

const DISK: DevNo = DevNo { major: 8, minor: 0 };
const METADATA: DevNo = DevNo { major: 7, minor: 0 };
const COPIES: DevNo = DevNo { major: 7, minor: 1 };
const LENGTH: Sectors = Sectors(1 << 17);
const LVM: &str = "LVM-BmyQ8xV6m1F7w3kq0DpQw2s4ZyUjvE1sPvK7NnYb3cT9hR5gXoLdCaJtIuHfGeWz";
const GRANULARITY: Granularity = Granularity::DEFAULT;

/// One volume of LVM's on a disk, and a metadata device.
struct Scene {
    kernel: FakeKernel,
    stack: StackId,
    x: DevNo,
    original: Table,
}

impl Scene {
    fn new() -> Self {
        let kernel = FakeKernel::new();
        kernel.add_disk(DISK, Sectors(1 << 20));
        kernel.add_disk(METADATA, Sectors(1 << 12));
        kernel.add_disk(COPIES, Sectors(1 << 12));
        let original: Table = format!("0 {LENGTH} linear {DISK} 2048").parse().unwrap();
        let x = kernel.add_volume("vg-data", Some(LVM), &original);
        Self { kernel, stack: "s".parse().unwrap(), x, original }
    }

    fn device(&self, of: &Lookup) -> Option<Device> {
        let info = self.kernel.info(of).ok()?;
        let table = |slot| self.kernel.table(info.number, slot).unwrap();
        let discards = DiscardLimits { max: Bytes(1 << 20), granularity: Bytes(4096) };
        Some(Device {
            number: info.number,
            live: table(Slot::Live),
            inactive: table(Slot::Inactive),
            suspended: info.suspended,
            read_only: info.access == Access::ReadOnly,
            open_count: info.open_count,
            name: info.name,
            uuid: info.uuid,
            discards,
        })
    }

    fn observe(&self) -> Observed {
        let own = |role| self.device(&Lookup::Uuid(self.stack.uuid(role)));
        let volume = |device| Volume {
            device,
            pool_chunk: None,
            beneath: Vec::new(),
            logical_block: Bytes(512),
            dax: false,
            zoned: false,
        };
        let x = self.device(&self.x.into());
        let release = "6.1.176".parse().unwrap();
        Observed {
            stack: self.stack.clone(),
            kernel: Kernel { release, has_era: true, has_switch: true },
            x: x.map_or(Subject::Gone, |device| Subject::Mapped(volume(device))),
            era: own(Role::Era),
            base: own(Role::Base),
            origin: own(Role::Origin),
            snapshot: own(Role::Snapshot),
        }
    }

    fn run(&self, plan: &Plan) -> Result<Outcome, StepError> {
        let surroundings = &&self.kernel;
        let (dm, stack, observer) = (&self.kernel, &self.stack, &|_, _: &_| ());
        Executor { dm, surroundings, stack, observer }.run(plan)
    }

    fn plan(&self, desired: &Desired) -> Plan {
        let observed = self.observe();
        let plan = plan::plan(&observed, desired).unwrap();
        eratrack_model::check::check(&plan, &observed).unwrap();
        plan
    }

    fn boundary_plan(&self) -> Plan {
        plan::plan_boundary(&self.observe()).unwrap()
    }

    fn point_plan(&self) -> Plan {
        let store = CopyStore { number: COPIES, beneath: Vec::new() };
        plan::plan_point_in_time(&self.observe(), &store).unwrap()
    }

    fn end_point(&self) {
        let observed = self.observe();
        let plan = plan::plan_end_point_in_time(&observed).unwrap();
        eratrack_model::check::check(&plan, &observed).unwrap();
        self.run(&plan).unwrap();
    }

    fn own(&self, role: Role) -> Option<DevNo> {
        self.device(&Lookup::Uuid(self.stack.uuid(role))).map(|device| device.number)
    }

    fn reach(&self, desired: &Desired) {
        self.run(&self.plan(desired)).unwrap();
    }

    fn tracked(contents: Contents) -> Desired {
        Desired::Tracked(Tracked {
            granularity: GRANULARITY,
            discards: DiscardPolicy::Limit,
            metadata: MetadataArea {
                number: METADATA,
                length: Sectors(1 << 12),
                contents,
                beneath: Vec::new(),
            },
        })
    }

    fn write(&self, block: u64) {
        let sectors = GRANULARITY.sectors();
        self.kernel.write(self.x, Sectors(block * sectors.0), Sectors(8));
    }

    fn live(&self) -> Table {
        self.kernel.table(self.x, Slot::Live).unwrap().unwrap()
    }

    fn is_tracked(&self) -> bool {
        self.live() != self.original
    }

    fn assert_as_before(&self) {
        assert_eq!(self.live(), self.original);
        assert_eq!(self.kernel.table(self.x, Slot::Inactive).unwrap(), None);
        assert_eq!(self.kernel.list().unwrap().len(), 1, "something of ours is left");
        assert_eq!((&self.kernel).read_ahead(self.x).unwrap(), READ_AHEAD);
    }
}

/// Runs the plan and ends it at its n-th call; false if it got to its end.
fn killed(scene: &Scene, plan: &Plan, nth: usize, when: When) -> bool {
    scene.kernel.kill_at(nth, when);
    let result = catch_unwind(AssertUnwindSafe(|| scene.run(plan)));
    scene.kernel.no_faults();
    assert_eq!(scene.kernel.suspended(), []);
    match result {
        Ok(outcome) => {
            outcome.unwrap();
            false
        }
        Err(panic) if panic.is::<Killed>() => true,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// For each n-th call of the plan, before and after it: a new scene, the kill, and what follows.
fn for_every_kill(prepare: impl Fn(&Scene) -> Plan, then: impl Fn(&Scene)) {
    let mut moments = 0;
    for when in [When::Before, When::After] {
        for nth in 0.. {
            let scene = Scene::new();
            let plan = prepare(&scene);
            if !killed(&scene, &plan, nth, when) {
                break;
            }
            scene.write(3);
            then(&scene);
            moments += 1;
        }
    }
    assert!(moments > 20, "{moments} moments are too few to be all");
}

#[test]
fn a_stack_goes_in_records_and_comes_out() {
    let scene = Scene::new();
    (&scene.kernel).set_read_ahead(scene.x, 4096).unwrap();
    scene.reach(&Scene::tracked(Contents::Fresh));
    assert!(scene.is_tracked());
    scene.write(1);
    let first = scene.run(&scene.boundary_plan()).unwrap().era.unwrap();
    scene.write(2);
    scene.write(7);
    let second = scene.run(&scene.boundary_plan()).unwrap();
    scene.write(9);
    assert!(second.drained.is_some() && second.era > Some(first));
    let changed =
        |since| scene.kernel.changed_since(METADATA, since).into_iter().collect::<Vec<_>>();
    assert_eq!(changed(first), [2, 7, 9]);
    assert_eq!(changed(second.era.unwrap()), [9]);
    assert_eq!((&scene.kernel).read_ahead(scene.x).unwrap(), 4096);
    scene.reach(&Desired::Untracked);
    (&scene.kernel).set_read_ahead(scene.x, READ_AHEAD).unwrap();
    scene.assert_as_before();
}

#[test]
fn an_insertion_killed_anywhere_can_be_undone() {
    for_every_kill(
        |scene| scene.plan(&Scene::tracked(Contents::Fresh)),
        |scene| {
            scene.reach(&Desired::Untracked);
            scene.assert_as_before();
        },
    );
}

#[test]
fn an_insertion_killed_anywhere_can_be_finished() {
    for_every_kill(
        |scene| scene.plan(&Scene::tracked(Contents::Fresh)),
        |scene| {
            let contents = if scene.is_tracked() { Contents::Kept } else { Contents::Fresh };
            scene.reach(&Scene::tracked(contents));
            assert!(scene.is_tracked());
            scene.run(&scene.boundary_plan()).unwrap();
        },
    );
}

#[test]
fn a_removal_killed_anywhere_is_finished() {
    for_every_kill(
        |scene| {
            scene.reach(&Scene::tracked(Contents::Fresh));
            scene.plan(&Desired::Untracked)
        },
        |scene| {
            scene.reach(&Desired::Untracked);
            scene.assert_as_before();
        },
    );
}

#[test]
fn a_boundary_killed_anywhere_loses_no_write() {
    for_every_kill(
        |scene| {
            scene.reach(&Scene::tracked(Contents::Fresh));
            scene.boundary_plan()
        },
        |scene| {
            scene.reach(&Scene::tracked(Contents::Kept));
            let era = scene.run(&scene.boundary_plan()).unwrap().era.unwrap();
            scene.write(5);
            assert!(scene.kernel.changed_since(METADATA, era).contains(&5));
            assert!(scene.kernel.changed_since(METADATA, Era(1)).contains(&3));
        },
    );
}

#[test]
fn a_point_in_time_misses_no_write_and_ends_as_it_began() {
    let scene = Scene::new();
    scene.reach(&Scene::tracked(Contents::Fresh));
    let table = scene.live();
    let outcome = scene.run(&scene.point_plan()).unwrap();
    let era = outcome.era.unwrap();
    let snapshot = scene.own(Role::Snapshot).unwrap();
    for block in [1, 2, 7] {
        scene.write(block);
    }
    let kept = scene.kernel.snapshot(snapshot);
    assert!(kept.missed.is_empty() && kept.copied.len() == 3, "{kept:?}");
    assert!(outcome.drained.is_some());
    let changed = scene.kernel.changed_since(METADATA, era).into_iter().collect::<Vec<_>>();
    assert_eq!(changed, [1, 2, 7], "era records as before");
    scene.end_point();
    assert_eq!(scene.live(), table);
    assert_eq!((scene.own(Role::Origin), scene.own(Role::Snapshot)), (None, None));
}

#[test]
fn a_point_in_time_that_was_begun_is_ended_wherever_it_was_killed() {
    for_every_kill(
        |scene| {
            scene.reach(&Scene::tracked(Contents::Fresh));
            scene.point_plan()
        },
        |scene| {
            scene.end_point();
            assert_eq!((scene.own(Role::Origin), scene.own(Role::Snapshot)), (None, None));
            let era = scene.run(&scene.point_plan()).unwrap().era.unwrap();
            scene.write(5);
            assert!(scene.kernel.changed_since(METADATA, era).contains(&5));
            assert!(scene.kernel.changed_since(METADATA, Era(1)).contains(&3));
            let kept = scene.kernel.snapshot(scene.own(Role::Snapshot).unwrap());
            assert!(kept.missed.is_empty() && kept.copied.len() == 1, "{kept:?}");
        },
    );
}

#[test]
fn a_stack_comes_out_wherever_its_point_in_time_was_killed() {
    for_every_kill(
        |scene| {
            scene.reach(&Scene::tracked(Contents::Fresh));
            scene.point_plan()
        },
        undone,
    );
}

#[test]
fn the_end_of_a_point_in_time_killed_anywhere_is_finished() {
    for_every_kill(
        |scene| {
            scene.reach(&Scene::tracked(Contents::Fresh));
            scene.run(&scene.point_plan()).unwrap();
            plan::plan_end_point_in_time(&scene.observe()).unwrap()
        },
        |scene| {
            scene.end_point();
            assert_eq!((scene.own(Role::Origin), scene.own(Role::Snapshot)), (None, None));
            scene.run(&scene.boundary_plan()).unwrap();
            undone(scene);
        },
    );
}

/// For each n-th call of the plan: a new scene, and that call refused. Whoever comes next has not
/// yet tidied up when X's slot must be empty. No plan of these clears it, so that a refused call
/// is never the clear itself.
fn for_every_refusal(prepare: impl Fn(&Scene) -> Plan, then: impl Fn(&Scene)) {
    for nth in 0.. {
        let scene = Scene::new();
        let plan = prepare(&scene);
        scene.kernel.fail_at(nth, DmErrorKind::Busy);
        let result = scene.run(&plan);
        scene.kernel.no_faults();
        let slot = scene.kernel.table(scene.x, Slot::Inactive).unwrap();
        assert_eq!(slot, None, "left in X's slot when call {nth} was refused: {result:?}");
        assert_eq!(scene.kernel.suspended(), []);
        scene.write(1);
        then(&scene);
        if result.is_ok() {
            assert!(nth > 10, "{nth} calls are too few to be all");
            return;
        }
    }
}

fn undone(scene: &Scene) {
    scene.reach(&Desired::Untracked);
    scene.assert_as_before();
}

#[test]
fn a_call_refused_anywhere_in_an_insertion_leaves_nothing_that_cannot_be_undone() {
    for_every_refusal(|scene| scene.plan(&Scene::tracked(Contents::Fresh)), undone);
}

#[test]
fn a_call_refused_anywhere_in_a_removal_leaves_nothing_that_cannot_be_undone() {
    let prepare = |scene: &Scene| {
        scene.reach(&Scene::tracked(Contents::Fresh));
        scene.plan(&Desired::Untracked)
    };
    for_every_refusal(prepare, undone);
}

#[test]
fn a_call_refused_anywhere_in_a_boundary_leaves_a_stack_that_works() {
    let prepare = |scene: &Scene| {
        scene.reach(&Scene::tracked(Contents::Fresh));
        scene.boundary_plan()
    };
    for_every_refusal(prepare, |scene| {
        let era = scene.run(&scene.boundary_plan()).unwrap().era.unwrap();
        scene.write(5);
        assert!(scene.kernel.changed_since(METADATA, era).contains(&5));
        undone(scene);
    });
}

#[test]
fn a_call_refused_anywhere_in_a_point_in_time_leaves_a_stack_that_works() {
    let prepare = |scene: &Scene| {
        scene.reach(&Scene::tracked(Contents::Fresh));
        scene.point_plan()
    };
    for_every_refusal(prepare, |scene| {
        scene.end_point();
        let era = scene.run(&scene.point_plan()).unwrap().era.unwrap();
        scene.write(5);
        assert!(scene.kernel.changed_since(METADATA, era).contains(&5));
        undone(scene);
    });
}

#[test]
fn a_table_that_somebody_loaded_meanwhile_ends_the_run() {
    let scene = Scene::new();
    let plan = scene.plan(&Scene::tracked(Contents::Fresh));
    let theirs: Table = format!("0 {LENGTH} linear {DISK} 4096").parse().unwrap();
    scene.kernel.somebody_loads(scene.x, &theirs, false);
    let error = scene.run(&plan).unwrap_err();
    assert!(matches!(*error.source, StepErrorKind::Changed { .. }), "{error}");
    assert_eq!(scene.kernel.table(scene.x, Slot::Inactive).unwrap(), Some(theirs.clone()));
    scene.kernel.somebody_loads(scene.x, &theirs, true);
    scene.kernel.clear(scene.x).unwrap();
    let error = scene.run(&plan).unwrap_err();
    assert!(matches!(*error.source, StepErrorKind::Changed { .. }), "{error}");
    assert_eq!(scene.live(), theirs);
}

#[test]
fn a_device_that_somebody_suspended_is_left_alone() {
    let scene = Scene::new();
    let plan = scene.plan(&Scene::tracked(Contents::Fresh));
    scene.kernel.somebody_suspends(scene.x);
    let error = scene.run(&plan).unwrap_err();
    assert!(matches!(*error.source, StepErrorKind::Changed { .. }), "{error}");
    assert_eq!(scene.kernel.suspended(), [scene.x]);
}

#[test]
fn a_failed_era_device_has_no_boundary_and_comes_out() {
    let scene = Scene::new();
    scene.reach(&Scene::tracked(Contents::Fresh));
    let plan = scene.boundary_plan();
    scene.kernel.fail_metadata(METADATA);
    assert!(scene.run(&plan).is_err());
    scene.reach(&Desired::Untracked);
    scene.assert_as_before();
}

#[test]
fn the_rules_of_the_strict_kernel_hold() {
    let broken = |rule: &str, act: &dyn Fn(&Scene, DevNo)| {
        let scene = Scene::new();
        scene.reach(&Scene::tracked(Contents::Fresh));
        let era = scene.device(&Lookup::Uuid(scene.stack.uuid(Role::Era))).unwrap().number;
        let panic = catch_unwind(AssertUnwindSafe(|| act(&scene, era))).unwrap_err();
        let text = panic.downcast_ref::<String>().expect("a message");
        assert!(text.contains("rule broken") && text.contains(rule), "{text}");
    };
    broken("would be suspended on its own", &|scene, era| {
        let table = scene.kernel.table(era, Slot::Live).unwrap().unwrap();
        scene.kernel.load(era, &table, Access::ReadWrite).unwrap();
        let _ = scene.kernel.swap(era);
    });
    broken("which is suspended", &|scene, era| {
        scene.kernel.somebody_suspends(era);
        let _ = scene.kernel.status(era);
    });
    broken("without LVM's lock", &|scene, _| {
        scene.kernel.load(scene.x, &scene.original, Access::ReadWrite).unwrap();
        let _ = scene.kernel.swap(scene.x);
    });
    broken("is live before its snapshot", &|scene, era| {
        scene.run(&scene.point_plan()).unwrap();
        let store = DevNo { major: 7, minor: 9 };
        scene.kernel.add_disk(store, Sectors(1 << 12));
        let (name, uuid) = ("second".parse().unwrap(), "second".parse().unwrap());
        let second = scene.kernel.create(&name, &uuid).unwrap();
        let table = format!("0 {LENGTH} snapshot {era} {store} N 32").parse().unwrap();
        scene.kernel.load(second, &table, Access::ReadWrite).unwrap();
        let _ = scene.kernel.swap(second);
    });
    broken("zeroed while it is in use", &|scene, _| {
        let _ = (&scene.kernel).zero(METADATA, Sectors(8));
    });
}
