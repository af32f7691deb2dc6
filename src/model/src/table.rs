//! Device-mapper tables as typed values; `parse` and `Display` are inverse.
//!
//! The text is the kernel's own (`DM_TABLE_STATUS` with `DM_STATUS_TABLE_FLAG`): one segment a
//! line, `<start> <length> <target> <parameters>`, in sectors, devices as `major:minor`.

mod parse;
mod thin;

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::thin::SNAPSHOT_MERGE;
use crate::units::{DevNo, Sectors};

/// A whole table: its segments, at least one, in order from sector 0 and without gaps.
///
/// `D` is how a device is named: by number in every table of the kernel's, by
/// [`DeviceRef`](crate::plan::DeviceRef) in a plan, where some devices do not exist yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[serde(bound(
    serialize = "Self: Clone + Into<String>",
    deserialize = "Self: TryFrom<String, Error = TableError>"
))]
pub struct Table<D = DevNo>(Vec<Segment<D>>);

/// One line of a table: `<start> <length> <target> <parameters>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Segment<D = DevNo> {
    /// Where it starts in the device.
    pub start: Sectors,
    /// How long it is.
    pub length: Sectors,
    /// What it maps to.
    pub target: Target<D>,
}

/// The targets that eratrack builds or looks into; everything else stays `Other`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target<D = DevNo> {
    /// `linear <device> <offset>` (dm-linear.c).
    Linear {
        /// The device beneath.
        device: D,
        /// Where the segment starts in it.
        offset: Sectors,
    },
    /// `striped <count> <chunk> [<device> <offset>]…` (dm-stripe.c).
    Striped {
        /// Sectors in a row on one stripe.
        chunk: Sectors,
        /// The stripes; their count is printed first.
        stripes: Vec<Place<D>>,
    },
    /// `thin <pool> <id> [<external origin>]` (dm-thin.c). Sector 0 of the segment is sector 0
    /// of the thin device, wherever the segment starts: it takes no offset.
    Thin {
        /// The thin pool's device.
        pool: D,
        /// The thin device's id in the pool.
        id: u32,
        /// An external origin, if it has one.
        origin: Option<D>,
    },
    /// `era <metadata> <origin> <granularity>` (dm-era-target.c).
    Era {
        /// Where dm-era keeps its metadata.
        metadata: D,
        /// The device it tracks.
        origin: D,
        /// Sectors a block.
        granularity: Sectors,
    },
    /// `switch <count> <region size> 0 [<device> <offset>]…` (dm-switch.c), without a region
    /// table of its own: all I/O takes the first path (docs/design/0002-thin-tail.md).
    Switch {
        /// Sectors a region.
        region: Sectors,
        /// The paths; their count is printed first.
        paths: Vec<Place<D>>,
    },
    /// `snapshot-origin <device>` (dm-snap.c): a volume that has snapshots.
    SnapshotOrigin {
        /// The device whose old contents the snapshots keep.
        origin: D,
    },
    /// `snapshot <origin> <store> N <chunk>` (dm-snap.c): the origin as it was when writes to it
    /// began to go through `snapshot-origin`. `N`: which chunks the store has is known to the kernel
    /// alone, and gone with the device. Those of LVM's (`P`) stay `Other`.
    Snapshot {
        /// The device whose old contents it shows.
        origin: D,
        /// Where old contents go before they are overwritten.
        store: D,
        /// Sectors a chunk.
        chunk: Sectors,
    },
    /// Any other target, kept word for word.
    Other {
        /// The target's name.
        kind: String,
        /// Its parameters, as the kernel prints them.
        params: String,
    },
}

/// A device and where in it a stripe or a path starts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place<D = DevNo> {
    /// The device beneath.
    pub device: D,
    /// Where it starts in that device.
    pub offset: Sectors,
}

