use super::{Table, Target};
use crate::units::{DevNo, Sectors};

impl Table {
    /// The thin pool that it maps to, if it is a thin volume's.
    pub fn thin_pool(&self) -> Option<DevNo> {
        self.segments().iter().find_map(|segment| match segment.target {
            Target::Thin { pool, id: _, origin: _ } => Some(pool),
            _ => None,
        })
    }

    /// The chunk, if it is a thin pool's: the third word after `thin-pool` (`pool_ctr`,
    /// dm-thin.c).
    pub fn thin_chunk(&self) -> Option<Sectors> {
        self.segments().iter().find_map(|segment| match &segment.target {
            Target::Other { kind, params } if kind == "thin-pool" => {
                params.split_whitespace().nth(2)?.parse().ok().map(Sectors)
            }
            _ => None,
        })
    }

    /// Whether a volume that had the table `before` and has this one now was put back to an earlier snapshot: LVM merges
    /// it, or the volume is another thin device of its pool.
    pub fn is_rolled_back_from(&self, before: &Self) -> bool {
        let merges = |table: &Self| {
            table.segments().iter().any(|segment| segment.target.kind() == SNAPSHOT_MERGE)
        };
        let other = before.thin_id().zip(self.thin_id()).is_some_and(|(then, now)| then != now);
        merges(self) || other
    }

    fn thin_id(&self) -> Option<u32> {
        self.segments().iter().find_map(|segment| match segment.target {
            Target::Thin { pool: _, id, origin: _ } => Some(id),
            _ => None,
        })
    }
}

/// What an origin is while a snapshot is merged back into it (`merge_target`, dm-snap.c).
pub const SNAPSHOT_MERGE: &str = "snapshot-merge";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_and_another_thin_device_are_a_rollback() {
        let table = |text: &str| text.parse::<Table>().unwrap();
        let (thin, thick) = (table("0 1024 thin 254:2 1"), table("0 1024 linear 254:0 0"));
        assert!(table("0 1024 thin 254:2 7").is_rolled_back_from(&thin));
        assert!(table("0 1024 snapshot-merge 254:5 254:6 P 8").is_rolled_back_from(&thick));
        let longer = table("0 2048 thin 254:2 1");
        assert!(!longer.is_rolled_back_from(&thin), "it has grown");
        assert!(!table("0 1024 thin 254:9 1").is_rolled_back_from(&thin), "a number is no name");
        assert!(!table("0 1024 snapshot-origin 254:5").is_rolled_back_from(&thick));
        assert!(!thick.is_rolled_back_from(&thick));
    }

    #[test]
    fn a_pool_and_its_chunk_are_read_from_tables() {
        let volume: Table = "0 1024000 thin 254:2 1".parse().unwrap();
        assert_eq!(volume.thin_pool(), Some(DevNo { major: 254, minor: 2 }));
        assert_eq!(volume.thin_chunk(), None);
        let pool: Table = "0 614400 thin-pool 254:0 254:1 128 0 0".parse().unwrap();
        assert_eq!((pool.thin_pool(), pool.thin_chunk()), (None, Some(Sectors(128))));
    }
}
