//! The real kernel: ioctls, loop devices, device nodes.

mod deadline;
mod helper;
mod loops;
mod nodes;
mod raw;
mod secrets;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use devicemapper::{DM, DevId, Device, DmFlags, DmOptions, DmUdevFlags};
use eratrack_model::names::{DmName, DmUuid, Mapping, Part};
use eratrack_model::table::Table;
use eratrack_model::units::DevNo;
use rustix::io::Errno;

pub use helper::{HelperProcess, Watcher, serve};
pub use loops::{LoopError, Loops};
pub use nodes::Nodes;

use crate::port::{
    Access, DeviceMapper, DmError, DmErrorKind, Info, Listed, Lookup, Slot, StatusLine,
};
use raw::{Call, Header};

/// The control node's number: `MISC_MAJOR` and `MAPPER_CTRL_MINOR` (linux/miscdevice.h).
const CONTROL: DevNo = DevNo { major: 10, minor: 236 };
/// Where the `devicemapper` crate looks for it.
const CONTROL_PATH: &str = "/dev/mapper/control";
/// How often a call is made again that a signal interrupted.
const INTERRUPTED_TRIES: u32 = 16;
/// How often, and how long between, a removal is tried while somebody just looks at the device.
const REMOVE_TRIES: u32 = 25;
const REMOVE_PAUSE: Duration = Duration::from_millis(40);

/// How long a swap may wait for what is in flight. Meanwhile the device takes no new I/O and LVM
/// none of its commands, among them those that would make room in a full thin pool.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);

/// The kernel's device mapper.
pub struct Kernel {
    control: File,
    library: DM,
    drain_deadline: Duration,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kernel")
    }
}

impl Kernel {
    /// Opens the control node, which is made where it is not there.
    pub fn open() -> Result<Self, DmError> {
        let denied =
            |e: io::Error| DmError::new(DmErrorKind::Denied, "open", CONTROL_PATH).with_source(e);
        nodes::ensure_control(Path::new(CONTROL_PATH), CONTROL).map_err(denied)?;
        let control = File::open(CONTROL_PATH).map_err(denied)?;
        let library = DM::new().map_err(|e| from_library("open", CONTROL_PATH, e))?;
        Ok(Self { control, library, drain_deadline: DRAIN_DEADLINE })
    }

    /// The same with another deadline for what a swap waits for.
    #[must_use]
    pub fn with_drain_deadline(self, drain_deadline: Duration) -> Self {
        Self { drain_deadline, ..self }
    }

    fn header(
        &self,
        verb: &'static str,
        call: Call,
        of: &Lookup,
        flags: DmFlags,
    ) -> Result<Header, DmError> {
        self.header_udev(verb, call, of, flags, DmUdevFlags::empty(), &AtomicBool::new(false))
    }

    fn header_udev(
        &self,
        verb: &'static str,
        call: Call,
        of: &Lookup,
        flags: DmFlags,
        udev: DmUdevFlags,
        over: &AtomicBool,
    ) -> Result<Header, DmError> {
        let header = match of {
            Lookup::Number(number) => Header::of_number(*number),
            Lookup::Name(name) => Header::of_name(name),
            Lookup::Uuid(uuid) => Header::of_uuid(uuid),
        };
        let header = header.with_flags(flags).with_udev(udev);
        let mut tries = 0;
        loop {
            match raw::call(&self.control, call, header) {
                Err(Errno::INTR) if tries < INTERRUPTED_TRIES && !over.load(Ordering::Relaxed) => {
                    tries += 1;
                }
                result => return result.map_err(|e| from_errno(verb, of, e)),
            }
        }
    }

    /// Whether udev may look into a device: not into ours, but for one that people use by name.
    fn udev_flags(&self, dev: DevNo) -> Result<DmUdevFlags, DmError> {
        let uuid = self.info(&dev.into())?.uuid.filter(DmUuid::is_ours);
        let part = uuid.as_ref().map(|uuid| uuid.owner().map(|(_, part)| part));
        Ok(match part {
            None | Some(Some(Part::Mapping(Mapping::Top))) => DmUdevFlags::empty(),
            Some(_) => private(),
        })
    }

