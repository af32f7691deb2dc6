use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::units::{Bytes, SECTOR_BYTES, Sectors, plain};

/// How many bytes one tracked block has: a power of two from 4 KiB to 1 GiB.
///
/// dm-era wants a multiple of 8 sectors (`MIN_BLOCK_SIZE`, drivers/md/dm-era-target.c) and
/// splits I/O at this size; the API offers exactly these powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Granularity(u64);

/// Why a text or a figure is no granularity.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GranularityError {
    /// Not a number with one of the known units.
    #[error("granularity {0:?} is no size; write 256Ki, 1Mi, 1Gi, plain bytes, or sectors as 512s")]
    Unreadable(String),
    /// Below 4 KiB or above 1 GiB.
    #[error("granularity of {0} bytes is out of range; choose from 4Ki to 1Gi")]
    OutOfRange(u64),
    /// Block boundaries must be found by shifting.
    #[error(
        "granularity of {0} bytes is no power of two; choose one from 4Ki to 1Gi, such as 256Ki"
    )]
    NotPowerOfTwo(u64),
}

impl Granularity {
    /// 4 KiB.
    pub const MIN: Self = Self(4 << 10);
    /// 1 GiB.
    pub const MAX: Self = Self(1 << 30);
    /// 256 KiB.
    pub const DEFAULT: Self = Self(256 << 10);

    /// From bytes.
    pub fn new(bytes: Bytes) -> Result<Self, GranularityError> {
        let Bytes(bytes) = bytes;
        if !(Self::MIN.0..=Self::MAX.0).contains(&bytes) {
            Err(GranularityError::OutOfRange(bytes))
        } else if !bytes.is_power_of_two() {
            Err(GranularityError::NotPowerOfTwo(bytes))
        } else {
            Ok(Self(bytes))
        }
    }

    /// Bytes a block.
    pub fn bytes(self) -> Bytes {
        Bytes(self.0)
    }

    /// Sectors a block.
    pub fn sectors(self) -> Sectors {
        Sectors(self.0 / SECTOR_BYTES)
    }

    /// How many blocks a device of this length has; the last may be a part of one.
    pub fn blocks(self, length: Sectors) -> u64 {
        length.0.div_ceil(self.sectors().0)
    }
}

impl Default for Granularity {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// As the API's enum has it: `4Ki` … `512Ki`, `1Mi` … `512Mi`, `1Gi`.
impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0.trailing_zeros() {
            bits @ 0..20 => format!("{}Ki", 1u64 << (bits - 10)),
            bits @ 20..30 => format!("{}Mi", 1u64 << (bits - 20)),
            bits => format!("{}Gi", 1u64 << (bits - 30)),
        };
        f.pad(&text)
    }
}

impl FromStr for Granularity {
    type Err = GranularityError;

    fn from_str(text: &str) -> Result<Self, GranularityError> {
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(split);
        let scale = match unit {
            "" => Some(1),
            "s" => Some(SECTOR_BYTES),
            "Ki" => Some(1 << 10),
            "Mi" => Some(1 << 20),
            "Gi" => Some(1 << 30),
            _ => None,
        };
        let unreadable = || GranularityError::Unreadable(text.to_owned());
        let figure: u64 = plain(digits).ok_or_else(unreadable)?;
        let bytes = figure.checked_mul(scale.ok_or_else(unreadable)?);
        Self::new(Bytes(bytes.ok_or(GranularityError::OutOfRange(u64::MAX))?))
    }
}

impl TryFrom<String> for Granularity {
    type Error = GranularityError;

    fn try_from(text: String) -> Result<Self, GranularityError> {
        text.parse()
    }
}

impl From<Granularity> for String {
    fn from(granularity: Granularity) -> Self {
        granularity.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_granularity_reads_back_in_each_spelling() {
        for bits in 12..=30 {
            let granularity = Granularity::new(Bytes(1 << bits)).unwrap();
            assert_eq!(granularity.to_string().parse(), Ok(granularity));
            assert_eq!(granularity.bytes().0.to_string().parse(), Ok(granularity));
            assert_eq!(format!("{}s", granularity.sectors().0).parse(), Ok(granularity));
        }
        assert_eq!("1024Ki".parse(), Ok(Granularity(1 << 20)));
        assert_eq!(Granularity::DEFAULT.to_string(), "256Ki");
    }

    #[test]
    fn what_is_no_granularity_says_why() {
        use GranularityError::{NotPowerOfTwo, OutOfRange, Unreadable};
        assert_eq!("2Ki".parse::<Granularity>(), Err(OutOfRange(2048)));
        assert_eq!("2Gi".parse::<Granularity>(), Err(OutOfRange(2 << 30)));
        assert_eq!("18446744073709551615Gi".parse::<Granularity>(), Err(OutOfRange(u64::MAX)));
        assert_eq!("192Ki".parse::<Granularity>(), Err(NotPowerOfTwo(192 << 10)));
        for bad in ["", "Ki", "256K", "256 Ki", "-4Ki", "04Ki", "0x1000", "4ki"] {
            assert_eq!(bad.parse::<Granularity>(), Err(Unreadable(bad.to_owned())));
        }
    }

    #[test]
    fn a_partial_last_block_counts() {
        let granularity = Granularity::DEFAULT;
        assert_eq!(granularity.blocks(Sectors(0)), 0);
        assert_eq!(granularity.blocks(Sectors(512)), 1);
        assert_eq!(granularity.blocks(Sectors(513)), 2);
    }
}
