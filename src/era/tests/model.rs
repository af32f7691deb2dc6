//! Whatever happened to a device, the lists are exactly what was written.

#[allow(dead_code, reason = "each test binary uses its part of the generator")]
mod generator;

use era_metadata::{BlockSet, Era, MemorySource, Metadata, View};
use proptest::prelude::*;

fn numbers(blocks: &BlockSet) -> Vec<u64> {
    blocks.runs().flat_map(|run| run.first..=run.last).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn lists_are_what_was_written(history in generator::histories()) {
        let source = MemorySource::new(generator::image(&history).bytes());
        let metadata = Metadata::open(&source, View::Live).unwrap();
        for since in 0..=history.current_era().0 {
            let changed = metadata.changed_since(Era(since)).map_err(|e| e.to_string());
            let changed = changed.map(|changed| (numbers(&changed), changed.count()));
            let expected = history.changed_since(Era(since));
            let count = expected.len() as u64;
            prop_assert_eq!(changed, Ok((expected, count)), "since {}", since);
        }
    }

    /// Damage is either noticed or beside the point.
    #[test]
    fn a_flipped_bit_changes_no_list(
        history in generator::histories(),
        block in any::<prop::sample::Index>(),
        bit in 0..4096_usize * 8,
        since in 0_u32..12,
    ) {
        let mut image = generator::image(&history);
        let block = block.index(image.blocks.len());
        let byte = image.blocks[block].1[bit / 8] ^ (1 << (bit % 8));
        image.put(block, bit / 8, &[byte]);
        let source = MemorySource::new(image.bytes());
        let since = Era(since.min(history.current_era().0));
        let changed = Metadata::open(&source, View::Live).and_then(|m| m.changed_since(since));
        match changed {
            Ok(changed) => prop_assert_eq!(numbers(&changed), history.changed_since(since)),
            Err(error) => {
                let text = error.to_string();
                let named = [format!("block {block}: "), format!("block {block} is ")];
                prop_assert!(named.iter().any(|n| text.contains(n)), "{} lacks {}", text, block);
            }
        }
    }
}
