use super::{Refusal, situation};
use crate::lvm::{self, LvmUuid};
use crate::names::{DmUuid, Mapping, StackId};
use crate::refusal::{LEAST_LENGTH, MOST_BLOCKS};
use crate::stack::{Beneath, CopyStore, Kernel, Observed, Tracked, Volume};
use crate::table::{Table, Target};
use crate::units::{Bytes, DevNo, Granularity, Sectors};

/// Whether X could be tracked at that granularity, before any metadata is made for it. X that is
/// tracked already is.
pub fn eligible(observed: &Observed, granularity: Granularity) -> Result<(), Refusal> {
    let volume = situation::volume(observed)?;
    match situation::path(observed, volume)? {
        situation::Path::Own => bare(observed, volume, granularity).map(|_| ()),
        situation::Path::ThroughEra { .. } => Ok(()),
    }
}

/// The table of an X that is not tracked and could be.
pub(super) fn bare<'a>(
    observed: &Observed,
    volume: &'a Volume,
    granularity: Granularity,
) -> Result<&'a Table, Refusal> {
    let name = || volume.device.name.clone();
    let table = volume.device.live.as_ref().ok_or_else(|| Refusal::NoTable { name: name() })?;
    kernel(observed.kernel, table)?;
    identity(volume)?;
    targets(volume, table)?;
    state(volume)?;
    size(volume, table.length(), granularity)?;
    Ok(table)
}

/// The metadata must not depend on X, nor on any tracked volume. It may be this stack's own area.
pub(super) fn metadata_apart(
    stack: &StackId,
    volume: &Volume,
    wanted: &Tracked,
) -> Result<(), Refusal> {
    match tracked_below(stack, volume, wanted.metadata.number, &wanted.metadata.beneath) {
        Some(beneath) => {
            Err(Refusal::MetadataOnTrackedVolume { name: volume.device.name.clone(), beneath })
        }
        None => Ok(()),
    }
}

/// Nor must the store of a point in time: a write to X would wait for itself.
pub(super) fn store_apart(
    stack: &StackId,
    volume: &Volume,
    store: &CopyStore,
) -> Result<(), Refusal> {
    match tracked_below(stack, volume, store.number, &store.beneath) {
        Some(beneath) => {
            Err(Refusal::CopiesOnTrackedVolume { name: volume.device.name.clone(), beneath })
        }
        None => Ok(()),
    }
}

fn tracked_below(
    stack: &StackId,
    volume: &Volume,
    device: DevNo,
    beneath: &[Beneath],
) -> Option<DevNo> {
    let x = volume.device.number;
    let area = stack.uuid(Mapping::Metadata);
    let foreign = |uuid: &DmUuid| uuid.is_ours() && *uuid != area;
    let tracked = beneath
        .iter()
        .find(|device| device.number == x || device.uuid.as_ref().is_some_and(foreign));
    (device == x).then_some(x).or(tracked.map(|device| device.number))
}

fn kernel(kernel: Kernel, table: &Table) -> Result<(), Refusal> {
    let Kernel { release, has_era, has_switch } = kernel;
    if !release.era_is_durable() {
        Err(Refusal::KernelTooOld { found: release })
    } else if !has_era {
        Err(Refusal::TargetMissing { target: "era" })
    } else if !has_switch && table.thin_pool().is_some() {
        Err(Refusal::TargetMissing { target: "switch" })
    } else {
        Ok(())
    }
}

fn identity(volume: &Volume) -> Result<(), Refusal> {
    let name = || volume.device.name.clone();
    if let Some(LvmUuid::Inner(layer)) = volume.device.uuid.as_ref().and_then(LvmUuid::parse) {
        return Err(Refusal::InnerLvmDevice { name: name(), layer: layer.to_owned() });
    }
    if is_being_moved(volume) {
        return Err(Refusal::BeingMoved { name: name() });
    }
    let others = volume.beneath.iter().filter_map(|device| device.uuid.as_ref());
    match others.into_iter().find(|uuid| uuid.is_ours()) {
        Some(uuid) => Err(Refusal::TrackedElsewhere { name: name(), uuid: uuid.clone() }),
        None => Ok(()),
    }
}

