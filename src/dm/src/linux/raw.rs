//! The device-mapper calls that are one header and no payload, by device number.
//!
//! The `devicemapper` crate cannot say these: it names devices by name or uuid alone, and its
//! resume and remove either wait without a deadline for a udev that may never answer, or, where
//! it sees no udev (in a container), drop the udev flags altogether. Then the host's udev
//! would probe X-base and point `/dev/disk/by-uuid` at it. So these pass the flags and wait for
//! nobody, as `dmsetup --noudevsync` does.
#![allow(unsafe_code, reason = "ioctls that no crate wraps; each block says why it is sound")]

use std::os::fd::AsFd;

use devicemapper::{DmFlags, DmUdevFlags};
use eratrack_model::names::{DmName, DmUuid};
use eratrack_model::units::DevNo;
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Setter, Updater, ioctl, opcode};

/// `struct dm_ioctl` (include/uapi/linux/dm-ioctl.h).
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Header {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
}

/// The kernel copies `data_size` bytes in and out: the header must be exactly its size.
const HEADER_SIZE: u32 = 312;
const _: () = assert!(size_of::<Header>() == HEADER_SIZE as usize);

/// include/uapi/linux/fs.h
const BLKROSET: Opcode = opcode::none(0x12, 93);

/// Makes a block device read-only.
pub(super) fn forbid_writes(device: impl AsFd) -> std::io::Result<()> {
    // SAFETY: BLKROSET reads one `int` (`blkdev_roset`, block/ioctl.c).
    unsafe { ioctl(device, Setter::<BLKROSET, std::ffi::c_int>::new(1)) }?;
    Ok(())
}

/// The lowest interface version that has all of these calls.
const VERSION: [u32; 3] = [4, 0, 0];

const fn dm_opcode(number: u8) -> Opcode {
    opcode::read_write::<Header>(0xfd, number)
}

/// The calls, with their numbers in dm-ioctl.h.
#[derive(Clone, Copy)]
pub(super) enum Call {
    Remove,
    Suspend,
    Resume,
    Status,
    ClearTable,
    TargetVersion,
}

impl Header {
    fn empty() -> Self {
        Self {
            version: VERSION,
            data_size: HEADER_SIZE,
            data_start: HEADER_SIZE,
            target_count: 0,
            open_count: 0,
            flags: 0,
            event_nr: 0,
            padding: 0,
            dev: 0,
            name: [0; 128],
            uuid: [0; 129],
            data: [0; 7],
        }
    }

    pub(super) fn of_number(dev: DevNo) -> Self {
        Self { dev: encode(dev), ..Self::empty() }
    }

    pub(super) fn of_name(name: &DmName) -> Self {
        let mut header = Self::empty();
        copy_string(&mut header.name, name.as_str());
        header
    }

    pub(super) fn of_uuid(uuid: &DmUuid) -> Self {
        let mut header = Self::empty();
        copy_string(&mut header.uuid, uuid.as_str());
        header
    }

    pub(super) fn with_flags(mut self, flags: DmFlags) -> Self {
        self.flags = flags.bits();
        self
    }

    /// udev's instructions travel in the upper half of `event_nr`; the lower half, a semaphore
    /// to answer on, stays zero.
    pub(super) fn with_udev(mut self, flags: DmUdevFlags) -> Self {
        self.event_nr = flags.bits() << 16;
        self
    }

    pub(super) fn number(&self) -> DevNo {
        decode(self.dev)
    }

    pub(super) fn name(&self) -> String {
        read_string(&self.name)
    }

    pub(super) fn uuid(&self) -> String {
        read_string(&self.uuid)
    }

    pub(super) fn flags(&self) -> DmFlags {
        DmFlags::from_bits_truncate(self.flags)
    }

    pub(super) fn open_count(&self) -> u32 {
        u32::try_from(self.open_count).unwrap_or(0)
    }
}

