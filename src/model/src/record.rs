//! What is kept on disk beside the metadata of each stack, and believed only if every part of it
//! is as it must be.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::continuity::Seal;
use crate::discards::DiscardPolicy;
use crate::names::{DmName, DmUuid, Mapping, StackId};
use crate::place::MetadataPlace;
use crate::table::Table;
use crate::units::{Bytes, DevNo, Granularity, SECTOR_BYTES, Sectors};

/// The version that is written.
pub const VERSION: u32 = 2;
/// The oldest that is read. It knew nothing of `keeper` and what follows, and only files.
pub const OLDEST: u32 = 1;

/// A stack as it was built, written durably before it is relied upon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked", into = "Unchecked")]
pub struct Record {
    /// Whose stack.
    pub stack: StackId,
    /// The chain that goes on while nothing breaks it.
    pub chain: ChainId,
    /// The boot that the stack was built in.
    pub boot: BootId,
    /// X's number in that boot.
    pub x: DevNo,
    /// X's name then; LVM may have changed it since.
    pub name: DmName,
    /// X's uuid, if it has one.
    pub uuid: Option<DmUuid>,
    /// X's own table, which X-base has now.
    pub original: Table,
    /// X's length.
    pub sectors: Sectors,
    /// How large a block is.
    pub granularity: Granularity,
    /// What becomes of discards.
    pub discards: DiscardPolicy,
    /// Where the metadata is.
    pub metadata: MetadataPlace,
    /// How large it is at least; whole metadata blocks of 4 KiB.
    pub metadata_size: Bytes,
    /// How far the stack is.
    pub phase: Phase,
    /// Who looks after it.
    pub keeper: Keeper,
    /// What X was put over, where X is a device of ours ([`Mapping::Top`]).
    pub stage: Option<Stage>,
    /// Whether there is a second way to the metadata ([`Mapping::Access`]).
    pub access: bool,
    /// What was known of X when it was shut down in order.
    pub seal: Option<Seal>,
}

/// Who looks after a stack, and so who may take it out unasked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Keeper {
    /// The agent of a node, for Kubernetes.
    #[default]
    Agent,
    /// Whoever runs `eratrack device` on the machine.
    Administrator,
}

/// The device beneath an X of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// How it was named; after a reboot it is looked for there.
    pub path: PathBuf,
    /// What the device says of itself (`serial`, `wwid`, a dm uuid), if it says anything.
    pub identity: Option<String>,
}

/// How far a stack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Being inserted. No chain relies on the metadata yet.
    Attaching,
    /// In place.
    Attached,
    /// Being removed. The chain has ended.
    Detaching,
}

/// Names one chain: 36 characters of a uuid, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChainId(String);

/// Names one boot of one machine (`/proc/sys/kernel/random/boot_id`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BootId(String);

/// A text that is no uuid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no uuid; expected one such as 0b5e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c11")]
pub struct IdError(pub(crate) String);

/// Why a record is not believed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Written by another version.
    #[error(
        "record version is {0}, expected {OLDEST} to {VERSION}; detach with the version that wrote it"
    )]
    Version(u32),
    /// The length beside the table is not the table's.
    #[error("record says {sectors} sectors, but its table has {table}")]
    Length {
        /// What stands beside the table.
        sectors: Sectors,
        /// What the table adds up to.
        table: Sectors,
    },
    /// No length that metadata can have.
    #[error("record's metadata has {0} bytes, expected a positive multiple of 4096")]
    MetadataSize(u64),
    /// X would be one of our own devices.
    #[error("record's device uuid {0} is one of eratrack's own")]
    OwnDevice(DmUuid),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    version: u32,
    stack: StackId,
    chain: ChainId,
    boot: BootId,
    x: DevNo,
    name: DmName,
    uuid: Option<DmUuid>,
    original: Table,
    sectors: Sectors,
    granularity: Granularity,
    discards: DiscardPolicy,
    metadata: MetadataPlace,
    metadata_size: Bytes,
    phase: Phase,
    #[serde(default)]
    keeper: Keeper,
    #[serde(default)]
    stage: Option<Stage>,
    #[serde(default)]
    access: bool,
    #[serde(default)]
    seal: Option<Seal>,
}

/// dm-era's metadata comes in blocks of this many bytes.
const METADATA_BLOCK: u64 = 8 * SECTOR_BYTES;

impl Unchecked {
    fn check(&self) -> Result<(), RecordError> {
        if !(OLDEST..=VERSION).contains(&self.version) {
            return Err(RecordError::Version(self.version));
        }
        let table = self.original.length();
        if self.sectors != table {
            return Err(RecordError::Length { sectors: self.sectors, table });
        }
        let top = self.stage.as_ref().map(|_| self.stack.uuid(Mapping::Top));
        let ours = self.uuid.as_ref().filter(|uuid| uuid.is_ours());
        if let Some(uuid) = ours.filter(|uuid| Some(*uuid) != top.as_ref()) {
            return Err(RecordError::OwnDevice(uuid.clone()));
        }
        let Bytes(size) = self.metadata_size;
        if size == 0 || !size.is_multiple_of(METADATA_BLOCK) {
            return Err(RecordError::MetadataSize(size));
        }
        Ok(())
    }
}

impl Record {
    /// How many blocks X has.
    pub fn blocks(&self) -> u64 {
        self.granularity.blocks(self.sectors)
    }
}

impl TryFrom<Unchecked> for Record {
    type Error = RecordError;

    fn try_from(read: Unchecked) -> Result<Self, RecordError> {
        read.check()?;
        Ok(Self {
            stack: read.stack,
            chain: read.chain,
            boot: read.boot,
            x: read.x,
            name: read.name,
            uuid: read.uuid,
            original: read.original,
            sectors: read.sectors,
            granularity: read.granularity,
            discards: read.discards,
            metadata: read.metadata,
            metadata_size: read.metadata_size,
            phase: read.phase,
            keeper: read.keeper,
            stage: read.stage,
            access: read.access,
            seal: read.seal,
        })
    }
}

