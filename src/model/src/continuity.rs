//! Whether a chain goes on after a reboot (invariant I2): only if it is proven that nothing was
//! written to X between the moment it was sealed, at shutdown, and the moment era is back.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::record::{BootId, Record};
use crate::table::Table;

/// What is known of X at shutdown, when nobody has it open any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// The boot that ended with it.
    pub boot: BootId,
    /// What was in X's first and last MiB.
    pub ends: Digest,
    /// What is in X, as far as it says so there.
    pub contents: Contents,
    /// The first look at it after that; none yet. It tells nothing in a later boot, nor of a device
    /// made anew since, whose count of writes has begun again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Use>,
}

/// A look at a seal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Use {
    /// In which boot.
    pub boot: BootId,
    /// The sequence number of the device whose writes are counted (`diskseq`); none if it was not
    /// there.
    pub sequence: Option<u64>,
}

/// What is in a device, by the marks at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Contents {
    /// A filesystem that writes its superblock, in the first MiB, whenever it is mounted to be
    /// written, before anything else: ext2 to ext4.
    Filesystem,
    /// Anything else: whoever writes it need not touch its ends. XFS writes its superblock when it
    /// is unmounted, if at all: without checksums (`crc=0`) only when something was allocated.
    Unknown,
}

/// SHA-256, as 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// A text that is no digest.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no digest; expected 64 hexadecimal digits in lower case")]
pub struct DigestError(String);

/// What is found after the boot, before era is back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The boot that runs, and the device whose writes are counted.
    pub now: Use,
    /// X's table.
    pub table: Option<Table>,
    /// Writes and discards that X, or what an X of ours is put over, has completed or begun since
    /// it appeared; none if they were not counted from the start.
    pub writes: Option<u64>,
    /// What is in X's first and last MiB.
    pub ends: Digest,
}

/// What the administrator vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Nothing.
    Nothing,
    /// Nobody else writes to this machine's disks while it is off, and every boot of it runs
    /// `restore`.
    PoweredOff,
}

/// Why a chain ended with the machine's last boot.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Break {
    /// Cut off, or shut down while in use.
    #[error(
        "it was not sealed: the machine was not shut down in order, or the device was in use until the end"
    )]
    NotSealed,
    /// A boot came between that did not put era back.
    #[error("it was sealed in boot {sealed}, but the stack is of boot {recorded}")]
    OtherBoot {
        /// The seal's boot.
        sealed: BootId,
        /// The record's.
        recorded: BootId,
    },
    /// It was looked at before, in another boot or of another making of the device, and era was not
    /// put back.
    #[error("its seal was looked at in boot {0}, and the device may have been written since")]
    Used(BootId),
    /// X maps something else now.
    #[error("the device's table is {now}, not {recorded}")]
    Table {
        /// What it is.
        now: String,
        /// What it was.
        recorded: String,
    },
    /// X was used before era was back.
    #[error("{0} writes reached the device before era was back; have restore run earlier")]
    Written(u64),
    /// Nobody knows.
    #[error(
        "the device's writes were not counted from the start; `eratrack device install-unit` writes a udev rule that has them counted"
    )]
    NotCounted,
    /// X was used elsewhere.
    #[error(
        "the first or last MiB of the device is not what it was at shutdown: it was written elsewhere"
    )]
    Ends,
    /// X may have been used elsewhere, without a trace.
    #[error(
        "nothing in the device would show a write from elsewhere; vouch for it with --trust-powered-off"
    )]
    NoTrace,
}

/// Proof that a chain goes on: made by [`judge`] alone.
#[derive(Debug, PartialEq, Eq)]
pub struct Proof(());

/// Whether a stack's chain goes on. What is found must be found again once era is back: a write
/// in between counts as well.
pub fn judge(record: &Record, found: &Evidence, trust: Trust) -> Result<Proof, Break> {
    let seal = record.seal.as_ref().ok_or(Break::NotSealed)?;
    if seal.boot != record.boot {
        return Err(Break::OtherBoot { sealed: seal.boot.clone(), recorded: record.boot.clone() });
    }
    if let Some(used) = &seal.used
        && (*used != found.now || used.sequence.is_none())
    {
        return Err(Break::Used(used.boot.clone()));
    }
    if found.table.as_ref() != Some(&record.original) {
        let line = |table: &Table| table.to_string().replace('\n', "; ");
        let now = found.table.as_ref().map_or_else(|| "none".to_owned(), line);
        return Err(Break::Table { now, recorded: line(&record.original) });
    }
    match found.writes {
        None => return Err(Break::NotCounted),
        Some(0) => {}
        Some(writes) => return Err(Break::Written(writes)),
    }
    if found.ends != seal.ends {
        return Err(Break::Ends);
    }
    match (seal.contents, trust) {
        (Contents::Unknown, Trust::Nothing) => Err(Break::NoTrace),
        (Contents::Filesystem, _) | (Contents::Unknown, Trust::PoweredOff) => Ok(Proof(())),
    }
}

