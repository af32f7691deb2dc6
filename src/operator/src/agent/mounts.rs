//! News of the machine's mounts, without asking for them over and over: the kernel tells by `POLLPRI` on an open
//! mountinfo that the table has changed (`proc_pid_mountinfo(5)`).

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::watch;

/// A number that grows whenever the machine's mounts have changed.
///
/// The thread behind it waits in the kernel, and ends with the process.
pub(crate) fn watch(mountinfo: &Path) -> io::Result<watch::Receiver<u64>> {
    let file = File::open(mountinfo)?;
    let (sender, receiver) = watch::channel(0);
    std::thread::Builder::new().name("mounts".to_owned()).spawn(move || {
        while let Ok(()) = wait(&file) {
            sender.send_modify(|changes| *changes += 1);
        }
        tracing::error!(
            "the machine's mounts can no longer be watched; volumes are found when they are retried"
        );
    })?;
    Ok(receiver)
}

fn wait(file: &File) -> Result<(), Errno> {
    loop {
        match poll(&mut [PollFd::new(file, PollFlags::PRI)], None) {
            Err(Errno::INTR) | Ok(0) => {}
            answer => return answer.map(drop),
        }
    }
}
