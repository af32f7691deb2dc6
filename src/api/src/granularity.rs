//! The block sizes a volume can be tracked at.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// How finely changes are recorded: a power of two from 4 KiB to 1 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Granularity(u8);

/// A text that names no granularity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("granularity {0:?} is none of 4Ki, 8Ki, … 512Ki, 1Mi, 2Mi, … 512Mi, 1Gi")]
pub struct NotAGranularity(String);

const SMALLEST: u8 = 12;
const LARGEST: u8 = 30;

impl Granularity {
    /// All of them, from the finest.
    pub fn all() -> impl Iterator<Item = Self> {
        (SMALLEST..=LARGEST).map(Self)
    }

    /// The granularity of that many bytes, if there is one.
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        Self::all().find(|granularity| granularity.bytes() == bytes)
    }

    /// The size of a block in bytes.
    pub fn bytes(self) -> u64 {
        1 << self.0
    }
}

impl Default for Granularity {
    /// 256 KiB.
    fn default() -> Self {
        Self(18)
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = ["Ki", "Mi", "Gi"][usize::from(self.0 / 10 - 1)];
        write!(f, "{}{unit}", 1 << (self.0 % 10))
    }
}

impl FromStr for Granularity {
    type Err = NotAGranularity;

    fn from_str(text: &str) -> Result<Self, NotAGranularity> {
        Self::all()
            .find(|it| it.to_string() == text)
            .ok_or_else(|| NotAGranularity(text.to_owned()))
    }
}

impl TryFrom<String> for Granularity {
    type Error = NotAGranularity;

    fn try_from(text: String) -> Result<Self, NotAGranularity> {
        text.parse()
    }
}

impl From<Granularity> for String {
    fn from(granularity: Granularity) -> Self {
        granularity.to_string()
    }
}

impl JsonSchema for Granularity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Granularity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let all: Vec<String> = Self::all().map(String::from).collect();
        json_schema!({ "type": "string", "enum": all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_agree() {
        for granularity in Granularity::all() {
            assert_eq!(granularity.to_string().parse(), Ok(granularity));
            assert_eq!(Granularity::from_bytes(granularity.bytes()), Some(granularity));
        }
        let texts: Vec<String> = Granularity::all().map(String::from).collect();
        assert_eq!(texts[..3], ["4Ki", "8Ki", "16Ki"]);
        assert_eq!(texts[8], "1Mi");
        assert_eq!(texts[18], "1Gi");
        assert_eq!(texts.len(), 19);
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for text in ["100Ki", "2Ki", "2Gi", "256", "256KiB", ""] {
            let error = text.parse::<Granularity>().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }
}
