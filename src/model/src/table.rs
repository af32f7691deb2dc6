//! Device-mapper tables as typed values; `parse` and `Display` are inverse.

use crate::units::{DevNo, Sectors};

/// A whole table: its segments, in order and without gaps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Table(pub Vec<Segment>);

/// One line of a table: `<start> <length> <target> <parameters>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Segment {
    /// Where it starts in the device.
    pub start: Sectors,
    /// How long it is.
    pub length: Sectors,
    /// What it maps to.
    pub target: Target,
}

/// The targets that eratrack builds or looks into; everything else stays `Other`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// `linear <device> <offset>` (dm-linear.c).
    Linear {
        /// The device beneath.
        device: DevNo,
        /// Where the segment starts in it.
        offset: Sectors,
    },
    /// `thin <pool> <id>`, with an optional external origin (dm-thin.c).
    Thin {
        /// The thin pool's device.
        pool: DevNo,
        /// The thin device's id in the pool.
        id: u32,
        /// An external origin, if it has one.
        origin: Option<DevNo>,
    },
    /// `era <metadata> <origin> <granularity>` (dm-era-target.c).
    Era {
        /// Where dm-era keeps its metadata.
        metadata: DevNo,
        /// The device it tracks.
        origin: DevNo,
        /// Sectors a block.
        granularity: Sectors,
    },
    /// Any other target, kept word for word.
    Other {
        /// The target's name.
        kind: String,
        /// Its parameters, as the kernel prints them.
        params: String,
    },
}
