//! News of the machine's mounts, without asking for them over and over: the kernel tells by `POLLPRI` on an open
//! mountinfo that the table has changed (`proc_pid_mountinfo(5)`).

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::watch;

/// How long further changes are gathered: a pod that starts makes dozens of mounts.
const GATHER: Duration = Duration::from_secs(1);

/// A number that grows when the machine's mounts have changed, once a second at most.
///
/// The thread behind it waits in the kernel, and ends with the process.
pub(crate) fn watch(mountinfo: &Path) -> io::Result<watch::Receiver<u64>> {
    let file = File::open(mountinfo)?;
    let (sender, receiver) = watch::channel(0);
    std::thread::Builder::new().name("mounts".to_owned()).spawn(move || {
        tell(&sender, || wait(&file), || std::thread::sleep(GATHER));
        tracing::error!(
            "the machine's mounts can no longer be watched; volumes are found when they are retried"
        );
    })?;
    Ok(receiver)
}

/// What changes while it is gathered is told with it, or makes the next wait end at once.
fn tell(
    sender: &watch::Sender<u64>,
    mut wait: impl FnMut() -> Result<(), Errno>,
    mut gather: impl FnMut(),
) {
    while let Ok(()) = wait() {
        gather();
        sender.send_modify(|changes| *changes += 1);
    }
}

fn wait(file: &File) -> Result<(), Errno> {
    loop {
        match poll(&mut [PollFd::new(file, PollFlags::PRI)], None) {
            Err(Errno::INTR) | Ok(0) => {}
            answer => return answer.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_gathered_before_they_are_told() {
        let (sender, receiver) = watch::channel(0);
        let mut waits = 0;
        let wait = || {
            waits += 1;
            if waits <= 3 { Ok(()) } else { Err(Errno::BADF) }
        };
        let mut told = Vec::new();
        tell(&sender, wait, || told.push(*receiver.borrow()));
        assert_eq!((told, *receiver.borrow()), (vec![0, 1, 2], 3));
    }
}
