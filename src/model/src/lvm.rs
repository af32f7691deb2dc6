//! What of LVM's naming must be understood: to take its lock, and to see what a device is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::{DmName, DmUuid};

/// A volume group's name, safe to use in the name of LVM's lock file (`V_<name>`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VgName(String);

/// A device-mapper name of LVM's, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LvmName {
    /// The volume group.
    pub vg: VgName,
    /// The logical volume.
    pub lv: String,
    /// The inner layer, such as `real` or `tpool`, if it is one.
    pub layer: Option<String>,
}

/// What the uuid of an LVM device tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LvmUuid<'a> {
    /// A logical volume that users see.
    Volume,
    /// An inner device, such as `-real`, `-cow`, `-tpool`, `-tdata`.
    Inner(&'a str),
}

impl VgName {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Checked against LVM's own rule (`validate_name`, lib/misc/lvm-string.c): up to 127 of
    /// `a-zA-Z0-9+_.-`, not starting with a hyphen, not `.` nor `..`.
    pub fn new(text: &str) -> Option<Self> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+_.-".contains(&b);
        let fits = (1..=127).contains(&text.len()) && text.bytes().all(allowed);
        let meant = !text.starts_with('-') && text != "." && text != "..";
        (fits && meant).then(|| Self(text.to_owned()))
    }
}

impl LvmName {
    /// Undoes LVM's joining: parts are joined by one hyphen, a hyphen within a part is doubled
    /// (`dm_build_dm_name`, libdm/libdm-string.c).
    pub fn parse(name: &DmName) -> Option<Self> {
        let mut parts = split(name.as_str()).into_iter();
        let (vg, lv, layer) = (parts.next()?, parts.next()?, parts.next());
        let complete = parts.next().is_none() && !lv.is_empty();
        complete.then_some(Self { vg: VgName::new(&vg)?, lv, layer })
    }
}

fn split(name: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '-' || chars.next_if_eq(&'-').is_some() {
            part.push(c);
        } else {
            parts.push(std::mem::take(&mut part));
        }
    }
    parts.push(part);
    parts
}

impl<'a> LvmUuid<'a> {
    /// `LVM-`, the group's and the volume's ids (32 characters each), and perhaps a layer.
    pub fn parse(uuid: &'a DmUuid) -> Option<Self> {
        let rest = uuid.as_str().strip_prefix("LVM-")?;
        let (ids, layer) = rest.split_at_checked(64)?;
        if !ids.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return None;
        }
        match layer.strip_prefix('-') {
            Some(layer) if !layer.is_empty() => Some(Self::Inner(layer)),
            None if layer.is_empty() => Some(Self::Volume),
            _ => None,
        }
    }
}

/// The id of the volume group, out of the uuid of a volume that users see; none for an inner
/// device and for what is not LVM's.
pub fn group_of(uuid: &DmUuid) -> Option<&str> {
    match LvmUuid::parse(uuid)? {
        LvmUuid::Volume => uuid.as_str().get(4..36),
        LvmUuid::Inner(_) => None,
    }
}

impl fmt::Display for VgName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for VgName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::new(&text).ok_or_else(|| format!("{text:?} is no volume group's name"))
    }
}

impl From<VgName> for String {
    fn from(name: VgName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(name: &str) -> Option<(String, String, Option<String>)> {
        let LvmName { vg, lv, layer } = LvmName::parse(&name.parse().unwrap())?;
        Some((vg.into(), lv, layer))
    }

    fn of(vg: &str, lv: &str, layer: Option<&str>) -> (String, String, Option<String>) {
        (vg.into(), lv.into(), layer.map(Into::into))
    }

    #[test]
    fn hyphens_are_undone() {
        assert_eq!(parts("vg-lv"), Some(of("vg", "lv", None)));
        assert_eq!(parts("vg--a-lv"), Some(of("vg-a", "lv", None)));
        assert_eq!(parts("vg----a-lv--1--b"), Some(of("vg--a", "lv-1-b", None)));
        assert_eq!(parts("vg0-pool-tpool"), Some(of("vg0", "pool", Some("tpool"))));
        assert_eq!(parts("vg.x-lv_tdata"), Some(of("vg.x", "lv_tdata", None)));
    }

    #[test]
    fn what_is_no_lvm_name_is_none() {
        for name in ["plain", "a--b", "-lv", "vg-", "a-b-c-d", "..-lv", "v g-lv"] {
            assert_eq!(parts(name), None, "{name}");
        }
    }

    #[test]
    fn uuids_tell_volumes_from_inner_devices() {
        let ids = "BmyQ8xV6m1F7w3kq0DpQw2s4ZyUjvE1sPvK7NnYb3cT9hR5gXoLdCaJtIuHfGeWz";
        let parse = |suffix: &str| {
            let uuid: DmUuid = format!("LVM-{ids}{suffix}").parse().unwrap();
            match LvmUuid::parse(&uuid) {
                Some(LvmUuid::Volume) => Some("volume".to_owned()),
                Some(LvmUuid::Inner(layer)) => Some(layer.to_owned()),
                None => None,
            }
        };
        assert_eq!(parse(""), Some("volume".into()));
        for layer in ["real", "cow", "tpool", "tdata"] {
            assert_eq!(parse(&format!("-{layer}")), Some(layer.into()));
        }
        assert_eq!((parse("-"), parse("x")), (None, None));
        let short: DmUuid = "LVM-abc".parse().unwrap();
        assert_eq!(LvmUuid::parse(&short), None);
    }
}
