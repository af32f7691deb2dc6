//! One machine: the device-mapper port, the machine's files, and [`Host`], which attaches,
//! measures and detaches stacks as `eratrack-model` plans them.

pub mod linux;
mod port;

pub use port::*;
