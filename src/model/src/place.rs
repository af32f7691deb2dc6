//! Where a stack's metadata lives: as a person asks for it, and as its record keeps it.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::lvm::VgName;
use crate::names::StackId;
use crate::pool::PoolId;

/// Where new metadata shall go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MetadataRequest {
    /// A file in the directory of the stack's record.
    #[default]
    Store,
    /// This file, which must not be there.
    File(PathBuf),
    /// A thick volume of this group, made for it.
    LogicalVolume(VgName),
    /// An area of the pool on this disk.
    Pool(PathBuf),
}

/// Where a stack's metadata is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum MetadataPlace {
    /// A file, absolute as the machine itself sees it.
    File(PathBuf),
    /// The volume [`lv_name`] of this group.
    LogicalVolume(VgName),
    /// The stack's area of a pool.
    Pool(PoolPlace),
}

/// A pool, and how to find its disk again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolPlace {
    /// Which pool: only this is proof.
    pub pool: PoolId,
    /// How its disk was named; after a reboot it is looked for there first.
    pub device: PathBuf,
    /// What the disk said of itself, if anything: there it is looked for next.
    pub identity: Option<String>,
}

/// Why a text is no place for metadata.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlaceError {
    /// None of the known kinds.
    #[error("{0:?} is no place for metadata; use file:PATH, lv:VG or pool:DEVICE")]
    Kind(String),
    /// A path that depends on where one is, or is not what it seems.
    #[error("{0:?} is not an absolute path without . and ..")]
    Path(PathBuf),
    /// No name that LVM takes.
    #[error("{0:?} is no volume group's name; use letters, digits and + _ . -")]
    Group(String),
}

/// The name of a stack's metadata volume. At most 72 characters, of those that LVM takes.
pub fn lv_name(stack: &StackId) -> String {
    format!("eratrack-{stack}")
}

impl MetadataPlace {
    /// The file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::LogicalVolume(_) | Self::Pool(_) => None,
        }
    }

    /// The path that is not as it must be, if there is one.
    pub(crate) fn bad_path(&self) -> Option<&Path> {
        let path = match self {
            Self::File(path) => path,
            Self::Pool(place) => &place.device,
            Self::LogicalVolume(_) => return None,
        };
        (!is_plain(path)).then_some(path)
    }
}

impl FromStr for MetadataRequest {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let (kind, rest) = text.split_once(':').ok_or_else(|| PlaceError::Kind(text.to_owned()))?;
        match kind {
            "file" => plain_path(rest).map(Self::File),
            "pool" => plain_path(rest).map(Self::Pool),
            "lv" => VgName::new(rest)
                .map(Self::LogicalVolume)
                .ok_or_else(|| PlaceError::Group(rest.to_owned())),
            _ => Err(PlaceError::Kind(text.to_owned())),
        }
    }
}

/// As it is asked for; the store's own file as the word `store`, which cannot be asked for.
impl fmt::Display for MetadataRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store => f.write_str("store"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::LogicalVolume(vg) => write!(f, "lv:{vg}"),
            Self::Pool(device) => write!(f, "pool:{}", device.display()),
        }
    }
}

/// As it can be asked for.
impl fmt::Display for MetadataPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::LogicalVolume(vg) => write!(f, "lv:{vg}"),
            Self::Pool(PoolPlace { device, .. }) => write!(f, "pool:{}", device.display()),
        }
    }
}

fn plain_path(text: &str) -> Result<PathBuf, PlaceError> {
    let path = PathBuf::from(text);
    if is_plain(&path) { Ok(path) } else { Err(PlaceError::Path(path)) }
}

fn is_plain(path: &Path) -> bool {
    let mut parts = path.components();
    let below_root = parts.next() == Some(Component::RootDir);
    below_root && parts.clone().count() > 0 && parts.all(|p| matches!(p, Component::Normal(_)))
}

/// In JSON a file is its path alone, as the first records had it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    File(PathBuf),
    Elsewhere(Elsewhere),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
enum Elsewhere {
    #[serde(rename = "logicalVolume")]
    LogicalVolume { vg: VgName },
    #[serde(rename = "pool")]
    Pool(PoolPlace),
}

impl TryFrom<Written> for MetadataPlace {
    type Error = PlaceError;

    fn try_from(written: Written) -> Result<Self, PlaceError> {
        let place = match written {
            Written::File(path) => Self::File(path),
            Written::Elsewhere(Elsewhere::LogicalVolume { vg }) => Self::LogicalVolume(vg),
            Written::Elsewhere(Elsewhere::Pool(place)) => Self::Pool(place),
        };
        match place.bad_path() {
            Some(bad) => Err(PlaceError::Path(bad.to_owned())),
            None => Ok(place),
        }
    }
}

impl From<MetadataPlace> for Written {
    fn from(place: MetadataPlace) -> Self {
        match place {
            MetadataPlace::File(path) => Self::File(path),
            MetadataPlace::LogicalVolume(vg) => Self::Elsewhere(Elsewhere::LogicalVolume { vg }),
            MetadataPlace::Pool(place) => Self::Elsewhere(Elsewhere::Pool(place)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::STACK_ID_MAX;
    use serde_json::{Value, json};

    #[test]
    fn places_are_asked_for_and_shown_alike() {
        for text in ["file:/srv/a.era", "lv:vg-0", "pool:/dev/disk/by-id/x:1"] {
            assert_eq!(text.parse::<MetadataRequest>().unwrap().to_string(), text);
        }
        assert_eq!(MetadataRequest::default(), MetadataRequest::Store);
    }

    #[test]
    fn what_is_no_place_is_said_with_the_remedy() {
        let error = |text: &str| text.parse::<MetadataRequest>().unwrap_err().to_string();
        for text in ["", "/dev/sdb", "store", "disk:/dev/sdb", "store:x"] {
            assert!(error(text).contains("use file:PATH, lv:VG or pool:DEVICE"), "{text}");
        }
        for text in ["file:", "file:a", "pool:sdb", "file:/a/../b", "file:/"] {
            assert!(error(text).contains("absolute path"), "{text}");
        }
        for text in ["lv:", "lv:-x", "lv:a/b", "lv:..", "lv:a b"] {
            assert!(error(text).contains("no volume group's name"), "{text}");
        }
    }

    #[test]
    fn each_place_reads_back_and_a_file_is_its_path() {
        let pool = json!({"pool": {
            "pool": "0b5e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c11", "device": "/dev/sdb", "identity": null,
        }});
        for value in [json!("/a/era-metadata"), json!({"logicalVolume": {"vg": "vg"}}), pool] {
            let place: MetadataPlace = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(serde_json::to_value(&place).unwrap(), value);
        }
        let bad = |value: Value| serde_json::from_value::<MetadataPlace>(value).is_err();
        assert!(bad(json!("era-metadata")) && bad(json!({"logicalVolume": {"vg": "a/b"}})));
        assert!(bad(json!({"logicalVolume": {"vg": "a", "lv": "b"}})) && bad(json!(1)));
    }

    #[test]
    fn the_longest_stack_has_a_volume() {
        let stack: StackId = "a".repeat(STACK_ID_MAX).parse().unwrap();
        assert_eq!(lv_name(&stack).len(), 72);
    }
}
