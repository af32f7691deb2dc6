//! The device-mapper port: eleven verbs, none of which suspends.
//!
//! A device changes its table by [`DeviceMapper::load`] followed by [`DeviceMapper::swap`].
//! `swap` is one `DM_DEV_SUSPEND` ioctl without the suspend flag: on an active device with a
//! table in its inactive slot the kernel drains, swaps and resumes inside that one call
//! (`do_resume` in drivers/md/dm-ioctl.c). What cannot be said cannot be left behind: that is
//! how invariant I3 is held.

use std::fmt;

use eratrack_model::names::{DmName, DmUuid};
use eratrack_model::table::Table;
use eratrack_model::units::DevNo;

/// One kernel's device mapper, real or in memory. Implementations are compared by
/// [`crate::conformance`].
pub trait DeviceMapper: Send + Sync {
    /// Makes a device with no table. Name and uuid must both be free.
    fn create(&self, name: &DmName, uuid: &DmUuid) -> Result<DevNo, DmError>;

    /// Puts a table into the inactive slot, replacing what was there. The live table is
    /// untouched until [`DeviceMapper::swap`].
    fn load(&self, dev: DevNo, table: &Table, access: Access) -> Result<(), DmError>;

    /// Makes the inactive table the live one, in one call that drains what is in flight and
    /// never freezes a filesystem (skip-lockfs). With an empty inactive slot it resumes. What does
    /// not end before a deadline ends the call with [`DmErrorKind::Deadline`]: the old table stays.
    fn swap(&self, dev: DevNo) -> Result<(), DmError>;

    /// Empties the inactive slot; an empty slot stays empty.
    fn clear(&self, dev: DevNo) -> Result<(), DmError>;

    /// Removes a device nobody has open.
    fn remove(&self, dev: DevNo) -> Result<(), DmError>;

    /// What the kernel says of a device, without touching its target: cheap, never blocks.
    fn info(&self, of: &Lookup) -> Result<Info, DmError>;

    /// The table in one of the two slots; `None` when that slot is empty.
    fn table(&self, dev: DevNo, slot: Slot) -> Result<Option<Table>, DmError>;

    /// The status line of each segment. Refused with [`DmErrorKind::Suspended`] on a suspended
    /// device: an era target would block in the kernel for ever.
    fn status(&self, dev: DevNo) -> Result<Vec<StatusLine>, DmError>;

    /// Sends a message to the target at sector 0. Refused on a suspended device, as `status`.
    fn message(&self, dev: DevNo, text: &str) -> Result<(), DmError>;

    /// Whether the kernel has a target of that name, or can load its module now.
    fn has_target(&self, name: &str) -> Result<bool, DmError>;

    /// Every device-mapper device there is.
    fn list(&self) -> Result<Vec<Listed>, DmError>;
}

/// Which of a device's two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The one that I/O goes through.
    Live,
    /// The one a swap would make live.
    Inactive,
}

/// How a table may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads and writes.
    ReadWrite,
    /// Reads alone.
    ReadOnly,
}

/// The three ways to name a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// By number.
    Number(DevNo),
    /// By device-mapper name.
    Name(DmName),
    /// By device-mapper uuid.
    Uuid(DmUuid),
}

impl From<DevNo> for Lookup {
    fn from(number: DevNo) -> Self {
        Self::Number(number)
    }
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => write!(f, "{name}"),
            Self::Uuid(uuid) => write!(f, "uuid {uuid}"),
        }
    }
}

/// A device as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its number.
    pub number: DevNo,
    /// Its name, which LVM may change.
    pub name: DmName,
    /// Its uuid; devices made by hand may have none.
    pub uuid: Option<DmUuid>,
    /// I/O is held back.
    pub suspended: bool,
    /// There is a live table.
    pub live: bool,
    /// There is a table in the inactive slot.
    pub inactive: bool,
    /// How the live table may be used.
    pub access: Access,
    /// Mounts, openers and devices above it.
    pub open_count: u32,
}

/// A device as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its number.
    pub number: DevNo,
    /// Its name.
    pub name: DmName,
}

/// One segment's status, word for word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusLine {
    /// The target's name: `era`, `linear`, …
    pub target: String,
    /// What the target reports.
    pub text: String,
}

/// A verb that did not succeed, with the device it was about.
#[derive(Debug, thiserror::Error)]
#[error("device mapper {verb} {device}: {kind}{}", detail(.context))]
pub struct DmError {
    /// What went wrong, for decisions.
    pub kind: DmErrorKind,
    /// The verb, as in [`DeviceMapper`].
    pub verb: &'static str,
    /// The device as the caller named it.
    pub device: String,
    /// The value or table concerned; may be empty.
    pub context: String,
    /// What the kernel or the library said.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

fn detail(context: &str) -> String {
    if context.is_empty() { String::new() } else { format!(" ({context})") }
}

/// Why a verb did not succeed. Small and stable: callers match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmErrorKind {
    /// ENXIO: no device of that number, name or uuid.
    NotFound,
    /// EBUSY: open, frozen by somebody else, or a name or uuid that is taken.
    Busy,
    /// EINVAL: the target refused its parameters, or the verb does not apply now.
    Invalid,
    /// ENOENT and the like: a device that the table refers to is not there.
    MissingDependency,
    /// A status or message would block on this suspended device.
    Suspended,
    /// What is in flight on the device did not end before the deadline; nothing was changed.
    Deadline,
    /// EPERM or EACCES: not root, or no access to the control node.
    Denied,
    /// What the kernel returned does not parse.
    Unreadable,
    /// Any other errno.
    Errno(i32),
}

impl fmt::Display for DmErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no such device"),
            Self::Busy => f.write_str("busy"),
            Self::Invalid => f.write_str("refused as invalid; the kernel log says why"),
            Self::MissingDependency => f.write_str("a device in the table does not exist"),
            Self::Suspended => f.write_str("the device is suspended"),
            Self::Deadline => f.write_str("what is in flight did not end before the deadline"),
            Self::Denied => f.write_str("permission denied; root is needed"),
            Self::Unreadable => f.write_str("the kernel's answer cannot be read"),
            Self::Errno(errno) => write!(f, "errno {errno}"),
        }
    }
}

impl DmError {
    /// An error with no context and no source.
    pub fn new(kind: DmErrorKind, verb: &'static str, device: impl fmt::Display) -> Self {
        Self { kind, verb, device: device.to_string(), context: String::new(), source: None }
    }

    /// The same with the value or table it was about.
    #[must_use]
    pub fn with_context(mut self, context: impl fmt::Display) -> Self {
        self.context = context.to_string();
        self
    }

    /// The same with what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// There is no such device.
    pub fn is_not_found(&self) -> bool {
        self.kind == DmErrorKind::NotFound
    }
}
