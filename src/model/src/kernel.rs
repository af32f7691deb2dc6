//! Which kernels keep what dm-era recorded.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A kernel's release as `uname -r` prints it, up to its third number.
///
/// What a distribution appends (`-91-generic`, `-362.el9`) is not looked at: fixes it carried
/// over to a lower number cannot be seen there, so such a kernel counts by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelRelease {
    /// 6 of 6.1.176.
    pub major: u32,
    /// 1 of 6.1.176.
    pub minor: u32,
    /// 176 of 6.1.176.
    pub patch: u32,
}

/// A release that does not start with two numbers.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no kernel release; expected one such as 6.1.176")]
pub struct ReleaseError(String);

impl KernelRelease {
    /// Whether dm-era there is durable: 5.15.51 and later 5.15, or 6.1 and later.
    ///
    /// The committed writeset is kept since 5.12, but a suspend could lose it until "dm era:
    /// commit metadata in postsuspend after worker stops" (5.19, and 5.15.51). 5.16 to 6.0 are
    /// out of support, and refused with the rest.
    pub fn era_is_durable(self) -> bool {
        (self.major, self.minor) >= (6, 1)
            || (self.major, self.minor) == (5, 15) && self.patch >= 51
    }
}

impl fmt::Display for KernelRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for KernelRelease {
    type Err = ReleaseError;

    fn from_str(text: &str) -> Result<Self, ReleaseError> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let mut numbers = text[..end].split('.').map(|number| number.parse::<u32>().ok());
        let (major, minor) = (numbers.next().flatten(), numbers.next().flatten());
        let patch = numbers.next().flatten().unwrap_or(0);
        let (Some(major), Some(minor)) = (major, minor) else {
            return Err(ReleaseError(text.to_owned()));
        };
        Ok(Self { major, minor, patch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_are_read() {
        let shown = |text: &str| text.parse::<KernelRelease>().map(|found| found.to_string());
        assert_eq!(shown("6.1.176"), Ok("6.1.176".into()));
        assert_eq!(shown("5.15.0-91-generic"), Ok("5.15.0".into()));
        assert_eq!(shown("6.8-rc3"), Ok("6.8.0".into()));
        assert_eq!(shown("5.14.0-362.8.1.el9_3.x86_64"), Ok("5.14.0".into()));
        for bad in ["", "6", "linux", "6.x"] {
            assert_eq!(shown(bad), Err(ReleaseError(bad.into())));
        }
    }

    #[test]
    fn only_kernels_with_both_fixes_are_durable() {
        let durable = |text: &str| text.parse::<KernelRelease>().unwrap().era_is_durable();
        for good in ["5.15.51", "5.15.180-amd64", "6.1.0", "6.1.176", "6.12.1", "7.0"] {
            assert!(durable(good), "{good}");
        }
        for bad in ["4.19.300", "5.10.200", "5.15.50", "5.15.0-91-generic", "5.16.20", "6.0.19"] {
            assert!(!durable(bad), "{bad}");
        }
    }
}