/// What a device's first blocks say of its contents.
pub fn contents(start: &[u8]) -> Contents {
    // s_magic in ext4.h.
    let ext = start.get(1024 + 56..1024 + 58) == Some(b"\x53\xef");
    // A partition table may stand before the superblock of an earlier time.
    let partitioned = start.get(510..512) == Some(b"\x55\xaa");
    if ext && !partitioned { Contents::Filesystem } else { Contents::Unknown }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 64 && text.bytes().all(hex) {
            Ok(Self(text))
        } else {
            Err(DigestError(text))
        }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn digest(of: char) -> Digest {
        of.to_string().repeat(64).parse().unwrap()
    }

    fn record(contents: &str) -> Record {
        serde_json::from_value(json!({
            "version": 2,
            "stack": "a",
            "chain": "0b5e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c11",
            "boot": "9e107d9d-372b-4b5a-a9f1-7d0c4f3b2a10",
            "x": "253:3",
            "name": "vg-lv",
            "uuid": null,
            "original": "0 65536 linear 8:0 2048",
            "sectors": 65536,
            "granularity": "256Ki",
            "discards": "Limit",
            "metadata": "/var/lib/eratrack/a/era-metadata",
            "metadata_size": 4_194_304,
            "phase": "Attached",
            "keeper": "Administrator",
            "seal": {
                "boot": "9e107d9d-372b-4b5a-a9f1-7d0c4f3b2a10",
                "ends": digest('a'),
                "contents": contents,
            },
        }))
        .unwrap()
    }

    fn found() -> Evidence {
        let table = Some("0 65536 linear 8:0 2048".parse().unwrap());
        let boot = "11111111-372b-4b5a-a9f1-7d0c4f3b2a10".parse().unwrap();
        let now = Use { boot, sequence: Some(12) };
        Evidence { now, table, writes: Some(0), ends: digest('a') }
    }

    #[test]
    fn a_sealed_filesystem_that_nobody_wrote_goes_on() {
        let record = record("Filesystem");
        assert!(judge(&record, &found(), Trust::Nothing).is_ok());
    }

    #[test]
    fn whatever_may_have_been_written_ends_the_chain() {
        let record = record("Filesystem");
        let judged = |found: Evidence| judge(&record, &found, Trust::PoweredOff).unwrap_err();
        assert_eq!(judged(Evidence { writes: Some(1), ..found() }), Break::Written(1));
        assert_eq!(judged(Evidence { writes: None, ..found() }), Break::NotCounted);
        assert_eq!(judged(Evidence { ends: digest('b'), ..found() }), Break::Ends);
        let moved = Some("0 65536 linear 8:0 4096".parse().unwrap());
        assert!(matches!(judged(Evidence { table: moved, ..found() }), Break::Table { .. }));
        assert!(matches!(judged(Evidence { table: None, ..found() }), Break::Table { .. }));
    }

    #[test]
    fn without_a_seal_of_the_same_boot_the_chain_ends() {
        let mut unsealed = record("Filesystem");
        unsealed.seal = None;
        assert_eq!(judge(&unsealed, &found(), Trust::PoweredOff), Err(Break::NotSealed));
        let mut later = record("Filesystem");
        later.boot = "00000000-372b-4b5a-a9f1-7d0c4f3b2a10".parse().unwrap();
        let judged = judge(&later, &found(), Trust::PoweredOff);
        assert!(matches!(judged, Err(Break::OtherBoot { .. })), "{judged:?}");
    }

    #[test]
    fn a_seal_that_an_earlier_boot_used_ends_the_chain() {
        let mut record = record("Filesystem");
        let now = found();
        let boot = now.now.boot.clone();
        record.seal.as_mut().unwrap().used = Some(now.now.clone());
        assert!(judge(&record, &now, Trust::Nothing).is_ok(), "it is tried again in the same boot");
        let later = Use { boot: record.boot.clone(), sequence: Some(12) };
        let anew = Use { boot: boot.clone(), sequence: Some(13) };
        for now in [later, anew] {
            let judged = judge(&record, &Evidence { now, ..found() }, Trust::PoweredOff);
            assert_eq!(judged, Err(Break::Used(boot.clone())));
        }
        let unseen = Use { boot: boot.clone(), sequence: None };
        record.seal.as_mut().unwrap().used = Some(unseen.clone());
        let judged = judge(&record, &Evidence { now: unseen, ..found() }, Trust::PoweredOff);
        assert_eq!(judged, Err(Break::Used(boot)), "nobody has counted");
    }

    #[test]
    fn what_shows_no_trace_needs_somebody_who_vouches_for_it() {
        let raw = record("Unknown");
        assert_eq!(judge(&raw, &found(), Trust::Nothing), Err(Break::NoTrace));
        assert!(judge(&raw, &found(), Trust::PoweredOff).is_ok());
    }

    #[test]
    fn filesystems_are_known_by_their_marks() {
        let mut start = vec![0; 128 << 10];
        start[1080..1082].copy_from_slice(b"\x53\xef");
        assert_eq!(contents(&start), Contents::Filesystem);
        start[510..512].copy_from_slice(b"\x55\xaa");
        assert_eq!(
            contents(&start),
            Contents::Unknown,
            "a partition table before an old superblock"
        );
        let with = |offset: usize, mark: &[u8]| {
            let mut start = vec![0; 128 << 10];
            start[offset..offset + mark.len()].copy_from_slice(mark);
            contents(&start)
        };
        assert_eq!(with(0, b"XFSB"), Contents::Unknown);
        assert_eq!(with(512, b"EFI PART"), Contents::Unknown);
        assert_eq!(contents(&[]), Contents::Unknown);
    }
}
