//! The era target's status line (`era_status`, drivers/md/dm-era-target.c):
//! `<metadata block size> <used>/<total> <era> <held root | ->`, or `Error`.

use eratrack_model::Era;

use crate::port::StatusLine;

/// What X-era reports of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EraStatus {
    /// It works.
    Working {
        /// The current era.
        era: Era,
        /// Metadata blocks of 4 KiB in use.
        used: u64,
        /// Metadata blocks of 4 KiB there are.
        total: u64,
        /// The metadata snapshot that is held: the block of its superblock.
        held: Option<u64>,
    },
    /// dm-era reports `Error`: its metadata is full or failing, and writes to unmarked blocks
    /// fail. Detach at once.
    Error,
}

impl EraStatus {
    /// Reads what the target says; none if it is not understood.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "Error" {
            return Some(Self::Error);
        }
        let mut words = text.split(' ');
        let _block_size: u64 = words.next()?.parse().ok()?;
        let (used, total) = words.next()?.split_once('/')?;
        let (used, total) = (used.parse().ok()?, total.parse().ok()?);
        let era = Era(words.next()?.parse().ok()?);
        let held = match words.next()? {
            "-" => None,
            root => Some(root.parse().ok()?),
        };
        words.next().is_none().then_some(Self::Working { era, used, total, held })
    }
}

/// Reads the only line of an era device; what is not understood comes back as it is.
pub(crate) fn parse(lines: &[StatusLine]) -> Result<EraStatus, String> {
    match lines {
        [only] if only.target == "era" => {
            EraStatus::parse(only.text.trim()).ok_or_else(|| only.text.clone())
        }
        _ => Err(format!("{lines:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<EraStatus, String> {
        parse(&[StatusLine { target: "era".into(), text: text.into() }])
    }

    #[test]
    fn both_kinds_of_line_are_read() {
        let (era, used, total) = (Era(4), 21, 64);
        assert_eq!(of("8 21/64 4 -"), Ok(EraStatus::Working { era, used, total, held: None }));
        let held = Some(17);
        assert_eq!(of("8 21/64 4 17"), Ok(EraStatus::Working { era, used, total, held }));
        assert_eq!(of("Error"), Ok(EraStatus::Error));
    }

    #[test]
    fn what_is_not_understood_comes_back() {
        for text in ["", "8 21 4 -", "8 21/64 4", "8 21/64 4 - more", "8 21/64 x -"] {
            assert_eq!(of(text), Err(text.to_owned()));
        }
        assert!(parse(&[]).is_err());
    }
}
