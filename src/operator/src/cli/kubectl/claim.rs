//! The name of a claim, as a user writes it.

use std::fmt;
use std::str::FromStr;

/// `CLAIM`, or `NAMESPACE/CLAIM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) namespace: Option<String>,
    pub(super) name: String,
}

/// Not of that form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give the claim as NAME, or as NAMESPACE/NAME")]
pub(super) struct NotAClaim;

impl FromStr for Claim {
    type Err = NotAClaim;

    fn from_str(text: &str) -> Result<Self, NotAClaim> {
        // What would mean something else within a URL or a field selector is no name.
        let word = |part: &str| {
            let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
            !part.is_empty() && part.len() <= 253 && part.chars().all(good)
        };
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        if word(name) && namespace.is_none_or(word) {
            Ok(Self { namespace: namespace.map(str::to_owned), name: name.to_owned() })
        } else {
            Err(NotAClaim)
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_has_a_name_and_may_have_a_namespace() {
        let claim: Claim = "shop/data-0".parse().unwrap();
        assert_eq!((claim.namespace.as_deref(), claim.name.as_str()), (Some("shop"), "data-0"));
        assert_eq!("data".parse::<Claim>().unwrap().to_string(), "data");
        for bad in ["", "/", "shop/", "/data", "a/b/c", "a,b=c", "A", "a b"] {
            assert_eq!(bad.parse::<Claim>(), Err(NotAClaim), "{bad}");
        }
    }
}
