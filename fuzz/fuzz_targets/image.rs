//! A whole image through all that reads one. The mutator changes fields and references and repairs checksums and block
//! numbers; now and then it leaves a block to libFuzzer's own and repairs only that.

#![no_main]

use eratrack_fuzz::forge::mutate::{Random, mutate};
use eratrack_fuzz::forge::{BLOCK, Forge};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|data: &[u8]| eratrack_fuzz::read(&Forge::decode(data)));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut random = Random::new(seed.into());
    if random.below(50) == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    let mut forge = Forge::decode(&data[..size]);
    for _ in 0..=random.below(3) {
        if random.below(8) == 0 {
            by_libfuzzer(&mut forge, &mut random);
        } else {
            mutate(&mut forge, &mut random);
        }
    }
    let mutated = forge.encode();
    let length = mutated.len().min(max_size);
    data[..length].copy_from_slice(&mutated[..length]);
    length
});

/// The content of one block is libFuzzer's, its number and checksum are right.
fn by_libfuzzer(forge: &mut Forge, random: &mut Random) {
    let Some(number) = random.pick(&forge.numbers()) else { return };
    let Some(kind) = forge.kind(number) else { return };
    let mut content: Vec<u8> = (0..BLOCK).map(|offset| forge.u8(number, offset)).collect();
    fuzzer_mutate(&mut content, BLOCK, BLOCK);
    forge.damage(number, 0, &content);
    forge.damage(number, kind.blocknr(), &number.to_le_bytes());
    forge.seal(number, kind);
}
