//! The helper's own side: make ready, hold, answer.
//!
//! While devices are suspended nothing here may wait for them: not the memory, which is locked and was touched before,
//! not the kernel's allocations in our name, which do not write anything back for it (`PR_SET_IO_FLUSHER`), and no file.
#![allow(unsafe_code, reason = "signals that no crate sets; each block says why it is sound")]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use libc::c_int;
use rustix::io::Errno;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{configure_io_flusher_behavior, setsid};

use super::{ANSWER, Answer, together};
use crate::hold::Order;
use crate::linux::{CONTROL, CONTROL_PATH, nodes};

/// Told of each thing just before it is done: a test that ends the process there.
pub type Watcher<'a> = &'a (dyn Fn(&'static str) + Sync);

/// What asks a process to end, and does not force it.
const ASKED: [c_int; 7] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGPIPE,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// How much longer than twice the deadline it lives, in seconds.
const LAST_RESORT: u64 = 4;

/// Reads an order, carries it out and says what came of it.
pub fn serve(watcher: Watcher<'_>) -> io::Result<()> {
    let mut told = String::new();
    io::stdin().lock().read_to_string(&mut told)?;
    let order: Order = serde_json::from_str(&told)?;
    let say = |answer: Answer| {
        // Whoever asked may be gone.
        if let Ok(answer) = serde_json::to_string(&answer) {
            let _ = io::stdout().lock().write_all(format!("{ANSWER}{answer}\n").as_bytes());
        }
    };
    // A mistake of its own must not hold anybody: the signal ends it, and whoever waits for it resumes all.
    let longest = order.deadline.as_secs().saturating_mul(2).saturating_add(LAST_RESORT);
    // SAFETY: a number of seconds; the signal's disposition is the default, to end the process.
    unsafe { libc::alarm(u32::try_from(longest).unwrap_or(u32::MAX)) };
    match make_ready() {
        Ok(control) => together::hold(&control, &order, watcher, say),
        Err(error) => say(Answer::NotReady(error.to_string())),
    }
    Ok(())
}

fn make_ready() -> io::Result<File> {
    // A terminal's signals are not for us; who leads a session already has one of its own.
    match setsid() {
        Ok(_) | Err(Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    ignore_requests();
    // Whoever looks for memory takes another: also the kernel when it ends a whole container for it.
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "-1000") {
        tracing::warn!(%error, "the helper may be ended for want of memory");
    }
    // Since Linux 5.6.
    if let Err(error) = configure_io_flusher_behavior(true) {
        tracing::warn!(%error, "the kernel may write back for the helper's memory");
    }
    nodes::ensure_control(Path::new(CONTROL_PATH), CONTROL)?;
    let control = File::open(CONTROL_PATH)?;
    // The stacks of its threads, too: they are made after this.
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)?;
    Ok(control)
}

fn ignore_requests() {
    for signal in ASKED {
        // SAFETY: a constant disposition, and a number that is a signal.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}
