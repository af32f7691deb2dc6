//! A machine in memory, simple on purpose: it keeps only what plans depend on, and stops the
//! test where a kernel would refuse or harm would be done.
#![allow(dead_code)] // each test binary uses its own part

use eratrack_model::discards::{DiscardLimits, DiscardPolicy};
use eratrack_model::names::{DmName, DmUuid, Role, StackId};
use eratrack_model::plan::{DeviceRef, Plan, PlannedTable, Step};
use eratrack_model::stack::{
    Beneath, Contents, CopyStore, Desired, Device, Kernel, MetadataArea, Observed, Subject,
    Tracked, Volume,
};
use eratrack_model::table::Table;
use eratrack_model::units::{Bytes, DevNo, Granularity, Sectors};

pub(crate) const LVM_UUID: &str =
    "LVM-BmyQ8xV6m1F7w3kq0DpQw2s4ZyUjvE1sPvK7NnYb3cT9hR5gXoLdCaJtIuHfGeWz";

pub(crate) const THICK: &str = "0 65536 linear 8:0 2048\n65536 65536 linear 8:16 2048";
pub(crate) const STRIPED: &str = "0 131072 striped 2 128 8:0 2048 8:16 2048";
pub(crate) const THIN: &str = "0 131072 thin 253:2 7";

#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) x: Option<Volume>,
    pub(crate) era: Option<Device>,
    pub(crate) base: Option<Device>,
    pub(crate) origin: Option<Device>,
    pub(crate) snapshot: Option<Device>,
    pub(crate) area_zeroed: bool,
    /// The era device read metadata that was zeroed for it.
    pub(crate) era_is_fresh: bool,
    pub(crate) lock: bool,
    pub(crate) boundaries: u32,
    asked: Asked,
    next_minor: u32,
}

pub(crate) fn number(minor: u32) -> DevNo {
    DevNo { major: 253, minor }
}

pub(crate) fn volume(table: &str, lvm: bool) -> Volume {
    let (name, uuid) = if lvm { ("vg--a-data", Some(LVM_UUID)) } else { ("data", None) };
    let device = Device {
        number: number(3),
        name: name.parse().unwrap(),
        uuid: uuid.map(|uuid| uuid.parse().unwrap()),
        live: Some(table.parse().unwrap()),
        inactive: None,
        suspended: false,
        read_only: false,
        open_count: 1,
        discards: DiscardLimits { max: Bytes(1 << 30), granularity: Bytes(64 << 10) },
    };
    let pool_chunk = table.contains(" thin ").then_some(Sectors(128));
    let beneath = Vec::new();
    Volume { device, pool_chunk, logical_block: Bytes(512), dax: false, zoned: false, beneath }
}

pub(crate) fn metadata() -> MetadataArea {
    MetadataArea {
        number: DevNo { major: 7, minor: 0 },
        length: Sectors(2048),
        contents: Contents::Fresh,
        beneath: vec![Beneath { number: DevNo { major: 8, minor: 1 }, uuid: None }],
    }
}

pub(crate) fn store() -> CopyStore {
    let disk = Beneath { number: DevNo { major: 8, minor: 1 }, uuid: None };
    CopyStore { number: DevNo { major: 7, minor: 1 }, beneath: vec![disk] }
}

pub(crate) fn tracked() -> Tracked {
    Tracked {
        granularity: Granularity::DEFAULT,
        metadata: metadata(),
        discards: DiscardPolicy::Limit,
    }
}

pub(crate) fn desired() -> Desired {
    Desired::Tracked(tracked())
}

pub(crate) fn kernel() -> Kernel {
    Kernel { release: "6.1.176".parse().unwrap(), has_era: true, has_switch: true }
}

/// What X-era was asked for in this run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Asked {
    Nothing,
    Checkpoint,
    Era,
}

/// What one kill can come between.
#[derive(Clone, Copy, Debug)]
enum Move<'a> {
    Whole(&'a Step),
    LoadX(DevNo, &'a PlannedTable, &'a PlannedTable),
    SwapX,
}

fn moves(plan: &Plan) -> Vec<Move<'_>> {
    plan.steps.iter().flat_map(moves_of).collect()
}

