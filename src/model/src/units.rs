//! Units that must not be mixed up.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use crate::granularity::{Granularity, GranularityError};

/// Bytes in a sector, always (`SECTOR_SIZE` in `include/linux/blk_types.h`).
pub const SECTOR_BYTES: u64 = 512;

/// Device mapper's unit: 512 bytes, whatever the device's own sector size.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Sectors(pub u64);

/// Plain bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// A block device's number (`dev_t`), shown as device mapper writes it: `253:7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DevNo {
    /// The driver.
    pub major: u32,
    /// The device of that driver.
    pub minor: u32,
}

/// Why a figure or a device number cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnitError {
    /// The figure does not fit in 64 bits once converted.
    #[error("{0} sectors are more bytes than 64 bits can count")]
    TooLarge(u64),
    /// Not of the form `major:minor`.
    #[error("{0:?} is no device number; expected major:minor, such as 253:7")]
    DevNo(String),
}

impl Sectors {
    /// The same length in bytes.
    pub fn to_bytes(self) -> Result<Bytes, UnitError> {
        self.0.checked_mul(SECTOR_BYTES).map(Bytes).ok_or(UnitError::TooLarge(self.0))
    }

    /// The sum, or none beyond 64 bits.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }
}

impl fmt::Display for Sectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// For people: whole Mi from 1 MiB on, whole Ki below, rounded up so that a change is
/// never shown as nothing.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const KI: u64 = 1 << 10;
        const MI: u64 = 1 << 20;
        let text = match self.0 {
            0 => "0".to_owned(),
            bytes if bytes > MI - KI => format!("{}Mi", bytes.div_ceil(MI)),
            bytes => format!("{}Ki", bytes.div_ceil(KI)),
        };
        f.pad(&text)
    }
}

impl fmt::Display for DevNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl FromStr for DevNo {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let parsed = text
            .split_once(':')
            .and_then(|(major, minor)| Some(Self { major: plain(major)?, minor: plain(minor)? }));
        parsed.ok_or_else(|| UnitError::DevNo(text.to_owned()))
    }
}

impl TryFrom<String> for DevNo {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        text.parse()
    }
}

impl From<DevNo> for String {
    fn from(number: DevNo) -> Self {
        number.to_string()
    }
}

/// A number without sign or leading zeros, so that display gives the text back.
pub(crate) fn plain<T: FromStr>(text: &str) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let canonical = text.len() == 1 || !text.starts_with('0');
    if digits && canonical { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_are_counted_in_bytes_as_far_as_that_goes() {
        assert_eq!(Sectors(8).to_bytes(), Ok(Bytes(4096)));
        assert_eq!(Sectors(u64::MAX).to_bytes(), Err(UnitError::TooLarge(u64::MAX)));
    }

    #[test]
    fn device_numbers_read_back() {
        let number = DevNo { major: 253, minor: 7 };
        assert_eq!(number.to_string().parse(), Ok(number));
        for bad in ["", "253", "253:", ":7", "253:07", "+253:7", "253:7:1", "253:-7", "sda"] {
            assert_eq!(bad.parse::<DevNo>(), Err(UnitError::DevNo(bad.to_owned())));
        }
    }

    #[test]
    fn sizes_for_people_round_up() {
        let shown: Vec<_> = [0, 1, 1024, 1025, 1_047_552, 1_047_553, 1_048_576, 1_048_577, 1 << 40]
            .into_iter()
            .map(|bytes| Bytes(bytes).to_string())
            .collect();
        assert_eq!(shown, ["0", "1Ki", "1Ki", "2Ki", "1023Ki", "1Mi", "1Mi", "2Mi", "1048576Mi"]);
    }
}
