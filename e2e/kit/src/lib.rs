//! What kernel tests share. They run as root inside a guest: everything here makes devices,
//! volume groups and mounts on the machine it runs on, and refuses to on any other.

mod command;
mod content;
mod disk;
mod guest;
mod lvm;
mod mount;
mod wait;
mod writer;

pub use command::{CommandError, run, run_with};
pub use content::{Content, differing_blocks};
pub use disk::{Backing, Disk, ScsiDebug};
pub use guest::{Dir, metadata_dir, setup, unique};
pub use lvm::{Volume, VolumeGroup};
pub use mount::Mount;
pub use wait::wait_for;
pub use writer::{Promised, Verified, Writer};
