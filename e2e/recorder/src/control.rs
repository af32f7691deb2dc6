//! Asking the writer, over a socket that is not on its volume.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::store::{self, Store};

const SOCKET: &str = "/run/recorder.sock";

/// The writer's state, shared with those who ask.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    continued: Condvar,
}

#[derive(Debug)]
struct State {
    store: Store,
    quiesced: bool,
    /// When the last record was acknowledged; none after a pause, which is no gap.
    last: Option<Instant>,
    longest_gap: Duration,
}

impl Shared {
    pub(crate) fn new(store: Store) -> Self {
        let state = State { store, quiesced: false, last: None, longest_gap: Duration::ZERO };
        Self { state: Mutex::new(state), continued: Condvar::new() }
    }

    /// Appends a record, as soon as the writer may.
    pub(crate) fn append(&self) -> Result<(u64, u64), String> {
        let mut state = self
            .continued
            .wait_while(self.lock(), |state| state.quiesced)
            .unwrap_or_else(PoisonError::into_inner);
        let appended = state.store.append()?;
        let now = Instant::now();
        if let Some(last) = state.last.replace(now) {
            state.longest_gap = state.longest_gap.max(now - last);
        }
        Ok(appended)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, command: &str) -> Result<String, String> {
        let mut state = self.lock();
        match command.split(' ').collect::<Vec<_>>().as_slice() {
            ["status"] => Ok(state.status()),
            ["lap"] => {
                let status = state.status();
                state.longest_gap = Duration::ZERO;
                Ok(status)
            }
            ["quiesce"] => {
                (state.quiesced, state.last) = (true, None);
                Ok(state.status())
            }
            ["continue"] => {
                state.quiesced = false;
                self.continued.notify_all();
                Ok(state.status())
            }
            ["verify"] => {
                let verified = state.store.verify()?;
                // The time that it took is no gap of the volume's making.
                state.last = None;
                Ok(format!("{{\"verified\": {verified}}}"))
            }
            ["pattern", file, offset, length, seed] if store::is_plain(file) => {
                let number =
                    |word: &str| word.parse::<u64>().map_err(|error| format!("{word}: {error}"));
                let length = usize::try_from(number(length)?).map_err(|error| error.to_string())?;
                let written = state.store.pattern(file, number(offset)?, length, number(seed)?);
                state.last = None;
                written.map(|()| state.status()).map_err(|error| format!("{file}: {error}"))
            }
            _ => Err(format!("unknown command: {command}")),
        }
    }
}

impl State {
    fn status(&self) -> String {
        format!(
            "{{\"acknowledged\": {}, \"longestGapMs\": {}, \"quiesced\": {}}}",
            self.store.acknowledged(),
            self.longest_gap.as_millis(),
            self.quiesced
        )
    }
}

/// Answers in a thread of its own.
pub(crate) fn serve(shared: &Arc<Shared>) -> Result<(), String> {
    let _ = fs::remove_file(SOCKET);
    let listener = UnixListener::bind(SOCKET).map_err(|error| format!("{SOCKET}: {error}"))?;
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Err(error) = serve_one(&shared, stream) {
                eprintln!("recorder: {error}");
            }
        }
    });
    Ok(())
}

fn serve_one(shared: &Shared, mut stream: UnixStream) -> std::io::Result<()> {
    let mut command = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut command)?;
    match shared.answer(command.trim()) {
        Ok(answer) => writeln!(stream, "ok {answer}"),
        Err(error) => writeln!(stream, "error {error}"),
    }
}

/// Asks the writer and prints its answer.
pub(crate) fn tell(command: &str) -> Result<(), String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(SOCKET)?;
        writeln!(stream, "{command}")?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| format!("{SOCKET}: {error}"))?;
    match answer.trim().split_once(' ') {
        Some(("ok", answer)) => {
            println!("{answer}");
            Ok(())
        }
        _ => Err(answer.trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiesced_writer_writes_nothing_until_it_may() {
        let directory =
            std::env::temp_dir().join(format!("recorder-quiesce-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let shared = Arc::new(Shared::new(Store::open(&directory).unwrap()));
        shared.append().unwrap();
        assert!(shared.answer("quiesce").unwrap().contains("\"acknowledged\": 1"));
        let writer = Arc::clone(&shared);
        let waiting = thread::spawn(move || writer.append().unwrap().0);
        assert!(shared.answer("status").unwrap().contains("\"acknowledged\": 1"));
        shared.answer("continue").unwrap();
        assert_eq!(waiting.join().unwrap(), 2);
        assert_eq!(shared.answer("verify").unwrap(), "{\"verified\": 2}");
        assert!(shared.answer("pattern ../x 0 1 1").unwrap_err().contains("unknown command"));
        fs::remove_dir_all(directory).unwrap();
    }
}