/// A whole logical volume directly beneath another one of its group is the mirror that pvmove
/// puts there while it moves extents (`pvmove0`); LVM's other layers have a suffix in their uuid.
/// LVM cannot remove it while X-base maps it, and then leaves it suspended.
fn is_being_moved(volume: &Volume) -> bool {
    let group = |uuid: &Option<DmUuid>| uuid.as_ref().and_then(lvm::group_of).map(str::to_owned);
    let own = group(&volume.device.uuid);
    own.is_some() && volume.beneath.iter().any(|device| group(&device.uuid) == own)
}

fn targets(volume: &Volume, table: &Table) -> Result<(), Refusal> {
    let name = || volume.device.name.clone();
    let unsupported = |kind: &str, remedy| {
        Err(Refusal::TargetUnsupported { name: name(), kind: kind.to_owned(), remedy })
    };
    for segment in table.segments() {
        match &segment.target {
            Target::Linear { .. } | Target::Striped { .. } => {}
            Target::Thin { .. } if table.segments().len() == 1 => {}
            Target::SnapshotOrigin { .. } => return Err(Refusal::HasSnapshots { name: name() }),
            Target::Thin { .. } => {
                return unsupported("thin", "a thin volume must be one segment");
            }
            other @ (Target::Era { .. }
            | Target::Switch { .. }
            | Target::Snapshot { .. }
            | Target::Other { .. }) => {
                return unsupported(other.kind(), remedy(other.kind()));
            }
        }
    }
    Ok(())
}

fn remedy(kind: &str) -> &'static str {
    match kind {
        "crypt" => "its key cannot be read back; track the device below the encryption",
        "cache" | "writecache" => {
            "split the cache off (lvconvert --splitcache), or track a volume without cache"
        }
        "raid" | "mirror" => {
            "track a linear or striped volume over it, or use a volume without LVM raid"
        }
        "multipath" => "track a volume over it instead",
        "thin-pool" => "track the thin volumes in it instead",
        "snapshot" | "snapshot-merge" => {
            "it is an LVM snapshot; wait for the merge, or track its origin once no snapshot is left"
        }
        "era" => "something else tracks it with dm-era; remove that first",
        "vdo" | "vdo-pool" => "track a linear volume over it instead",
        _ => "only linear, striped and thin can be",
    }
}

fn state(volume: &Volume) -> Result<(), Refusal> {
    let name = || volume.device.name.clone();
    if volume.zoned {
        Err(Refusal::Zoned { name: name() })
    } else if volume.dax {
        Err(Refusal::Dax { name: name() })
    } else if volume.device.read_only {
        Err(Refusal::ReadOnly { name: name() })
    } else {
        situation::not_suspended(&volume.device)
    }
}

fn size(volume: &Volume, length: Sectors, granularity: Granularity) -> Result<(), Refusal> {
    let name = || volume.device.name.clone();
    let Bytes(block) = volume.logical_block;
    let least = Bytes(LEAST_LENGTH.0.max(granularity.bytes().0));
    let blocks = granularity.blocks(length);
    let bytes = length.to_bytes().map_or(u64::MAX, |bytes| bytes.0);
    if bytes < least.0 {
        let least = Sectors(least.0.div_ceil(512));
        Err(Refusal::TooSmall { name: name(), length, least })
    } else if block > granularity.bytes().0 {
        Err(Refusal::FinerThanLogicalBlock { name: name(), granularity, block })
    } else if block > 0 && !bytes.is_multiple_of(block) {
        Err(Refusal::OddLength { name: name(), length, block })
    } else if blocks > MOST_BLOCKS {
        let limit = MOST_BLOCKS;
        Err(Refusal::TooManyBlocks { name: name(), granularity, blocks, limit })
    } else {
        Ok(())
    }
}
