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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_and_its_chunk_are_read_from_tables() {
        let volume: Table = "0 1024000 thin 254:2 1".parse().unwrap();
        assert_eq!(volume.thin_pool(), Some(DevNo { major: 254, minor: 2 }));
        assert_eq!(volume.thin_chunk(), None);
        let pool: Table = "0 614400 thin-pool 254:0 254:1 128 0 0".parse().unwrap();
        assert_eq!((pool.thin_pool(), pool.thin_chunk()), (None, Some(Sectors(128))));
    }
}
