//! From the source to the target: one thread reads ahead while another writes, with a handful of
//! buffers between them.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use crate::buffer::{Buffer, is_zero};
use crate::checkpoint::State;
use crate::error::ReplicaError;
use crate::pace::Pace;
use crate::pieces::{MOST, Piece};
use crate::target::Target;

/// One is read into, one is written from, and two wait.
const BUFFERS: usize = 4;
/// Zeroes are looked for in units of this.
const UNIT: usize = 64 << 10;
/// While it waits for its time it looks so often whether to end.
const LOOK: Duration = Duration::from_millis(50);

/// How a copy is told to end, slowed down and attended.
pub(crate) struct Control<'a> {
    /// The wish to end.
    pub(crate) stop: &'a AtomicBool,
    /// How the target then stands.
    pub(crate) stands: State,
    /// How fast it may be.
    pub(crate) pace: Pace,
    /// Told of each piece that was done.
    pub(crate) attend: &'a mut dyn FnMut(Piece) -> Result<(), ReplicaError>,
}

impl Control<'_> {
    pub(crate) fn done(&mut self, piece: Piece) -> Result<(), ReplicaError> {
        (self.attend)(piece)?;
        let wait = self.pace.after(piece.length as u64);
        let until = Instant::now() + wait;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(ReplicaError::Stopped(self.stands));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(LOOK));
        }
    }
}

pub(crate) type Read = (Piece, Result<Buffer, io::Error>);

/// Copies the pieces, in order; how many bytes were not zero.
pub(crate) fn copy(
    source: &File,
    target: &Target,
    pieces: impl Iterator<Item = Piece> + Send,
    mut control: Control<'_>,
) -> Result<u64, ReplicaError> {
    let zeroes = Buffer::zeroed(1 << 20);
    let mut written = 0;
    read_ahead(source, pieces, |piece, buffer| {
        written += put(target, piece, buffer.first(piece.length), &zeroes)?;
        control.done(piece)
    })?;
    Ok(written)
}

/// Has the pieces read in another thread, and each taken in this one.
pub(crate) fn read_ahead(
    source: &File,
    pieces: impl Iterator<Item = Piece> + Send,
    mut take: impl FnMut(Piece, &Buffer) -> Result<(), ReplicaError>,
) -> Result<(), ReplicaError> {
    let (free, empty) = mpsc::channel();
    for _ in 0..BUFFERS {
        let _ = free.send(Buffer::zeroed(usize::try_from(MOST).unwrap_or(1 << 20)));
    }
    let (full, reads) = mpsc::sync_channel(BUFFERS);
    thread::scope(move |scope| {
        scope.spawn(move || read_all(source, pieces, &empty, &full));
        // Whichever way this ends, both channels end with it, and so does the reader.
        let (free, reads) = (free, reads);
        for (piece, read) in reads {
            let buffer = read.map_err(|source| ReplicaError::Read {
                offset: piece.offset,
                length: piece.length,
                source,
            })?;
            take(piece, &buffer)?;
            let _ = free.send(buffer);
        }
        Ok(())
    })
}

fn read_all(
    source: &File,
    pieces: impl Iterator<Item = Piece>,
    empty: &Receiver<Buffer>,
    full: &SyncSender<Read>,
) {
    for piece in pieces {
        let Ok(mut buffer) = empty.recv() else { return };
        let read = source.read_exact_at(buffer.first_mut(piece.length), piece.offset);
        let failed = read.is_err();
        if full.send((piece, read.map(|()| buffer))).is_err() || failed {
            return;
        }
    }
}

fn put(target: &Target, piece: Piece, bytes: &[u8], zeroes: &Buffer) -> Result<u64, ReplicaError> {
    let mut written = 0;
    for (range, zero) in parts(bytes) {
        let (offset, length) = (piece.offset + range.start as u64, range.len());
        let done = if zero {
            target.zero(offset, length as u64, zeroes)
        } else {
            written += length as u64;
            target.write(&bytes[range], offset)
        };
        done.map_err(|source| ReplicaError::Write {
            doing: "write",
            path: target.path().to_owned(),
            offset,
            length,
            source,
        })?;
    }
    Ok(written)
}