    /// The crate names devices by name or uuid. A uuid never changes; the caller compares the
    /// number in the answer all the same.
    fn with_id<T>(
        &self,
        verb: &'static str,
        dev: DevNo,
        act: impl FnOnce(&DevId<'_>) -> Result<(devicemapper::DeviceInfo, T), devicemapper::DmError>,
    ) -> Result<T, DmError> {
        let info = self.info(&dev.into())?;
        let result = match &info.uuid {
            Some(uuid) => devicemapper::DmUuid::new(uuid.as_str()).map(DevId::Uuid),
            None => devicemapper::DmName::new(info.name.as_str()).map(DevId::Name),
        };
        let id = result.map_err(|e| from_library(verb, dev, e))?;
        let (answer, value) = act(&id).map_err(|e| from_library(verb, dev, e))?;
        if number(answer.device()) == dev {
            Ok(value)
        } else {
            Err(DmError::new(DmErrorKind::NotFound, verb, dev)
                .with_context(format!("{id} is now {}", number(answer.device()))))
        }
    }

    fn refuse_suspended(&self, verb: &'static str, dev: DevNo) -> Result<(), DmError> {
        if self.info(&dev.into())?.suspended {
            return Err(DmError::new(DmErrorKind::Suspended, verb, dev));
        }
        Ok(())
    }

    fn lines(&self, verb: &'static str, dev: DevNo, flags: DmFlags) -> Result<Lines, DmError> {
        let options = DmOptions::default().set_flags(flags);
        self.with_id(verb, dev, |id| {
            self.library
                .table_status(id, options)
                .map(|(info, lines)| (info.clone(), (info, lines)))
        })
    }
}

type Lines = (devicemapper::DeviceInfo, Vec<(u64, u64, String, String)>);

/// What udev is told of our own devices: no probing, no links, no rules of others. The flag
/// of a primary source makes udev keep these in its database for every later event.
fn private() -> DmUdevFlags {
    DmOptions::private().udev_flags()
        | DmUdevFlags::DM_UDEV_DISABLE_LIBRARY_FALLBACK
        | DmUdevFlags::DM_UDEV_PRIMARY_SOURCE_FLAG
}

impl DeviceMapper for Kernel {
    fn create(&self, name: &DmName, uuid: &DmUuid) -> Result<DevNo, DmError> {
        const VERB: &str = "create";
        let wrong = |e| from_library(VERB, name, e);
        let dm_name = devicemapper::DmName::new(name.as_str()).map_err(wrong)?;
        let dm_uuid = devicemapper::DmUuid::new(uuid.as_str()).map_err(wrong)?;
        let info = self
            .library
            .device_create(dm_name, Some(dm_uuid), DmOptions::default())
            .map_err(wrong)?;
        Ok(number(info.device()))
    }

    fn load(&self, dev: DevNo, table: &Table, access: Access) -> Result<(), DmError> {
        self.info(&dev.into())?;
        let lines: Vec<_> = table.segments().iter().map(raw_segment).collect();
        let flags = match access {
            Access::ReadWrite => DmFlags::empty(),
            Access::ReadOnly => DmFlags::DM_READONLY,
        };
        let options = DmOptions::default().set_flags(flags);
        self.with_id("load", dev, |id| {
            self.library.table_load(id, &lines, options).map(|info| (info, ()))
        })
        .map_err(|e| {
            // The device was there a moment ago: what is not found is in the table.
            let kind = if e.is_not_found() { DmErrorKind::MissingDependency } else { e.kind };
            DmError { kind, ..e }.with_context(table)
        })
    }

    fn swap(&self, dev: DevNo) -> Result<(), DmError> {
        let of = Lookup::from(dev);
        let udev = self.udev_flags(dev)?;
        let resume = |verb, over: &AtomicBool| {
            let flags = DmFlags::DM_SKIP_LOCKFS;
            self.header_udev(verb, Call::Resume, &of, flags, udev, over)
        };
        let (result, over) = deadline::within(self.drain_deadline, |over| resume("swap", over));
        let Err(failed) = result else { return Ok(()) };
        // A table that the kernel refuses after the drain leaves the device suspended with its
        // old table (`do_resume`, drivers/md/dm-ioctl.c): resume that at once.
        let left = self.info(&of)?;
        if left.suspended && left.live && !left.inactive {
            resume("resume", &AtomicBool::new(false))?;
        }
        // Kernels that do not tell that the wait was interrupted say that the table cannot be
        // swapped (EINVAL).
        Err(if over { DmError { kind: DmErrorKind::Deadline, ..failed } } else { failed })
    }

    fn clear(&self, dev: DevNo) -> Result<(), DmError> {
        self.header("clear", Call::ClearTable, &dev.into(), DmFlags::empty()).map(drop)
    }

    fn remove(&self, dev: DevNo) -> Result<(), DmError> {
        let udev = self.udev_flags(dev)?;
        let never = AtomicBool::new(false);
        let mut tries = 0;
        loop {
            let result = self.header_udev(
                "remove",
                Call::Remove,
                &dev.into(),
                DmFlags::empty(),
                udev,
                &never,
            );
            match result {
                // A prober of the machine's may have it open for a moment; there is nothing
                // to wait on that says when it closes.
                Err(e) if e.kind == DmErrorKind::Busy && tries < REMOVE_TRIES => {
                    tries += 1;
                    std::thread::sleep(REMOVE_PAUSE);
                }
                result => return result.map(drop),
            }
        }
    }

