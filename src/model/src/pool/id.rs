use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::record::{IdError, is_uuid};

/// Names one pool: a uuid, made when the pool is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PoolId([u8; 16]);

impl PoolId {
    pub(super) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", u128::from_be_bytes(self.0));
        let text = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
        f.pad(&text)
    }
}

impl FromStr for PoolId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError(text.to_owned());
        if !is_uuid(text) {
            return Err(wrong());
        }
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        u128::from_str_radix(&digits, 16).map(|id| Self(id.to_be_bytes())).map_err(|_| wrong())
    }
}

impl TryFrom<String> for PoolId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<PoolId> for String {
    fn from(id: PoolId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pools_name_reads_back() {
        let text = "0b5e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c11";
        let id: PoolId = text.parse().unwrap();
        assert_eq!((id.to_string().as_str(), id.bytes()[..3].to_vec()), (text, vec![11, 94, 106]));
        assert_eq!(PoolId::from_bytes(id.bytes()), id);
        for bad in ["", "0b5e", "0B5E6A1C-4d0f-4f9e-8f43-0f5f2a3f0c11"] {
            assert!(bad.parse::<PoolId>().is_err(), "{bad}");
        }
    }
}