/// What is zero and what is not, in turn.
fn parts(bytes: &[u8]) -> impl Iterator<Item = (Range<usize>, bool)> {
    let mut units = (0..bytes.len()).step_by(UNIT).map(|start| {
        let range = start..(start + UNIT).min(bytes.len());
        let zero = is_zero(&bytes[range.clone()]);
        (range, zero)
    });
    let mut next = units.next();
    std::iter::from_fn(move || {
        let (mut range, zero) = next.take()?;
        for (more, kind) in units.by_ref() {
            if kind != zero {
                next = Some((more, kind));
                break;
            }
            range.end = more.end;
        }
        Some((range, zero))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pieces;
    use crate::target::tests::{machine, open};
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn zeroes_and_others_alternate_and_nothing_is_left_out() {
        let mut bytes = vec![0; 5 * UNIT + 4096];
        bytes[UNIT] = 1;
        bytes[3 * UNIT - 1] = 1;
        bytes[5 * UNIT + 1] = 1;
        let found: Vec<_> = parts(&bytes).collect();
        let end = bytes.len();
        let expected = [
            (0..UNIT, true),
            (UNIT..3 * UNIT, false),
            (3 * UNIT..5 * UNIT, true),
            (5 * UNIT..end, false),
        ];
        assert_eq!(found, expected);
        assert_eq!(parts(&[]).count(), 0);
    }

    struct Scene {
        _root: tempfile::TempDir,
        dir: tempfile::TempDir,
        source: File,
        target: Target,
    }

    const SIZE: u64 = 24 << 20;

    fn scene() -> Scene {
        let (root, machine) = machine();
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = vec![0; usize::try_from(SIZE).unwrap()];
        for (index, chunk) in bytes.chunks_mut(1 << 20).enumerate().filter(|(n, _)| n % 3 > 0) {
            chunk.fill(u8::try_from(index).unwrap());
        }
        fs::write(dir.path().join("source"), &bytes).unwrap();
        let source = File::open(dir.path().join("source")).unwrap();
        let target = open(&machine, &dir.path().join("target"), SIZE).unwrap();
        Scene { _root: root, dir, source, target }
    }

    fn control<'a>(
        stop: &'a AtomicBool,
        attend: &'a mut dyn FnMut(Piece) -> Result<(), ReplicaError>,
    ) -> Control<'a> {
        Control { stop, stands: State::Copying, pace: Pace::new(None), attend }
    }

    #[test]
    fn all_of_it_arrives_and_holes_stay_holes() {
        let scene = scene();
        let (stop, mut pieces) = (AtomicBool::new(false), Vec::new());
        let mut attend = |piece: Piece| {
            pieces.push(piece.offset >> 20);
            Ok(())
        };
        let control = control(&stop, &mut attend);
        let all = pieces::of_range(0, SIZE);
        let written = copy(&scene.source, &scene.target, all, control).unwrap();
        assert_eq!(written, 16 << 20);
        assert_eq!(pieces, [0, 4, 8, 12, 16, 20]);
        let read = |name| fs::read(scene.dir.path().join(name)).unwrap();
        assert!(read("source") == read("target"));
        let allocated = fs::metadata(scene.target.path()).unwrap().blocks() * 512;
        assert!(allocated < 17 << 20, "{allocated}");
    }

    /// The reader waits for a buffer that never comes.
    #[test]
    fn a_reader_that_waits_for_a_buffer_ends_too() {
        let scene = scene();
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let pieces = pieces::of_range(0, SIZE).inspect(|_| {
            asked.fetch_add(1, Ordering::Relaxed);
        });
        let failed = read_ahead(&scene.source, pieces, |_, _| {
            while asked.load(Ordering::Relaxed) <= BUFFERS {
                thread::yield_now();
            }
            Err(ReplicaError::Stopped(State::Copying))
        });
        assert!(matches!(failed, Err(ReplicaError::Stopped(_))), "{failed:?}");
    }

    #[test]
    fn it_ends_when_told_to_and_where_the_source_ends() {
        let scene = scene();
        let stop = AtomicBool::new(false);
        let mut attend = |_| {
            stop.store(true, Ordering::Relaxed);
            Ok(())
        };
        let control_ = control(&stop, &mut attend);
        let all = pieces::of_range(0, SIZE);
        let stopped = copy(&scene.source, &scene.target, all, control_).unwrap_err();
        assert!(matches!(stopped, ReplicaError::Stopped(State::Copying)), "{stopped}");
        let (go_on, mut attend) = (AtomicBool::new(false), |_| Ok(()));
        let control = control(&go_on, &mut attend);
        let beyond = pieces::of_range(0, SIZE + 4096);
        let short = copy(&scene.source, &scene.target, beyond, control).unwrap_err();
        assert!(matches!(short, ReplicaError::Read { offset: SIZE, .. }), "{short}");
    }
}
