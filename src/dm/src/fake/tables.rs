//! Which tables the kernel takes.

use eratrack_model::table::{Place, Table, Target};
use eratrack_model::units::{DevNo, Sectors};

use super::State;
use crate::port::DmErrorKind;

/// dm-era's least block (`MIN_BLOCK_SIZE`, drivers/md/dm-era-target.c).
const LEAST_ERA_BLOCK: u64 = 8;
/// dm-snapshot copies whole logical blocks, of 4 KiB in our loop devices
/// (`dm_exception_store_set_chunk_size`, drivers/md/dm-exception-store.c).
const LEAST_CHUNK: u64 = 8;

impl State {
    /// What a target's constructor checks, for every segment.
    pub(super) fn check_table(&self, of: DevNo, table: &Table) -> Result<(), DmErrorKind> {
        for segment in table.segments() {
            self.check_target(of, &segment.target, segment.length)?;
        }
        Ok(())
    }

    fn check_target(&self, of: DevNo, target: &Target, length: Sectors) -> Result<(), DmErrorKind> {
        if self.missing_targets.contains(target.kind()) {
            return Err(DmErrorKind::Invalid);
        }
        match target {
            Target::Linear { device, offset } => self.check_range(of, *device, *offset, length),
            Target::Striped { chunk: _, stripes } => {
                let count = u64::try_from(stripes.len()).unwrap_or(u64::MAX).max(1);
                let each = Sectors(length.0 / count);
                stripes.iter().try_for_each(|Place { device, offset }| {
                    self.check_range(of, *device, *offset, each)
                })
            }
            Target::Thin { pool, id: _, origin: _ } => {
                self.check_range(of, *pool, Sectors(0), Sectors(0))
            }
            Target::Era { metadata, origin, granularity } => {
                self.check_era(*metadata, *granularity)?;
                self.check_range(of, *metadata, Sectors(0), Sectors(0))?;
                self.check_range(of, *origin, Sectors(0), length)
            }
            Target::SnapshotOrigin { origin } => self.check_range(of, *origin, Sectors(0), length),
            Target::Snapshot { origin, store, chunk } => {
                if !chunk.0.is_power_of_two() || chunk.0 < LEAST_CHUNK {
                    return Err(DmErrorKind::Invalid);
                }
                self.check_range(of, *origin, Sectors(0), length)?;
                self.check_range(of, *store, Sectors(0), Sectors(0))
            }
            Target::Switch { region: _, paths } => {
                paths.iter().try_for_each(|Place { device, offset }| {
                    self.check_range(of, *device, *offset, Sectors(0))
                })
            }
            Target::Other { kind, params: _ } => match kind.as_str() {
                "zero" | "error" => Ok(()),
                _ => Err(DmErrorKind::Invalid),
            },
        }
    }

    fn check_era(&self, metadata: DevNo, granularity: Sectors) -> Result<(), DmErrorKind> {
        if granularity.0 < LEAST_ERA_BLOCK || !granularity.0.is_multiple_of(LEAST_ERA_BLOCK) {
            return Err(DmErrorKind::Invalid);
        }
        let formatted = self.eras.get(&metadata);
        if formatted.is_some_and(|era| era.granularity != granularity) {
            return Err(DmErrorKind::Invalid);
        }
        Ok(())
    }

    fn check_range(
        &self,
        of: DevNo,
        device: DevNo,
        offset: Sectors,
        length: Sectors,
    ) -> Result<(), DmErrorKind> {
        if device == of {
            return Err(DmErrorKind::Invalid);
        }
        let there = self.devices.contains_key(&device) || self.disks.contains_key(&device);
        if !there {
            return Err(DmErrorKind::MissingDependency);
        }
        let end = offset.checked_add(length);
        let fits = self.length(device).zip(end).is_some_and(|(has, end)| end <= has);
        if fits { Ok(()) } else { Err(DmErrorKind::Invalid) }
    }
}