/// Why segments are no table.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TableError {
    /// No segment at all.
    #[error("a table needs at least one segment")]
    Empty,
    /// A segment that maps nothing.
    #[error("segment {index} at sector {start} has no length")]
    NoLength {
        /// Which segment, from 0.
        index: usize,
        /// Where it starts.
        start: Sectors,
    },
    /// A gap or an overlap.
    #[error("segment {index} starts at sector {found}, expected {expected}")]
    NotContiguous {
        /// Which segment, from 0.
        index: usize,
        /// Where it starts.
        found: Sectors,
        /// Where the one before it ends.
        expected: Sectors,
    },
    /// Start and length add up to more than 64 bits.
    #[error("segment {index} ends beyond what 64 bits can count")]
    TooLong {
        /// Which segment, from 0.
        index: usize,
    },
    /// A line that is not `<start> <length> <target> …`.
    #[error("table line {line:?} is not <start> <length> <target> <parameters>")]
    Line {
        /// The line.
        line: String,
    },
}

impl<D> Table<D> {
    /// Checks that the segments follow each other from sector 0.
    pub fn new(segments: Vec<Segment<D>>) -> Result<Self, TableError> {
        let mut expected = Sectors(0);
        for (index, segment) in segments.iter().enumerate() {
            expected = end_of(index, segment, expected)?;
        }
        if segments.is_empty() { Err(TableError::Empty) } else { Ok(Self(segments)) }
    }

    /// A table of one segment.
    pub fn single(length: Sectors, target: Target<D>) -> Result<Self, TableError> {
        Self::new(vec![Segment { start: Sectors(0), length, target }])
    }

    /// Targets one after the other; parts without length are left out.
    pub(crate) fn in_sequence(parts: impl IntoIterator<Item = (Sectors, Target<D>)>) -> Self {
        let mut start = Sectors(0);
        let parts = parts.into_iter().filter(|(length, _)| *length > Sectors(0));
        let segments = parts.map(|(length, target)| {
            let segment = Segment { start, length, target };
            start = Sectors(start.0 + length.0);
            segment
        });
        Self(segments.collect())
    }

    /// The segments, in order.
    pub fn segments(&self) -> &[Segment<D>] {
        &self.0
    }

    /// How long the device is.
    pub fn length(&self) -> Sectors {
        self.0.last().map_or(Sectors(0), |last| Sectors(last.start.0 + last.length.0))
    }

    /// Every device that the table names, in order, as often as it does. Of targets kept as
    /// `Other` nothing is known.
    pub fn devices(&self) -> impl Iterator<Item = &D> {
        self.0.iter().flat_map(|segment| segment.target.devices())
    }

    /// The same table with each device named in another way; the first failure ends it.
    pub fn try_map<E, Err>(
        &self,
        mut name: impl FnMut(&D) -> Result<E, Err>,
    ) -> Result<Table<E>, Err> {
        let segments = self.0.iter().map(|segment| {
            let target = segment.target.try_map(&mut name)?;
            Ok(Segment { start: segment.start, length: segment.length, target })
        });
        segments.collect::<Result<_, Err>>().map(Table)
    }
}

fn end_of<D>(index: usize, segment: &Segment<D>, expected: Sectors) -> Result<Sectors, TableError> {
    let Segment { start, length, target: _ } = segment;
    if *start != expected {
        return Err(TableError::NotContiguous { index, found: *start, expected });
    }
    if *length == Sectors(0) {
        return Err(TableError::NoLength { index, start: *start });
    }
    start.checked_add(*length).ok_or(TableError::TooLong { index })
}

impl<D> Target<D> {
    /// The target's name, as the kernel knows it.
    pub fn kind(&self) -> &str {
        match self {
            Self::Linear { .. } => "linear",
            Self::Striped { .. } => "striped",
            Self::Thin { .. } => "thin",
            Self::Era { .. } => "era",
            Self::Switch { .. } => "switch",
            Self::SnapshotOrigin { .. } => "snapshot-origin",
            Self::Snapshot { .. } => "snapshot",
            Self::Other { kind, params: _ } => kind,
        }
    }

