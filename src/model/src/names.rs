//! The one place where names and uuids of our devices are made and read.
//!
//! A device of ours is recognised by its uuid alone; its name is for people. The uuid's prefix
//! is one that LVM skips (`CRYPT-SUBDEV`, lib/device/dev-type.c in lvm2), so that a volume
//! group *inside* a tracked volume stays hidden from the machine's LVM.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What the uuid of every device of ours starts with.
pub const UUID_PREFIX: &str = "CRYPT-SUBDEV-ERATRACK-";

/// What the name of every device of ours starts with.
pub const NAME_PREFIX: &str = "eratrack-";

/// Longest name in bytes: `DM_NAME_LEN` is 128 with the final zero (linux/dm-ioctl.h).
pub const NAME_MAX: usize = 127;

/// Longest uuid in bytes: `DM_UUID_LEN` is 129 with the final zero (linux/dm-ioctl.h).
pub const UUID_MAX: usize = 128;

/// Longest stack id in bytes.
pub const STACK_ID_MAX: usize = 63;

// The proof that every name and uuid made here fits: the longest stack id, the longest part.
const _: () = assert!(NAME_PREFIX.len() + STACK_ID_MAX + 1 + Part::TEXT_MAX <= NAME_MAX);
const _: () = assert!(UUID_PREFIX.len() + STACK_ID_MAX + 1 + Part::TEXT_MAX <= UUID_MAX);

/// Which stack a device belongs to: a PersistentVolume's uid, or a name a person gave.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StackId(String);

/// What a device of ours is for in the way of X's I/O: those that plans are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// X-era: records which blocks are written.
    Era,
    /// X-base: X's original table.
    Base,
    /// X-origin: while there is a point in time, what is written to X goes through it.
    Origin,
    /// X-snap: X as it was at a point in time.
    Snapshot,
}

/// A device of ours that only shows another one elsewhere: `linear`, never swapped, made before
/// what needs it and removed after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mapping {
    /// Over a device that device mapper does not run: X, under a name that a person chose.
    Top,
    /// Over the metadata, for tools that insist on opening it exclusively.
    Access,
    /// The metadata itself: an area of a pool.
    Metadata,
}

/// Any device of ours. A new kind of device is a new role or mapping, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// In the way of X's I/O.
    Role(Role),
    /// Beside it.
    Mapping(Mapping),
}

/// A device's name: 1 to 127 bytes, no slash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DmName(String);

/// A device's uuid: 1 to 128 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DmUuid(String);

/// Why a text is no name of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Not 1 to 63 of `a-z`, `0-9`, `-`.
    #[error("stack {0:?} is no valid name; use 1 to 63 of a-z, 0-9 and -")]
    Stack(String),
    /// Too long, empty, or with a character that device mapper does not take.
    #[error("device name {0:?} is not valid: 1 to 127 bytes without / and control characters")]
    Name(String),
    /// Too long, empty, or with a control character.
    #[error("device uuid {0:?} is not valid: 1 to 128 bytes without control characters")]
    Uuid(String),
}

impl StackId {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of this stack's device of that kind; a [`Mapping::Top`] has a person's instead.
    pub fn name(&self, part: impl Into<Part>) -> DmName {
        DmName(format!("{NAME_PREFIX}{}-{}", self.0, part.into().text()))
    }

    /// The uuid of this stack's device of that kind.
    pub fn uuid(&self, part: impl Into<Part>) -> DmUuid {
        DmUuid(format!("{UUID_PREFIX}{}-{}", self.0, part.into().text()))
    }
}

impl Role {
    /// All roles, from the top down: as they are removed.
    pub const ALL: [Self; 4] = [Self::Origin, Self::Snapshot, Self::Era, Self::Base];

    /// How names and uuids end.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Era => "era",
            Self::Base => "base",
            Self::Origin => "origin",
            Self::Snapshot => "snapshot",
        }
    }
}