fn moves_of(step: &Step) -> Vec<Move<'_>> {
    match step {
        Step::SwapIn { x, expect, table, keep_read_ahead: _ } => {
            vec![Move::LoadX(*x, expect, table), Move::SwapX]
        }
        Step::Drain { x, table, keep_read_ahead: _ } => {
            vec![Move::LoadX(*x, table, table), Move::SwapX]
        }
        whole => vec![Move::Whole(whole)],
    }
}

impl Machine {
    pub(crate) fn new(volume: Volume) -> Self {
        Self {
            x: Some(volume),
            era: None,
            base: None,
            origin: None,
            snapshot: None,
            area_zeroed: false,
            era_is_fresh: false,
            lock: false,
            boundaries: 0,
            asked: Asked::Nothing,
            next_minor: 10,
        }
    }

    pub(crate) fn observe(&self) -> Observed {
        let mut observed = Observed {
            stack: "pv-1".parse().unwrap(),
            kernel: kernel(),
            x: self.x.clone().map_or(Subject::Gone, Subject::Mapped),
            era: self.era.clone(),
            base: self.base.clone(),
            origin: self.origin.clone(),
            snapshot: self.snapshot.clone(),
        };
        if let Subject::Mapped(x) = &mut observed.x {
            let live = x.device.live.iter().flat_map(Table::devices);
            let uuid = |number| self.uuid_of(number);
            x.beneath = live.map(|n| Beneath { number: *n, uuid: uuid(*n) }).collect();
            // Devices of this very stack are not another stack's.
            x.beneath.retain(|below| below.uuid.is_none());
        }
        let Observed { era, base, origin, snapshot, .. } = &mut observed;
        for device in [era, base, origin, snapshot].into_iter().flatten() {
            let users = [&self.era, &self.base, &self.origin, &self.snapshot].into_iter().flatten();
            let users = users.chain(self.x_device());
            let opens = users.filter(|user| uses(user, device.number));
            device.open_count = u32::try_from(opens.count()).unwrap();
        }
        observed
    }

    fn uuid_of(&self, number: DevNo) -> Option<DmUuid> {
        let own = [&self.era, &self.base, &self.origin, &self.snapshot].into_iter().flatten();
        own.into_iter().find(|device| device.number == number).and_then(|d| d.uuid.clone())
    }

    fn x_device(&self) -> Option<&Device> {
        self.x.as_ref().map(|volume| &volume.device)
    }

    fn x_mut(&mut self) -> &mut Device {
        &mut self.x.as_mut().expect("X is there").device
    }

    fn own(&mut self, role: Role) -> &mut Option<Device> {
        match role {
            Role::Era => &mut self.era,
            Role::Base => &mut self.base,
            Role::Origin => &mut self.origin,
            Role::Snapshot => &mut self.snapshot,
        }
    }

    /// Executes the plan until it is done, or is killed before the move with that number. True
    /// if it was finished.
    pub(crate) fn run(&mut self, plan: &Plan, killed_before: Option<usize>) -> bool {
        self.asked = Asked::Nothing;
        let mut done = true;
        for (index, step) in moves(plan).into_iter().enumerate() {
            if killed_before == Some(index) {
                done = false;
                break;
            }
            self.take(step);
        }
        assert!(!done || !self.lock, "a finished plan keeps no lock");
        self.lock = false;
        done
    }

    pub(crate) fn moves_in(plan: &Plan) -> usize {
        moves(plan).len()
    }

    fn take(&mut self, step: Move<'_>) {
        match step {
            Move::LoadX(x, expect, table) => self.load_x(x, expect, table),
            Move::SwapX => self.swap_x(),
            Move::Whole(step) => self.whole(step),
        }
    }

