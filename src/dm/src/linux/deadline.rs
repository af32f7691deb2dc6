//! A deadline for a call that waits inside the kernel for somebody else's I/O.
//!
//! No ioctl of device mapper has one, but the wait of `dm_suspend` can be interrupted by a signal
//! (`dm_wait_for_completion`, drivers/md/dm.c): the device then goes on with its old table. The
//! signal goes to the thread that makes the call and to no other.
#![allow(unsafe_code, reason = "signals that no crate sends; each block says why it is sound")]

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{Builder, scope};
use std::time::Duration;

use libc::{c_int, c_long, pid_t};

/// Ignored unless it is handled, so one that comes too late or from outside does no harm.
const SIGNAL: c_int = libc::SIGURG;
/// A signal that comes just before the wait begins interrupts nothing: it is sent again.
const AGAIN: Duration = Duration::from_millis(50);

/// Makes the call on this thread, and interrupts it once the limit is over, until it returns. The
/// call is told whether that is so, and its caller likewise. Without a thread to watch it, it
/// has no limit.
pub(super) fn within<T>(limit: Duration, call: impl FnOnce(&AtomicBool) -> T) -> (T, bool) {
    install();
    let over = AtomicBool::new(false);
    let caller = this_thread();
    let (done, ended) = channel::<()>();
    let result = scope(|threads| {
        let over = &over;
        let watching = Builder::new().spawn_scoped(threads, move || {
            let mut wait = limit;
            while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                over.store(true, Ordering::Relaxed);
                interrupt(caller);
                wait = AGAIN;
            }
        });
        if let Err(error) = watching {
            tracing::warn!(%error, "a swap has no deadline");
        }
        let result = call(over);
        drop(done);
        result
    });
    (result, over.into_inner())
}

extern "C" fn nothing(_: c_int) {}

/// A signal that is ignored interrupts nothing.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    // SAFETY: the structure is zero, which is valid for all its fields, but for the handler, which
    // does nothing and so is safe to run at any moment.
    INSTALLED.call_once(|| unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as libc::sighandler_t;
        libc::sigaction(SIGNAL, &raw const action, std::ptr::null_mut());
    });
}

pub(super) fn this_thread() -> pid_t {
    // SAFETY: takes nothing and always succeeds.
    unsafe { libc::gettid() }
}

pub(super) fn interrupt(thread: pid_t) {
    let (process, thread) = (std::process::id(), c_long::from(thread));
    // SAFETY: numbers alone; a thread of this process that is gone by now is an error (ESRCH).
    unsafe { libc::syscall(libc::SYS_tgkill, c_long::from(process), thread, SIGNAL) };
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::io::Errno;

    use super::*;

    /// A wait of the kernel's that nobody ends.
    fn wait_for_ever() -> Errno {
        let (reader, _writer) = std::io::pipe().unwrap();
        poll(&mut [PollFd::new(&reader, PollFlags::IN)], None).unwrap_err()
    }

    #[test]
    fn a_call_that_does_not_return_is_interrupted_at_its_deadline() {
        let (limit, start) = (Duration::from_millis(100), Instant::now());
        let (result, over) = within(limit, |over| (wait_for_ever(), over.load(Ordering::Relaxed)));
        assert_eq!((result, over), ((Errno::INTR, true), true));
        assert!(start.elapsed() >= limit);
    }

    #[test]
    fn a_call_that_returns_in_time_is_not_disturbed() {
        let (result, over) = within(Duration::from_secs(3600), |_| 7);
        assert_eq!((result, over), (7, false));
    }

    #[test]
    fn one_call_out_of_several_is_interrupted() {
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| within(Duration::from_millis(300), |_| wait_for_ever()));
            let fast = within(Duration::from_millis(50), |_| wait_for_ever());
            assert_eq!(fast, (Errno::INTR, true));
            assert!(!slow.is_finished(), "the other's signal came here too");
            assert_eq!(slow.join().unwrap(), (Errno::INTR, true));
        });
    }
}
