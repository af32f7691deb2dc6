//! A pool's table. A byte says whether its checksum is repaired, and the rest is a copy of it.

#![no_main]

use eratrack_model::pool::{Area, Copies, Copy, ReadError, Table};
use eratrack_model::units::Bytes;
use libfuzzer_sys::fuzz_target;

const AREAS: usize = 28;
const HEAD: usize = 4096;
const ENTRY: usize = 128;

fuzz_target!(|data: &[u8]| {
    let [repair, rest @ ..] = data else { return };
    let mut bytes = rest.to_vec();
    if repair & 1 == 0 {
        seal(&mut bytes);
    }
    if let Ok(decoded) = Table::decode(&bytes) {
        let encoded = decoded.table.encode(decoded.copy);
        assert_eq!(Table::decode(&encoded).as_ref(), Ok(&decoded));
        assert!(decoded.table.used() <= decoded.table.disk());
        assert!(decoded.table.room() <= decoded.table.disk());
    }
    on_a_disk(&bytes, Bytes(u64::from(*repair) << 20));
});

/// The same bytes as both copies on a disk of that length.
fn on_a_disk(bytes: &[u8], disk: Bytes) {
    let (mut reads, mut longest) = (0, 0);
    let found = Copies::read(disk, |offset, into: &mut [u8]| {
        reads += 1;
        longest = longest.max(into.len());
        assert!(offset + into.len() as u64 <= disk.0, "read beyond the end of the disk");
        into.fill(0);
        let length = into.len().min(bytes.len());
        into[..length].copy_from_slice(&bytes[..length]);
        Ok::<(), ReadError>(())
    });
    assert!(reads <= 6 && longest <= 1 << 20, "{reads} reads, the longest of {longest} bytes");
    let Ok(copies) = found else { return };
    let stack = "fuzzed".parse().expect("a name");
    if let Ok((next, area)) = copies.table.allocate(&stack, Bytes(1 << 20), &[]) {
        let end = area.start.0 + area.length.0;
        let apart =
            |other: &Area| other.start.0 >= end || area.start.0 >= other.start.0 + other.length.0;
        assert!(end <= disk.0 && copies.table.areas().iter().all(apart), "{area:?}");
        let (writes, after) = copies.next(next).expect("a number is left");
        assert!(after.table.area(&stack).is_some());
        for write in &writes {
            let offset = if write.offset == 0 { Copy::First } else { Copy::Second };
            assert_eq!(Table::decode(&write.bytes).map(|it| it.copy), Ok(offset));
        }
    }
}

fn seal(bytes: &mut [u8]) {
    let Some(count) = bytes.get(AREAS..AREAS + 4) else { return };
    let count = u32::from_le_bytes(count.try_into().expect("four")) as usize;
    let used = HEAD.saturating_add(count.saturating_mul(ENTRY));
    let Some(checked) = bytes.get(20..used) else { return };
    let checksum = crc32c::crc32c(checked).to_le_bytes();
    bytes[16..20].copy_from_slice(&checksum);
}