/// Makes one call; the header comes back as the kernel left it.
pub(super) fn call(control: impl AsFd, call: Call, mut header: Header) -> Result<Header, Errno> {
    // SAFETY, for all five: the opcode carries the size of `Header`, which is the kernel's
    // `struct dm_ioctl` (asserted above); the kernel reads and writes `data_size` bytes, set to
    // that same size, of a value that lives until the call has returned.
    unsafe {
        match call {
            Call::Remove => {
                ioctl(control, Updater::<{ dm_opcode(4) }, Header>::new(&mut header))?;
            }
            Call::Suspend | Call::Resume => {
                ioctl(control, Updater::<{ dm_opcode(6) }, Header>::new(&mut header))?;
            }
            Call::Status => {
                ioctl(control, Updater::<{ dm_opcode(7) }, Header>::new(&mut header))?;
            }
            Call::ClearTable => {
                ioctl(control, Updater::<{ dm_opcode(10) }, Header>::new(&mut header))?;
            }
            Call::TargetVersion => {
                ioctl(control, Updater::<{ dm_opcode(17) }, Header>::new(&mut header))?;
            }
        }
    }
    Ok(header)
}

/// `struct dm_target_msg` (include/uapi/linux/dm-ioctl.h) behind its header.
#[repr(C)]
struct Message {
    header: Header,
    sector: u64,
    text: [u8; 16],
}

const MESSAGE_SIZE: u32 = HEADER_SIZE + 24;
const _: () = assert!(size_of::<Message>() == MESSAGE_SIZE as usize);

/// Has an era device begin a new era, with nothing allocated here.
pub(super) fn checkpoint(control: impl AsFd, dev: DevNo) -> Result<(), Errno> {
    let header = Header { data_size: MESSAGE_SIZE, ..Header::of_number(dev) };
    let mut message = Message { header, sector: 0, text: *b"checkpoint\0\0\0\0\0\0" };
    // SAFETY: as for `call`: the opcode carries the size of `Header`, with which the value begins; the kernel reads and
    // writes `data_size` bytes, which is the size of the whole.
    unsafe { ioctl(control, Updater::<{ dm_opcode(14) }, Message>::new(&mut message)) }?;
    Ok(())
}

/// `huge_encode_dev` (`include/linux/kdev_t.h`).
pub(super) fn encode(dev: DevNo) -> u64 {
    let (major, minor) = (u64::from(dev.major), u64::from(dev.minor));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// `huge_decode_dev` (`include/linux/kdev_t.h`).
pub(super) fn decode(encoded: u64) -> DevNo {
    let minor = (encoded & 0xff) | ((encoded >> 12) & 0xf_ff00);
    let major = (encoded & 0xf_ff00) >> 8;
    DevNo {
        major: u32::try_from(major).unwrap_or(u32::MAX),
        minor: u32::try_from(minor).unwrap_or(u32::MAX),
    }
}

/// Names and uuids are shorter than their fields (`NAME_MAX`, `UUID_MAX`), which leaves the
/// terminating zero.
fn copy_string(into: &mut [u8], text: &str) {
    into[..text.len()].copy_from_slice(text.as_bytes());
}

fn read_string(from: &[u8]) -> String {
    let end = from.iter().position(|&byte| byte == 0).unwrap_or(from.len());
    String::from_utf8_lossy(&from[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_the_kernels_encoding() {
        for dev in [(253, 0), (7, 255), (7, 256), (259, 1_048_575), (4095, 65_537)] {
            let dev = DevNo { major: dev.0, minor: dev.1 };
            assert_eq!(decode(encode(dev)), dev);
        }
    }

    #[test]
    fn the_longest_name_and_uuid_read_back() {
        let (name, uuid) = ("n".repeat(127), "u".repeat(128));
        assert_eq!(Header::of_name(&name.parse().unwrap()).name(), name);
        assert_eq!(Header::of_uuid(&uuid.parse().unwrap()).uuid(), uuid);
    }
}
