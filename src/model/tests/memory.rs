//! Invariant I7: however a device was written, a list costs one bit a block and what is published.

use eratrack_model::extents::ChangedBlocks;
use eratrack_model::slices::{SliceLimits, fit};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Sixteen texts of 96 KiB, in strings that grow by doubling.
const PUBLISHED: usize = 2 * 16 * (96 << 10);
const FIXED: usize = 64 << 10;

/// Every other block of a million: a list of runs would take 8 MiB.
#[test]
fn a_list_that_is_fitted_is_never_in_memory() {
    const BLOCKS: u64 = 1 << 20;
    for dilation in [0, 1] {
        MEMORY.reset_peak_usage();
        let start = MEMORY.current_usage();
        let marked = (0..BLOCKS).step_by(2 + usize::try_from(dilation).unwrap()).collect();
        let changed = ChangedBlocks::new(marked, dilation, BLOCKS);
        let fitted = fit(changed.iter(), SliceLimits::DEFAULT);
        let used = MEMORY.peak_usage() - start;
        // A vector that grows has up to twice the room, and for a moment the old one beside it.
        let bits = 3 * usize::try_from(BLOCKS / 8).unwrap();
        assert!(used <= bits + PUBLISHED + FIXED, "{used} bytes");
        assert!(fitted.closed_gaps > 100_000 && fitted.listed_blocks > changed.blocks());
    }
}