    fn info(&self, of: &Lookup) -> Result<Info, DmError> {
        let header = self.header("info", Call::Status, of, DmFlags::empty())?;
        let flags = header.flags();
        let unreadable = |e| DmError::new(DmErrorKind::Unreadable, "info", of).with_source(e);
        let uuid = header.uuid();
        Ok(Info {
            number: header.number(),
            name: header.name().parse().map_err(unreadable)?,
            uuid: if uuid.is_empty() { None } else { Some(uuid.parse().map_err(unreadable)?) },
            suspended: flags.contains(DmFlags::DM_SUSPEND),
            live: flags.contains(DmFlags::DM_ACTIVE_PRESENT),
            inactive: flags.contains(DmFlags::DM_INACTIVE_PRESENT),
            access: if flags.contains(DmFlags::DM_READONLY) {
                Access::ReadOnly
            } else {
                Access::ReadWrite
            },
            open_count: header.open_count(),
        })
    }

    fn table(&self, dev: DevNo, slot: Slot) -> Result<Option<Table>, DmError> {
        let flags = match slot {
            Slot::Live => DmFlags::DM_STATUS_TABLE,
            Slot::Inactive => DmFlags::DM_STATUS_TABLE | DmFlags::DM_QUERY_INACTIVE_TABLE,
        };
        let (_, lines) = self.lines("table", dev, flags)?;
        if lines.is_empty() {
            return Ok(None);
        }
        let text: Vec<_> = lines
            .iter()
            .map(|(start, len, kind, params)| {
                format!("{start} {len} {kind} {}", secrets::hide(kind, params))
            })
            .collect();
        let text = text.join("\n");
        text.trim_end().parse().map(Some).map_err(|e| {
            DmError::new(DmErrorKind::Unreadable, "table", dev).with_context(&text).with_source(e)
        })
    }

    fn status(&self, dev: DevNo) -> Result<Vec<StatusLine>, DmError> {
        self.refuse_suspended("status", dev)?;
        let (_, lines) = self.lines("status", dev, DmFlags::DM_NOFLUSH)?;
        Ok(lines.into_iter().map(|(_, _, target, text)| StatusLine { target, text }).collect())
    }

    fn message(&self, dev: DevNo, text: &str) -> Result<(), DmError> {
        self.refuse_suspended("message", dev)?;
        self.with_id("message", dev, |id| {
            self.library.target_msg(id, None, text).map(|(info, _)| (info, ()))
        })
        .map_err(|e| e.with_context(text))
    }

    fn has_target(&self, name: &str) -> Result<bool, DmError> {
        // The answer does not fit into the header, which the kernel says with a flag; a target
        // that is not there, and whose module cannot be loaded, is EINVAL.
        let unreadable =
            |e| DmError::new(DmErrorKind::Unreadable, "has_target", name).with_source(e);
        let of = Lookup::Name(name.parse().map_err(unreadable)?);
        match self.header("has_target", Call::TargetVersion, &of, DmFlags::empty()) {
            Ok(_) => Ok(true),
            Err(e) if e.kind == DmErrorKind::Invalid => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn list(&self) -> Result<Vec<Listed>, DmError> {
        let devices = self.library.list_devices().map_err(|e| from_library("list", "all", e))?;
        let listed = devices.into_iter().filter_map(|(name, device, _)| {
            // A name that does not read is none that we gave.
            Some(Listed { number: number(device), name: name.to_string().parse().ok()? })
        });
        Ok(listed.collect())
    }
}

fn raw_segment(segment: &eratrack_model::table::Segment) -> (u64, u64, String, String) {
    let (start, length) = (segment.start.0, segment.length.0);
    (start, length, segment.target.kind().to_owned(), segment.target.params())
}

fn number(device: Device) -> DevNo {
    DevNo { major: device.major, minor: device.minor }
}

fn from_errno(verb: &'static str, device: impl std::fmt::Display, errno: Errno) -> DmError {
    let kind = kind_of(errno.raw_os_error());
    DmError::new(kind, verb, device).with_source(io::Error::from(errno))
}

fn from_library(
    verb: &'static str,
    device: impl std::fmt::Display,
    error: devicemapper::DmError,
) -> DmError {
    let kind = match &error {
        devicemapper::DmError::Core(devicemapper::errors::Error::Ioctl(_, _, _, errno)) => {
            kind_of(**errno as i32)
        }
        devicemapper::DmError::Core(devicemapper::errors::Error::ContextInit(_)) => {
            DmErrorKind::Denied
        }
        _ => DmErrorKind::Unreadable,
    };
    DmError::new(kind, verb, device).with_source(error)
}

fn kind_of(errno: i32) -> DmErrorKind {
    match Errno::from_raw_os_error(errno) {
        Errno::NXIO => DmErrorKind::NotFound,
        Errno::BUSY => DmErrorKind::Busy,
        Errno::INVAL => DmErrorKind::Invalid,
        Errno::NOENT | Errno::NODEV => DmErrorKind::MissingDependency,
        Errno::PERM | Errno::ACCESS => DmErrorKind::Denied,
        other => DmErrorKind::Errno(other.raw_os_error()),
    }
}
