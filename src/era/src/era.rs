use std::fmt;

/// A number that dm-era counts up at each rollover (`current_era` in
/// drivers/md/dm-era-target.c). Zero means "never": a fresh device is at zero
/// until its first resume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Era(pub u32);

impl fmt::Display for Era {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
