//! What LVM reports as JSON.

use std::io;

use eratrack_model::units::{Bytes, DevNo};
use serde::Deserialize;

/// The stack's volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its number; none while it is not active.
    pub(super) number: Option<DevNo>,
    tags: String,
}

impl Found {
    pub(super) fn has(&self, tag: &str) -> bool {
        self.tags.split(',').any(|found| found == tag)
    }
}

#[derive(Deserialize)]
struct Reports<T> {
    report: Vec<T>,
}

#[derive(Deserialize)]
struct Volumes {
    lv: Vec<VolumeRow>,
}

#[derive(Deserialize)]
struct VolumeRow {
    #[serde(rename = "lv_tags")]
    tags: String,
    #[serde(rename = "lv_kernel_major")]
    major: String,
    #[serde(rename = "lv_kernel_minor")]
    minor: String,
}

#[derive(Deserialize)]
struct Groups {
    vg: Vec<GroupRow>,
}

#[derive(Deserialize)]
struct GroupRow {
    vg_free: String,
    vg_extent_size: String,
}

pub(super) fn volume(text: &str) -> io::Result<Option<Found>> {
    let found: Reports<Volumes> = serde_json::from_str(text).map_err(io::Error::other)?;
    let Some(row) = found.report.into_iter().flat_map(|report| report.lv).next() else {
        return Ok(None);
    };
    let number = format!("{}:{}", row.major, row.minor).parse().ok();
    Ok(Some(Found { number, tags: row.tags }))
}

/// What is free and what is needed in whole extents, where it is too little.
pub(super) fn vg_free(text: &str, needed: Bytes) -> io::Result<Option<(Bytes, Bytes)>> {
    let found: Reports<Groups> = serde_json::from_str(text).map_err(io::Error::other)?;
    let row = found.report.into_iter().flat_map(|report| report.vg).next();
    let row = row.ok_or_else(|| io::Error::other("no group in it"))?;
    let figure = |text: &str| text.parse::<u64>().map_err(io::Error::other);
    let (free, extent) = (figure(&row.vg_free)?, figure(&row.vg_extent_size)?.max(1));
    let needed = needed.0.div_ceil(extent).saturating_mul(extent);
    Ok((free < needed).then_some((Bytes(free), Bytes(needed))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(tags: &str, major: &str) -> String {
        format!(
            r#"{{"report":[{{"lv":[{{"lv_tags":"{tags}","lv_kernel_major":"{major}","lv_kernel_minor":"7"}}]}}],"log":[]}}"#
        )
    }

    #[test]
    fn a_volume_is_understood_as_lvm_reports_it() {
        let number = Some(DevNo { major: 253, minor: 7 });
        let found = |tags, major| volume(&report(tags, major)).unwrap();
        let ours = found("a,eratrack-1", "253").unwrap();
        assert_eq!(
            (ours.number, ours.has("eratrack-1"), ours.has("eratrack")),
            (number, true, false)
        );
        assert_eq!(found("", "-1").unwrap().number, None);
        assert_eq!(volume(r#"{"report":[{"lv":[]}]}"#).unwrap(), None);
        assert!(volume("").is_err());
    }

    #[test]
    fn room_is_counted_in_whole_extents() {
        let group = |free: u64| {
            format!(r#"{{"report":[{{"vg":[{{"vg_free":"{free}","vg_extent_size":"4096"}}]}}]}}"#)
        };
        assert_eq!(vg_free(&group(8192), Bytes(4097)).unwrap(), None);
        let short = vg_free(&group(8191), Bytes(4097)).unwrap();
        assert_eq!(short, Some((Bytes(8191), Bytes(8192))));
    }
}
