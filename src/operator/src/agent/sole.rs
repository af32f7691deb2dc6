//! One agent a machine. A second one, of a rollout that overlaps or a chart installed twice, would make boundaries and
//! write lists beside the first.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// The lock, beside those of the stacks: none outlives the boot, and all work also when the disk does not.
const LOCK: &str = "agent.lock";
/// How often it is tried; `flock` has nothing to be told by.
const RETRY: Duration = Duration::from_secs(1);

/// Held as long as the agent works; the kernel gives it back whatever ends the process.
#[derive(Debug)]
pub(crate) struct Sole(#[expect(dead_code, reason = "held, not used")] File);

/// The lock cannot be had at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot take the machine's lock for agents (/run/eratrack/{LOCK})")]
pub(crate) struct SoleError(#[from] io::Error);

/// Waits until no other agent is at work on the machine whose root this is.
pub(crate) async fn alone(root: &Path) -> Result<Sole, SoleError> {
    let path = eratrack_dm::lock_directory(root)?.join(LOCK);
    let mut told = false;
    loop {
        if let Some(sole) = try_lock(&path)? {
            return Ok(sole);
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(
                lock = LOCK,
                "another agent is at work on this machine; waiting for its end"
            );
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn try_lock(path: &Path) -> io::Result<Option<Sole>> {
    // Never removed: whoever waits has it open.
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Sole(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_second_begins_when_the_first_has_ended() {
        let root = tempfile::tempdir().expect("a directory");
        let first = alone(root.path()).await.expect("nobody else");
        let path = root.path().to_owned();
        let second = tokio::spawn(async move { alone(&path).await });
        tokio::time::sleep(RETRY * 5).await;
        assert!(!second.is_finished());
        drop(first);
        tokio::time::sleep(RETRY * 2).await;
        assert!(second.is_finished());
        second.await.expect("no panic").expect("its turn");
    }
}