impl From<Record> for Unchecked {
    fn from(record: Record) -> Self {
        Self {
            version: VERSION,
            stack: record.stack,
            chain: record.chain,
            boot: record.boot,
            x: record.x,
            name: record.name,
            uuid: record.uuid,
            original: record.original,
            sectors: record.sectors,
            granularity: record.granularity,
            discards: record.discards,
            metadata: record.metadata,
            metadata_size: record.metadata_size,
            phase: record.phase,
            keeper: record.keeper,
            stage: record.stage,
            access: record.access,
            seal: record.seal,
        }
    }
}

macro_rules! uuid_newtype {
    ($($name:ident),*) => {$(
        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                text.to_owned().try_into()
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                if is_uuid(&text) { Ok(Self(text)) } else { Err(IdError(text)) }
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    )*};
}
uuid_newtype!(ChainId, BootId);

pub(crate) fn is_uuid(text: &str) -> bool {
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let lengths = [8, 4, 4, 4, 12];
    let parts: Vec<_> = text.split('-').collect();
    parts.len() == lengths.len()
        && parts.iter().zip(lengths).all(|(part, length)| part.len() == length)
        && parts.iter().all(|part| part.bytes().all(lower_hex))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn good() -> Value {
        json!({
            "version": 2,
            "stack": "pv-1",
            "chain": "0b5e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c11",
            "boot": "9e107d9d-372b-4b5a-a9f1-7d0c4f3b2a10",
            "x": "253:3",
            "name": "vg-lv",
            "uuid": null,
            "original": "0 32768 linear 8:0 2048\n32768 32768 linear 8:16 0",
            "sectors": 65536,
            "granularity": "256Ki",
            "discards": "Limit",
            "metadata": "/var/lib/eratrack/pv-1/metadata",
            "metadata_size": 4_194_304,
            "phase": "Attached",
            "keeper": "Administrator",
            "stage": null,
            "access": false,
            "seal": null
        })
    }

    fn error_with(pointer: &str, value: Value) -> String {
        let mut record = good();
        *record.pointer_mut(pointer).unwrap() = value;
        serde_json::from_value::<Record>(record).unwrap_err().to_string()
    }

    #[test]
    fn a_good_record_reads_back_as_it_was() {
        let record: Record = serde_json::from_value(good()).unwrap();
        assert_eq!((record.sectors, record.blocks()), (Sectors(65536), 128));
        assert_eq!(serde_json::to_value(&record).unwrap(), good());
    }

    #[test]
    fn a_record_of_the_first_version_reads_as_it_was_meant() {
        let mut old = good();
        old["version"] = json!(1);
        for later in ["keeper", "stage", "access", "seal"] {
            old.as_object_mut().unwrap().remove(later);
        }
        let record: Record = serde_json::from_value(old).unwrap();
        assert_eq!((record.keeper, record.stage, record.access), (Keeper::Agent, None, false));
    }

    #[test]
    fn a_top_of_its_own_may_be_the_device() {
        let mut staged = good();
        staged["stage"] = json!({"path": "/dev/disk/by-id/a", "identity": null});
        staged["uuid"] = json!("CRYPT-SUBDEV-ERATRACK-pv-1-top");
        assert!(serde_json::from_value::<Record>(staged.clone()).is_ok());
        staged["uuid"] = json!("CRYPT-SUBDEV-ERATRACK-pv-2-top");
        let error = serde_json::from_value::<Record>(staged).unwrap_err().to_string();
        assert!(error.contains("eratrack's own"), "{error}");
    }

    #[test]
    fn what_does_not_agree_is_not_believed() {
        let says = |pointer: &str, value, part: &str| {
            let error = error_with(pointer, value);
            assert!(error.contains(part), "{pointer}: {error}");
        };
        says("/version", json!(3), "version is 3");
        says("/sectors", json!(65535), "its table has 65536");
        says("/original", json!("0 8 linear 8:0 0\n9 8 linear 8:0 9"), "starts at sector 9");
        says("/chain", json!("0B5E6A1C-4d0f-4f9e-8f43-0f5f2a3f0c11"), "is no uuid");
        says("/boot", json!(""), "is no uuid");
        says("/granularity", json!("192Ki"), "no power of two");
        says("/stack", json!("../pv"), "is no valid name");
        says("/x", json!("sda"), "no device number");
        says("/uuid", json!("CRYPT-SUBDEV-ERATRACK-a-era"), "eratrack's own");
        says("/metadata", json!("metadata"), "not an absolute path");
        says("/metadata", json!("/var/../etc"), "not an absolute path");
        says("/metadata", json!("/"), "not an absolute path");
        says("/metadata", json!({"disk": "/dev/sda"}), "did not match any");
        says("/metadata_size", json!(4097), "multiple of 4096");
        says("/metadata_size", json!(0), "multiple of 4096");
        says("/phase", json!("Lost"), "unknown variant");
        says("/discards", json!("Maybe"), "unknown variant");
    }

    #[test]
    fn unknown_and_missing_fields_are_not_believed() {
        let mut more = good();
        more["extra"] = json!(1);
        let error = serde_json::from_value::<Record>(more).unwrap_err().to_string();
        assert!(error.contains("unknown field `extra`"), "{error}");
        let mut less = good();
        less.as_object_mut().unwrap().remove("phase");
        let error = serde_json::from_value::<Record>(less).unwrap_err().to_string();
        assert!(error.contains("missing field `phase`"), "{error}");
    }
}
