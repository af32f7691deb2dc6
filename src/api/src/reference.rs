//! A reference that a deleted and re-made object of the same name does not satisfy.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An object by name and uid.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct ObjectRef {
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The object's uid: an object made again under the same name has another.
    #[schemars(length(min = 36, max = 36))]
    pub uid: String,
}

/// The snapshot that a slice belongs to. Its name leaves room for the slice's index.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotRef {
    /// The EraSnapshot's name.
    #[schemars(length(min = 1, max = 243))]
    pub name: String,
    /// The EraSnapshot's uid.
    #[schemars(length(min = 36, max = 36))]
    pub uid: String,
}