    fn whole(&mut self, step: &Step) {
        match step {
            Step::LockVolumeGroup { vg } => {
                assert_eq!((vg.as_str(), self.lock), ("vg-a", false));
                self.lock = true;
            }
            Step::UnlockVolumeGroup { vg: _ } => {
                assert!(self.lock, "not locked");
                self.lock = false;
            }
            Step::VerifyLive { x, table } => {
                let table = self.resolve(table);
                let device = self.x_mut();
                assert_eq!((device.number, device.live.as_ref()), (*x, Some(&table)));
                assert_eq!(device.inactive, None, "something is in the slot");
            }
            Step::ZeroMetadata { device, length } => {
                assert!(self.era.is_none(), "zeroed under an era device");
                assert_eq!((*device, *length), (metadata().number, Sectors(8)));
                self.area_zeroed = true;
            }
            Step::Create { role, name, uuid } => self.create(*role, name.clone(), uuid.clone()),
            Step::Load { role, table } => self.load(*role, table),
            Step::Activate { role } => self.activate(*role),
            Step::LimitDiscards { bytes } => {
                let era = self.era.as_mut().expect("X-era is there");
                assert!(era.live.is_some(), "no queue to set a limit on");
                era.discards.max = era.discards.max.min(*bytes);
            }
            Step::ClearSlot { x, table } => {
                self.hold_lock();
                let table = self.resolve(table);
                let device = self.x_mut();
                assert_eq!(device.number, *x);
                assert_eq!(device.inactive.take(), Some(table), "not what was to be cleared");
            }
            Step::Remove { role } => self.remove(*role),
            Step::Checkpoint => {
                assert!(self.era.as_ref().is_some_and(|era| era.live.is_some()));
                self.asked = Asked::Checkpoint;
            }
            Step::ReadEra => {
                assert_eq!(self.asked, Asked::Checkpoint, "the era has not begun");
                self.asked = Asked::Era;
            }
            Step::SwapIn { .. } | Step::Drain { .. } => unreachable!("taken in two moves"),
        }
    }

    fn hold_lock(&self) {
        let lvm = self.x_device().is_some_and(|x| x.uuid.is_some());
        assert!(self.lock || !lvm, "LVM's lock is not held");
    }

    fn load_x(&mut self, x: DevNo, expect: &PlannedTable, table: &PlannedTable) {
        self.hold_lock();
        let (expect, table) = (self.resolve(expect), self.resolve(table));
        let device = self.x_mut();
        assert_eq!((device.number, device.live.as_ref()), (x, Some(&expect)));
        assert_eq!(device.inactive, None, "a table of somebody's is overwritten");
        assert_eq!(table.length(), expect.length());
        device.inactive = Some(table);
    }

    fn swap_x(&mut self) {
        self.hold_lock();
        let before = self.through_era();
        let device = self.x_mut();
        assert!(!device.suspended && !device.read_only);
        device.live = device.inactive.take();
        if self.through_era() {
            let era = self.era.as_ref().unwrap();
            assert!(era.discards.max <= Granularity::DEFAULT.bytes(), "discards not limited");
            assert!(before || self.era_is_fresh, "era read metadata that was not zeroed");
            self.boundaries += u32::from(before && self.asked == Asked::Era);
        }
    }

    /// Whether X goes through X-era, over an X-base.
    pub(crate) fn through_era(&self) -> bool {
        let (Some(x), Some(era)) = (self.x_device(), &self.era) else { return false };
        uses_live(x, era.number) || self.through_origin()
    }

    /// Whether X goes through X-origin, and that through X-era.
    pub(crate) fn through_origin(&self) -> bool {
        let (Some(x), Some(origin)) = (self.x_device(), &self.origin) else { return false };
        let on = self.era.as_ref().is_some_and(|era| uses_live(origin, era.number));
        on && uses_live(x, origin.number)
    }

    /// What X held at the last boundary is kept for a reader.
    pub(crate) fn holds_point_in_time(&self) -> bool {
        let kept = self.snapshot.as_ref().is_some_and(|snapshot| snapshot.live.is_some());
        kept && self.through_origin()
    }

    fn create(&mut self, role: Role, name: DmName, uuid: DmUuid) {
        assert_eq!(uuid.owner(), Some(("pv-1".parse::<StackId>().unwrap(), role.into())));
        let number = number(self.next_minor);
        self.next_minor += 1;
        let discards = DiscardLimits::default();
        let made = Device {
            number,
            name,
            uuid: Some(uuid),
            live: None,
            inactive: None,
            suspended: false,
            read_only: false,
            open_count: 0,
            discards,
        };
        let before = self.own(role).replace(made);
        assert_eq!(before, None, "{role} is there already");
    }