    /// Every device that the target names; none is known of `Other`.
    pub fn devices(&self) -> Vec<&D> {
        match self {
            Self::Linear { device, offset: _ } => vec![device],
            Self::Striped { chunk: _, stripes: places }
            | Self::Switch { region: _, paths: places } => {
                places.iter().map(|place| &place.device).collect()
            }
            Self::Thin { pool, id: _, origin } => {
                std::iter::once(pool).chain(origin.as_ref()).collect()
            }
            Self::Era { metadata, origin, granularity: _ } => vec![metadata, origin],
            Self::SnapshotOrigin { origin } => vec![origin],
            Self::Snapshot { origin, store, chunk: _ } => vec![origin, store],
            Self::Other { .. } => Vec::new(),
        }
    }

    fn try_map<E, Err>(
        &self,
        name: &mut impl FnMut(&D) -> Result<E, Err>,
    ) -> Result<Target<E>, Err> {
        Ok(match self {
            Self::Linear { device, offset } => {
                Target::Linear { device: name(device)?, offset: *offset }
            }
            Self::Striped { chunk, stripes } => {
                Target::Striped { chunk: *chunk, stripes: try_map_places(stripes, name)? }
            }
            Self::Switch { region, paths } => {
                Target::Switch { region: *region, paths: try_map_places(paths, name)? }
            }
            Self::Thin { pool, id, origin } => Target::Thin {
                pool: name(pool)?,
                id: *id,
                origin: origin.as_ref().map(&mut *name).transpose()?,
            },
            Self::Era { metadata, origin, granularity } => Target::Era {
                metadata: name(metadata)?,
                origin: name(origin)?,
                granularity: *granularity,
            },
            Self::SnapshotOrigin { origin } => Target::SnapshotOrigin { origin: name(origin)? },
            Self::Snapshot { origin, store, chunk } => {
                Target::Snapshot { origin: name(origin)?, store: name(store)?, chunk: *chunk }
            }
            Self::Other { kind, params } => {
                Target::Other { kind: kind.clone(), params: params.clone() }
            }
        })
    }
}

fn try_map_places<D, E, Err>(
    places: &[Place<D>],
    name: &mut impl FnMut(&D) -> Result<E, Err>,
) -> Result<Vec<Place<E>>, Err> {
    let renamed = places
        .iter()
        .map(|Place { device, offset }| Ok(Place { device: name(device)?, offset: *offset }));
    renamed.collect()
}

fn with_places<D: fmt::Display>(head: String, places: &[Place<D>]) -> String {
    places.iter().fold(head, |text, Place { device, offset }| format!("{text} {device} {offset}"))
}

impl<D: fmt::Display> Target<D> {
    /// The parameters, as the kernel takes and prints them.
    pub fn params(&self) -> String {
        match self {
            Self::Linear { device, offset } => format!("{device} {offset}"),
            Self::Striped { chunk, stripes } => {
                with_places(format!("{} {chunk}", stripes.len()), stripes)
            }
            Self::Switch { region, paths } => {
                with_places(format!("{} {region} 0", paths.len()), paths)
            }
            Self::Thin { pool, id, origin: None } => format!("{pool} {id}"),
            Self::Thin { pool, id, origin: Some(origin) } => format!("{pool} {id} {origin}"),
            Self::Era { metadata, origin, granularity } => {
                format!("{metadata} {origin} {granularity}")
            }
            Self::SnapshotOrigin { origin } => origin.to_string(),
            Self::Snapshot { origin, store, chunk } => format!("{origin} {store} N {chunk}"),
            Self::Other { kind: _, params } => params.clone(),
        }
    }
}

impl<D: fmt::Display> fmt::Display for Target<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.params() {
            none if none.is_empty() => f.write_str(self.kind()),
            params => write!(f, "{} {params}", self.kind()),
        }
    }
}

impl<D: fmt::Display> fmt::Display for Segment<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.start, self.length, self.target)
    }
}

/// One segment a line, without a final newline.
impl<D: fmt::Display> fmt::Display for Table<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{segment}")?;
        }
        Ok(())
    }
}
