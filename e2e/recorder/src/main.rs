//! An application as eratrack's users have them: it writes records, makes each durable, and only then acknowledges it
//! on its standard output. Every record it acknowledged must be there for ever, byte for byte.
//!
//! `recorder write DIRECTORY` writes until it is ended; `recorder tell COMMAND` asks the one that writes: `status`,
//! `lap` (forget the longest gap), `quiesce`, `continue`, `verify`, and `pattern FILE OFFSET LENGTH SEED`.

mod control;
mod record;
mod store;

use std::{env, path::Path, process::ExitCode, sync::Arc, thread, time::Duration};

use control::Shared;
use store::Store;

/// Between two records: a writer that never rests would leave the node's one processor to nobody.
const PACE: Duration = Duration::from_millis(40);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["write", directory] => write(Path::new(directory)),
        ["tell", command @ ..] => control::tell(&command.join(" ")),
        _ => Err("usage: recorder write DIRECTORY | recorder tell COMMAND".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("recorder: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &Path) -> Result<(), String> {
    let shared = Arc::new(Shared::new(Store::open(directory)?));
    control::serve(&shared)?;
    loop {
        let (number, checksum) = shared.append()?;
        println!("acknowledged {number} {checksum:016x}");
        thread::sleep(PACE);
    }
}