    fn load(&mut self, role: Role, table: &PlannedTable) {
        let table = self.resolve(table);
        if role == Role::Era {
            self.era_is_fresh = std::mem::take(&mut self.area_zeroed);
        }
        let device = self.own(role).as_mut().expect("created");
        // What is shown of a point in time is cut off; nothing else gets a second table.
        assert!(device.inactive.is_none());
        assert!(device.live.is_none() || table.to_string().ends_with(" error"), "{table}");
        device.inactive = Some(table);
    }

    fn activate(&mut self, role: Role) {
        let below = match role {
            Role::Era => self.base.as_ref().map(|base| base.discards),
            Role::Base => self.x_device().map(|x| x.discards),
            Role::Snapshot if self.snapshot.as_ref().is_some_and(|it| it.live.is_some()) => None,
            Role::Snapshot => {
                assert!(self.origin.is_none(), "an origin that does not know of its snapshot");
                self.era.as_ref().map(|era| era.discards)
            }
            Role::Origin => {
                assert!(self.snapshot.as_ref().is_some_and(|snapshot| snapshot.live.is_some()));
                None
            }
        };
        let device = self.own(role).as_mut().expect("created");
        device.live = Some(device.inactive.take().expect("loaded"));
        device.discards = below.unwrap_or_default();
    }

    fn remove(&mut self, role: Role) {
        let observed = self.observe();
        let device = observed.own(role).expect("there");
        assert_eq!(device.open_count, 0, "{role} is in use");
        *self.own(role) = None;
    }

    fn resolve(&self, table: &PlannedTable) -> Table {
        let number = |device: &DeviceRef| match device {
            DeviceRef::Number(number) => Ok(*number),
            DeviceRef::Own(Role::Era) => self.era.as_ref().map(|era| era.number).ok_or("no era"),
            DeviceRef::Own(Role::Base) => {
                self.base.as_ref().map(|base| base.number).ok_or("no base")
            }
            DeviceRef::Own(Role::Origin) => {
                self.origin.as_ref().map(|origin| origin.number).ok_or("no origin")
            }
            DeviceRef::Own(Role::Snapshot) => Err("nothing maps a snapshot"),
        };
        table.try_map(number).expect("a table names only what is there")
    }

    /// What LVM does to X: its own table, another or the same, loaded and made live.
    pub(crate) fn lvm_reloads(&mut self, table: &str) {
        let device = self.x_mut();
        device.live = Some(table.parse().unwrap());
        device.inactive = None;
    }

    pub(crate) fn x_live(&self) -> Option<String> {
        self.x_device().and_then(|x| x.live.as_ref()).map(ToString::to_string)
    }

    /// Neither device of ours is left, and X is as LVM made it.
    pub(crate) fn is_untouched(&self, table: &str) -> bool {
        let left = [&self.era, &self.base, &self.origin, &self.snapshot];
        let clean = left.into_iter().all(Option::is_none);
        let slot = self.x_device().is_none_or(|x| x.inactive.is_none());
        clean && slot && self.x_live().is_none_or(|live| live == table)
    }

    /// X goes through X-era over its own old table, and nothing waits in its slot.
    pub(crate) fn is_tracked(&self, table: &str) -> bool {
        let base = self.base.as_ref().and_then(|base| base.live.as_ref());
        let slot = self.x_device().is_some_and(|x| x.inactive.is_none());
        self.through_era() && slot && base.is_some_and(|base| base.to_string() == table)
    }
}

fn uses(device: &Device, number: DevNo) -> bool {
    let tables = [&device.live, &device.inactive].into_iter().flatten();
    tables.into_iter().any(|table| table.devices().any(|below| *below == number))
}

fn uses_live(device: &Device, number: DevNo) -> bool {
    device.live.as_ref().is_some_and(|table| table.devices().any(|below| *below == number))
}
