//! `eratrack device changed`, `dump` and `check` on whatever is given to them: an exit code that says so, a message, little
//! memory, and an end.

#[path = "../../era/tests/forge/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod forge;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use era_metadata::check::check;
use era_metadata::{Era, Metadata, View, dump};
use forge::Forge;
use forge::mutate::{Random, mutate};

/// In bytes, of addresses: the program, what it reads into, and what it prints from.
const MEMORY: u64 = 256 << 20;
const DAMAGED: i32 = 8;
const COMMANDS: [&[&str]; 6] = [
    &["changed", "--since", "1"],
    &["changed", "--since", "1", "--output", "csv"],
    &["changed", "--since", "1", "--bitmap"],
    &["dump"],
    &["dump", "--output", "json"],
    &["check"],
];

/// A directory with an image in it.
struct Given {
    dir: tempfile::TempDir,
}

impl Given {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("era-metadata.img")
    }

    fn bytes(&self, bytes: &[u8]) -> &Self {
        std::fs::write(self.path(), bytes).unwrap();
        self
    }

    fn forge(&self, forge: &Forge) -> &Self {
        self.bytes(&forge.image())
    }

    /// Runs a command on it, with that little memory; one that hangs ends with 124.
    fn run(&self, command: &[&str]) -> Output {
        run(&self.path(), command)
    }

    /// Every command refuses it with a message and with one of these codes.
    #[track_caller]
    fn refused(&self, codes: &[i32]) {
        for command in COMMANDS {
            refused(&self.run(command), command, codes);
        }
    }
}

fn run(image: &Path, command: &[&str]) -> Output {
    Command::new("prlimit")
        .arg(format!("--as={MEMORY}"))
        .args(["timeout", "60", env!("CARGO_BIN_EXE_eratrack"), "device"])
        .args(command)
        .arg("--image")
        .arg(image)
        .output()
        .expect("prlimit and timeout, of util-linux and coreutils")
}

#[track_caller]
fn refused(output: &Output, command: &[&str], codes: &[i32]) {
    let said = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    assert!(code.is_some_and(|code| codes.contains(&code)), "{command:?}: {code:?}, {said}");
    assert!(said.starts_with("eratrack: ") && said.lines().count() == 1, "{command:?}: {said}");
}

fn fixture(name: &str) -> Forge {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../era/tests/fixtures");
    Forge::load(&fixtures, name)
}

#[test]
fn what_is_no_metadata() {
    let given = Given::new();
    given.bytes(b"").refused(&[DAMAGED]);
    given.bytes(&[0; 4095]).refused(&[DAMAGED]);
    given.bytes(&vec![0; 1 << 20]).refused(&[DAMAGED]);
    given.bytes(&vec![0xff; 1 << 20]).refused(&[DAMAGED]);
    given.bytes(include_bytes!("../Cargo.toml")).refused(&[DAMAGED]);
    for command in COMMANDS {
        refused(&run(given.dir.path(), command), command, &[5]);
        refused(&run(Path::new("/dev/zero"), command), command, &[5]);
        refused(&run(Path::new("/nowhere/at/all"), command), command, &[6]);
    }
}

#[test]
fn an_image_that_was_cut_off() {
    let whole = fixture("held").image();
    let given = Given::new();
    for blocks in [1, 2, 100, 140] {
        given.bytes(&whole[..blocks * 4096]).refused(&[DAMAGED]);
    }
    // Lists do not need the rest; the space map counts it.
    given.bytes(&whole[..255 * 4096]);
    refused(&given.run(&["check"]), &["check"], &[DAMAGED]);
}

#[test]
fn a_device_that_says_it_is_endless() {
    let mut forge = fixture("odd");
    forge.put(0, 180, &((1_u32 << 31) - 1).to_le_bytes());
    forge.put(0, 188, &((1_u32 << 31) - 1).to_le_bytes());
    let given = Given::new();
    given.forge(&forge).refused(&[DAMAGED]);
    // And metadata of 1 TiB, nearly all of it holes.
    File::options().write(true).open(given.path()).unwrap().set_len(1 << 40).unwrap();
    given.refused(&[DAMAGED]);
}

#[test]
fn damage_at_any_byte_of_what_is_in_use() {
    let sound = fixture("held").compact();
    let mut random = Random::new(4);
    let given = Given::new();
    for number in sound.numbers() {
        for _ in 0..3 {
            let offset = random.below(forge::BLOCK);
            let mut forge = sound.clone();
            forge.damage(number, offset, &[!forge.u8(number, offset)]);
            refused(&given.forge(&forge).run(&["check"]), &["check"], &[DAMAGED]);
            agrees(&forge, &given.run(&["changed", "--since", "1"]), changed(&forge));
        }
    }
}

#[test]
fn metadata_that_is_nearly_right() {
    let seeds = ["held", "unclean", "digested"].map(|name| fixture(name).compact());
    let given = Given::new();
    for number in 0..60 {
        let mut random = Random::new(number);
        let mut forge = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(3) {
            mutate(&mut forge, &mut random);
        }
        // Files are written in full.
        forge.total = forge.total.min(4096);
        given.forge(&forge);
        let unsound = check(&forge, View::Live, 1).unwrap().errors > 0;
        agrees(&forge, &given.run(&["check"]), !unsound);
        agrees(&forge, &given.run(&["changed", "--since", "1"]), changed(&forge));
        agrees(&forge, &given.run(&["dump"]), dumped(&forge));
    }
}

fn changed(forge: &Forge) -> bool {
    Metadata::open(forge, View::Live).and_then(|it| it.changed_since(Era(1))).is_ok()
}

fn dumped(forge: &Forge) -> bool {
    let metadata = Metadata::open(forge, View::Live);
    metadata.is_ok_and(|metadata| dump::xml(&metadata, &mut std::io::sink()).is_ok())
}

#[track_caller]
fn agrees(forge: &Forge, output: &Output, good: bool) {
    if good {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}: {:?}", forge.numbers());
    } else {
        refused(output, &[], &[DAMAGED]);
    }
}