impl Mapping {
    /// All mappings.
    pub const ALL: [Self; 3] = [Self::Top, Self::Access, Self::Metadata];

    /// How names and uuids end.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Top => "top",
            Self::Access => "access",
            Self::Metadata => "metadata",
        }
    }
}

impl Part {
    const TEXT_MAX: usize = 8;

    /// All parts.
    pub fn all() -> impl Iterator<Item = Self> {
        Role::ALL.into_iter().map(Self::Role).chain(Mapping::ALL.into_iter().map(Self::Mapping))
    }

    /// How names and uuids end.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Role(role) => role.text(),
            Self::Mapping(mapping) => mapping.text(),
        }
    }
}

impl From<Role> for Part {
    fn from(role: Role) -> Self {
        Self::Role(role)
    }
}

impl From<Mapping> for Part {
    fn from(mapping: Mapping) -> Self {
        Self::Mapping(mapping)
    }
}

impl DmName {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl DmUuid {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whose device of ours this is; none for everybody else's devices.
    pub fn owner(&self) -> Option<(StackId, Part)> {
        let (stack, part) = self.0.strip_prefix(UUID_PREFIX)?.rsplit_once('-')?;
        let part = Part::all().find(|known| known.text() == part)?;
        Some((stack.parse().ok()?, part))
    }

    /// A device of ours, of whatever version: also of a part this one does not know.
    pub fn is_ours(&self) -> bool {
        self.0.starts_with(UUID_PREFIX)
    }
}

fn printable(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && !text.chars().any(char::is_control)
}

impl FromStr for StackId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (1..=STACK_ID_MAX).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Stack(text.to_owned()))
        }
    }
}

impl FromStr for DmName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if printable(text, NAME_MAX) && !text.contains('/') {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Name(text.to_owned()))
        }
    }
}

impl FromStr for DmUuid {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if printable(text, UUID_MAX) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Uuid(text.to_owned()))
        }
    }
}

macro_rules! text_newtype {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    )*};
}
text_newtype!(StackId, DmName, DmUuid);

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_reads_back_from_its_uuid_at_the_greatest_length() {
        let long = "a-".repeat(31) + "0";
        assert_eq!(long.len(), STACK_ID_MAX);
        for text in [long.as_str(), "-", "base", "x-era", "0b5e-era-base"] {
            let stack: StackId = text.parse().unwrap();
            for part in Part::all() {
                let (name, uuid) = (stack.name(part), stack.uuid(part));
                assert_eq!(name.as_str().parse(), Ok(name.clone()));
                assert_eq!(uuid.as_str().parse(), Ok(uuid.clone()));
                assert_eq!(uuid.owner(), Some((stack.clone(), part)));
            }
        }
    }

    #[test]
    fn no_part_is_longer_than_the_proof_says() {
        assert!(Part::all().all(|part| part.text().len() <= Part::TEXT_MAX));
    }

    #[test]
    fn others_devices_are_not_ours() {
        for text in ["CRYPT-SUBDEV-x", "LVM-abc", "ERATRACK-a-era", "CRYPT-LUKS2-ERATRACK-a-era"] {
            let uuid: DmUuid = text.parse().unwrap();
            assert_eq!((uuid.owner(), uuid.is_ours()), (None, false));
        }
        let later: DmUuid = "CRYPT-SUBDEV-ERATRACK-a-later".parse().unwrap();
        assert_eq!((later.owner(), later.is_ours()), (None, true));
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        for bad in ["", "A", "a_b", "a/b", "a b", &"a".repeat(64)] {
            assert_eq!(bad.parse::<StackId>(), Err(NameError::Stack(bad.to_owned())));
        }
        for bad in ["", "a/b", "a\n", &"a".repeat(128)] {
            assert_eq!(bad.parse::<DmName>(), Err(NameError::Name(bad.to_owned())));
        }
        assert!("a".repeat(128).parse::<DmUuid>().is_ok());
        assert!("a".repeat(129).parse::<DmUuid>().is_err());
    }
}
