//! Reading on while what was read is verified, on a thread beside.

use std::panic;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use super::batch::{Batch, Here, Take, fitting};
use crate::buffer::Buffer;
use crate::error::{Error, ErrorKind};

/// Batches at once, of 1 MiB at most: one that is read, one that is verified, and between them
/// enough that on a busy machine neither thread waits for the other to be given time.
const BATCHES: usize = 6;

/// Has `read` read, and `visit` visit what was read, in order, on a thread beside; on the
/// same one where no other can be had. Of two errors, that which comes first in the metadata
/// is told.
pub(crate) fn beside(
    mut visit: impl FnMut(&Batch) -> Result<(), Error> + Send,
    read: &mut dyn FnMut(&mut dyn Take) -> Result<(), Error>,
) -> Result<(), Error> {
    let (send, batches) = sync_channel(BATCHES);
    let (give_back, returned) = channel();
    let borrowed = &mut visit;
    let verify = move || visit_all(&batches, &give_back, borrowed);
    let done = thread::scope(|scope| {
        let thread = thread::Builder::new().name("verify".to_owned()).spawn_scoped(scope, verify);
        let thread = thread.ok()?;
        let mut there = There { send, returned, made: 0 };
        let done = read(&mut there);
        let earlier = there.finish();
        if let Err(panicked) = thread.join() {
            panic::resume_unwind(panicked);
        }
        Some(earlier.and(done))
    });
    done.unwrap_or_else(|| read(&mut Here::new(visit)))
}

/// What the thread does: until there is no more, or something is wrong.
fn visit_all(
    batches: &Receiver<Batch>,
    give_back: &Sender<Result<Buffer, Error>>,
    visit: &mut dyn FnMut(&Batch) -> Result<(), Error>,
) {
    for batch in batches {
        let done = visit(&batch).map(|()| batch.into_buffer());
        let failed = done.is_err();
        if give_back.send(done).is_err() || failed {
            return;
        }
    }
}

/// Hands batches over to the thread.
struct There {
    send: SyncSender<Batch>,
    returned: Receiver<Result<Buffer, Error>>,
    /// How many buffers there are.
    made: usize,
}

impl There {
    /// The error that the thread ended with, if it did.
    fn finish(self) -> Result<(), Error> {
        let Self { send, returned, made: _ } = self;
        drop(send);
        returned.into_iter().try_for_each(|done| done.map(drop))
    }

    /// A thread that ended without an error has panicked: its panic is passed on when it is
    /// joined, and this is never seen.
    fn ended() -> Error {
        Error { kind: ErrorKind::Stopped, path: Vec::new() }
    }
}

impl Take for There {
    fn room(&mut self, blocks: usize) -> Result<Buffer, Error> {
        let returned = match self.returned.try_recv() {
            Ok(returned) => returned.map(Some),
            Err(_) if self.made < BATCHES => {
                self.made += 1;
                Ok(None)
            }
            Err(_) => self.returned.recv().unwrap_or_else(|_| Err(Self::ended())).map(Some),
        };
        Ok(fitting(returned?, blocks))
    }

    fn take(&mut self, batch: Batch) -> Result<(), Error> {
        self.send.send(batch).map_err(|_| {
            let mut failed = self.returned.iter().filter_map(Result::err);
            failed.next().unwrap_or_else(Self::ended)
        })
    }
}
