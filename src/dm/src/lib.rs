//! One machine: the device-mapper port, the machine's files, and [`Host`], which attaches,
//! measures and detaches stacks as `eratrack-model` plans them.

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod era_status;
pub mod executor;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
mod file_lock;
pub mod hold;
mod host;
mod links;
pub mod linux;
pub mod lvm_lock;
mod lvm_tool;
pub mod machine;
pub mod pool;
mod port;
mod stack_lock;
pub mod store;

pub use era_status::EraStatus;
pub use host::*;
pub use lvm_tool::LvmError;
pub use port::*;
pub use stack_lock::{StackLockError, lock_directory};
