//! Where a file lies on its device, by the filesystem's own word.

use crate::failure::Outcome;

/// Where a part of a file lies on the device, by the output of `filefrag -v -b4096`: offsets and lengths in bytes.
pub(crate) fn device_places(map: &str, offset: u64, length: u64) -> Outcome<Vec<(u64, u64)>> {
    const BLOCK: u64 = 4096;
    let end = offset + length;
    let mut places = Vec::new();
    // "   0:        0..    4095:      34816..     38911:   4096:             last,eof"
    for line in map.lines() {
        let numbers: Vec<u64> = line
            .split(|letter: char| !letter.is_ascii_digit())
            .filter_map(|word| word.parse().ok())
            .collect();
        let (true, [_, first, last, physical, ..]) = (line.contains(".."), numbers.as_slice())
        else {
            continue;
        };
        let (from, to) = (offset.max(first * BLOCK), end.min((last + 1) * BLOCK));
        if from < to {
            places.push((physical * BLOCK + from - first * BLOCK, to - from));
        }
    }
    let found: u64 = places.iter().map(|(_, length)| length).sum();
    if found == length {
        Ok(places)
    } else {
        Err(format!("the map of the file has holes:\n{map}").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "Filesystem type is: ef53
File size of /x/known is 16777216 (4096 blocks of 4096 bytes)
 ext:     logical_offset:        physical_offset: length:   expected: flags:
   0:        0..    2047:      34816..     36863:   2048:
   1:     2048..    4095:      40960..     43007:   2048:      36864: last,eof
/x/known: 2 extents found";

    #[test]
    fn a_part_of_a_file_is_found_on_the_device() {
        assert_eq!(device_places(MAP, 0, 4096).unwrap(), [(34816 * 4096, 4096)]);
        let across = device_places(MAP, 2048 * 4096 - 10, 20).unwrap();
        assert_eq!(across, [(36864 * 4096 - 10, 10), (40960 * 4096, 10)]);
        assert!(device_places(MAP, 4095 * 4096, 8192).is_err());
    }
}
