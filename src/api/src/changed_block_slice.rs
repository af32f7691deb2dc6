//! `ChangedBlockSlice`: a part of a snapshot's list of changed blocks.
//!
//! Data, not state: made whole, never changed, found by name (`<snapshot>-<first>` … `<snapshot>-<first + count - 1>`, with
//! `first` and `count` from the snapshot's status), never by list or watch.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::era_snapshot::SliceSummary;
use crate::names::hex;
use crate::reference::SnapshotRef;

/// A part of the list of one snapshot. Like an EndpointSlice it has neither spec nor status.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "eratrack.dev",
    version = "v1alpha1",
    kind = "ChangedBlockSlice",
    plural = "changedblockslices",
    namespaced,
    no_spec,
    derive = "PartialEq",
    shortname = "cbs",
    category = "eratrack",
    doc = "A part of the list of changed blocks of an EraSnapshot, found by name: the snapshot's name, a hyphen, and the index. Immutable.",
    validation = Rule::new("self.metadata.name.startsWith(self.snapshot.name + '-') && self.metadata.name.substring(size(self.snapshot.name) + 1) == string(self.index)").message("metadata.name must be the snapshot's name, a hyphen and the index"),
    validation = Rule::new("self.index % 16 < self.count && self.first <= self.last && self.blocks <= self.last - self.first + 1").message("index, first, last and blocks contradict each other"),
    validation = Rule::new("self.snapshot == oldSelf.snapshot && self.index == oldSelf.index && self.count == oldSelf.count && self.blockSizeBytes == oldSelf.blockSizeBytes && self.encoding == oldSelf.encoding && self.ranges == oldSelf.ranges").message("a slice is immutable"),
    validation = Rule::new("self.blocks == oldSelf.blocks && self.first == oldSelf.first && self.last == oldSelf.last && has(self.nodeName) == has(oldSelf.nodeName) && (!has(self.nodeName) || self.nodeName == oldSelf.nodeName)").message("a slice is immutable"),
    selectable = ".snapshot.name",
    printcolumn(name = "Snapshot", type_ = "string", json_path = ".snapshot.name"),
    printcolumn(name = "Index", type_ = "integer", json_path = ".index"),
    printcolumn(name = "Of", type_ = "integer", json_path = ".count"),
    printcolumn(name = "BlockSize", type_ = "integer", json_path = ".blockSizeBytes"),
    printcolumn(name = "Blocks", type_ = "integer", json_path = ".blocks"),
    printcolumn(name = "First", type_ = "integer", json_path = ".first"),
    printcolumn(name = "Last", type_ = "integer", json_path = ".last"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ChangedBlockSliceFields {
    /// The EraSnapshot whose list this is a part of.
    pub snapshot: SnapshotRef,
    /// The node whose agent wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub node_name: Option<String>,
    /// Which part it is, from 0; or from 16, if the list was made by a merge (see `status.slices.first` of the snapshot).
    #[schemars(range(min = 0, max = 31))]
    pub index: u32,
    /// How many parts there are.
    #[schemars(range(min = 1, max = 16))]
    pub count: u32,
    /// The size of a block.
    #[schemars(range(min = 4096))]
    pub block_size_bytes: u64,
    /// How many blocks this part lists.
    pub blocks: u64,
    /// The first block it lists.
    pub first: u64,
    /// The last block it lists.
    pub last: u64,
    /// How `ranges` is to be read. A reader must look: a denser encoding may come.
    pub encoding: Encoding,
    /// The blocks: ranges with both ends included, ascending, such as `0,2-4,30-49`.
    #[schemars(
        length(min = 1, max = 98304),
        regex(pattern = r"^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$")
    )]
    pub ranges: String,
}

/// How a slice's `ranges` is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Encoding {
    /// Decimal numbers and ranges, separated by commas.
    List,
}

/// What the snapshot's status says of a list cut into these `ranges` texts, in the order of their index.
pub fn summary<'a>(parts: impl IntoIterator<Item = &'a str>) -> SliceSummary {
    parts.into_iter().fold(Summing::default(), Summing::with).finish()
}

/// The same, for who does not hold all the texts at once.
#[derive(Clone, Debug, Default)]
pub struct Summing {
    digest: Sha256,
    count: u32,
    bytes: u64,
}

impl Summing {
    /// With the `ranges` of the next slice.
    #[must_use]
    pub fn with(mut self, part: &str) -> Self {
        if self.count > 0 {
            self.digest.update(b",");
            self.bytes += 1;
        }
        self.digest.update(part.as_bytes());
        self.bytes += part.len() as u64;
        self.count += 1;
        self
    }

    /// Once it has seen them all.
    pub fn finish(self) -> SliceSummary {
        let Self { digest, count, bytes } = self;
        SliceSummary { count, first: 0, bytes, sha256: hex(&digest.finalize()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_does_not_depend_on_the_cut() {
        let [whole, cut] = [vec!["0,2-4,30-49"], vec!["0,2-4", "30-49"]].map(summary);
        assert_eq!(whole.sha256, cut.sha256);
        assert_eq!((whole.bytes, cut.bytes), (11, 11));
        assert_eq!((whole.count, cut.count), (1, 2));
    }

    #[test]
    fn an_empty_list_has_the_digest_of_nothing() {
        let none = summary([]);
        assert_eq!((none.count, none.bytes), (0, 0));
        assert!(none.sha256.starts_with("e3b0c44298fc1c14"), "{}", none.sha256);
    }

    #[test]
    fn fields_lie_at_the_top() {
        let slice = ChangedBlockSlice::new(
            "s-0",
            ChangedBlockSliceFields {
                snapshot: SnapshotRef { name: "s".into(), uid: "u".into() },
                node_name: None,
                index: 0,
                count: 1,
                block_size_bytes: 4096,
                blocks: 1,
                first: 7,
                last: 7,
                encoding: Encoding::List,
                ranges: "7".into(),
            },
        );
        let json = serde_json::to_value(&slice).unwrap();
        assert_eq!(json["snapshot"]["name"], "s");
        assert_eq!(serde_json::from_value::<ChangedBlockSlice>(json).unwrap(), slice);
    }
}
