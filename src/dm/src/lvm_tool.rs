//! LVM's own commands, for the one thing that only LVM may do: make and remove a volume.
//!
//! A command's standard input is the stack's lock: while it runs, whether or not the process that
//! began it still does, nobody else is at work on the stack.

mod error;
mod report;

use std::io;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use eratrack_model::lvm::VgName;
use eratrack_model::names::StackId;
use eratrack_model::place::lv_name;
use eratrack_model::record::ChainId;
use eratrack_model::units::{Bytes, DevNo};
use rustix::process::{Pid, Signal, kill_process};

use crate::stack_lock::StackLock;
pub use error::LvmError;
use report::Found;

/// Marks volumes of ours, for people; for [`Lvm::remove`] there is one with the chain besides.
const TAG: &str = "eratrack";
const PAUSE: Duration = Duration::from_millis(10);
/// How long a command that was asked to stop may take to.
const GRACE: Duration = Duration::from_secs(5);

/// LVM of this machine, for one stack.
pub(crate) struct Lvm<'a> {
    pub(crate) vg: &'a VgName,
    pub(crate) stack: &'a StackId,
    pub(crate) chain: &'a ChainId,
    pub(crate) lock: &'a StackLock,
    pub(crate) deadline: Duration,
}

impl Lvm<'_> {
    /// Fails unless the group has so much free, and no volume of the name that ours will have.
    pub(crate) fn check_room(&self, needed: Bytes) -> Result<(), LvmError> {
        let text = self.run("vgs", &["-o", "vg_free,vg_extent_size", "--", self.vg.as_str()])?;
        let free = report::vg_free(&text, needed).map_err(|source| unreadable("vgs", source))?;
        if let Some((free, needed)) = free {
            return Err(LvmError::NoRoom { vg: self.vg.clone(), free, needed });
        }
        match self.find()? {
            Some(_) => Err(LvmError::NameTaken { vg: self.vg.clone(), lv: lv_name(self.stack) }),
            None => Ok(()),
        }
    }

    /// Fails if there is no such group.
    pub(crate) fn look_for_group(&self) -> Result<(), LvmError> {
        self.find().map(|_| ())
    }

    /// Makes the volume, thick and linear, its start zeroed.
    pub(crate) fn create(&self, size: Bytes) -> Result<DevNo, LvmError> {
        let (name, size) = (lv_name(self.stack), format!("{}b", size.0));
        let (kind, tag) = (["-y", "-Wy", "-Zy", "--type", "linear"], self.tag());
        let what = ["--addtag", TAG, "--addtag", &tag, "-L", &size, "-n", &name];
        self.run("lvcreate", &[&kind[..], &what, &["--", self.vg.as_str()]].concat())?;
        self.number()
    }

    /// Makes sure that it is active; its number.
    pub(crate) fn activate(&self) -> Result<DevNo, LvmError> {
        match self.find()? {
            None => return Err(self.no_volume()),
            Some(Found { number: Some(number), .. }) => return Ok(number),
            Some(Found { number: None, .. }) => {}
        }
        self.run("lvchange", &["-ay", "--", &self.path()])?;
        self.number()
    }

    /// Removes it, if it is there and ours.
    pub(crate) fn remove(&self) -> Result<(), LvmError> {
        let there = match self.find() {
            Err(LvmError::NoGroup(vg)) => {
                tracing::warn!(%vg, "the group is gone, and the metadata's volume with it");
                return Ok(());
            }
            there => there?,
        };
        match there {
            None => Ok(()),
            Some(found) if !found.has(&self.tag()) => {
                tracing::warn!(volume = self.path(), "left: it was made for something else");
                Ok(())
            }
            Some(_) => self.run("lvremove", &["-y", "--", &self.path()]).map(|_| ()),
        }
    }

    fn number(&self) -> Result<DevNo, LvmError> {
        let found = self.find()?.ok_or_else(|| self.no_volume())?;
        found.number.ok_or_else(|| LvmError::Failed {
            command: "lvchange",
            said: format!("{} is not active", self.path()),
        })
    }

    fn find(&self) -> Result<Option<Found>, LvmError> {
        // A stack's name is plain: nothing in it means anything to LVM.
        let select = format!("lv_name=\"{}\"", lv_name(self.stack));
        let fields = "lv_tags,lv_kernel_major,lv_kernel_minor";
        let args = ["-S", &select, "-o", fields, "--", self.vg.as_str()];
        let text = self.run("lvs", &args)?;
        report::volume(&text).map_err(|source| unreadable("lvs", source))
    }

    fn no_volume(&self) -> LvmError {
        LvmError::NoVolume { vg: self.vg.clone(), lv: lv_name(self.stack) }
    }

    /// No other attempt's, wherever it was made.
    fn tag(&self) -> String {
        format!("{TAG}-{}", self.chain)
    }

    fn path(&self) -> String {
        format!("{}/{}", self.vg, lv_name(self.stack))
    }

    fn run(&self, command: &'static str, args: &[&str]) -> Result<String, LvmError> {
        let failed = |source| LvmError::Io { command, source };
        let mut ready = Command::new(command);
        if matches!(command, "lvs" | "vgs") {
            ready.args(["--reportformat", "json", "--units", "b", "--nosuffix"]);
        }
        ready.args(args).env("LC_ALL", "C").env("LVM_SUPPRESS_FD_WARNINGS", "1");
        ready.stdin(self.lock.to_inherit().map_err(failed)?);
        ready.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = ready.spawn().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => LvmError::Absent(command),
            _ => failed(e),
        })?;
        let output = self.wait(command, child)?;
        let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        if output.status.success() {
            String::from_utf8(output.stdout).map_err(|e| failed(io::Error::other(e)))
        } else if said.contains("not found") && said.contains("olume group") {
            Err(LvmError::NoGroup(self.vg.clone()))
        } else {
            Err(LvmError::Failed { command, said })
        }
    }

    /// What it prints is little: no pipe fills up meanwhile.
    fn wait(&self, command: &'static str, mut child: Child) -> Result<Output, LvmError> {
        let failed = |source| LvmError::Io { command, source };
        let (start, mut asked) = (Instant::now(), false);
        while child.try_wait().map_err(failed)?.is_none() {
            let waited = start.elapsed();
            if waited >= self.deadline && !asked {
                // It waits for a lock, and ends cleanly.
                let pid = Pid::from_child(&child);
                kill_process(pid, Signal::TERM).map_err(|e| failed(e.into()))?;
                asked = true;
            }
            if waited >= self.deadline + GRACE {
                self.lock.leave_to_children();
                return Err(LvmError::Deadline { command, waited });
            }
            std::thread::sleep(PAUSE);
        }
        if asked {
            return Err(LvmError::Deadline { command, waited: start.elapsed() });
        }
        child.wait_with_output().map_err(failed)
    }
}

fn unreadable(command: &'static str, source: io::Error) -> LvmError {
    LvmError::Io { command, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    #[test]
    fn a_command_that_is_missing_or_never_ends_is_said_to() {
        let root = tempfile::tempdir().unwrap();
        let (vg, stack) = (VgName::new("vg").unwrap(), "s".parse().unwrap());
        let wait = Duration::from_millis(50);
        let lock = StackLock::take(&Machine::new(root.path()), &stack, wait).unwrap();
        let chain = &"0b5e6a1c-4d0f-4f9e-8f43-0f5f2a3f0c11".parse().unwrap();
        let lvm = Lvm { vg: &vg, stack: &stack, chain, lock: &lock, deadline: wait };
        let error = lvm.run("no-such-command-of-lvm", &[]).unwrap_err();
        assert!(error.to_string().contains("install LVM"), "{error}");
        let error = lvm.run("sleep", &["60"]).unwrap_err();
        assert!(matches!(error, LvmError::Deadline { .. }), "{error}");
    }

    /// Whoever is killed while LVM works leaves LVM working.
    #[test]
    fn a_stack_is_locked_while_a_command_runs_on_it() {
        let root = tempfile::tempdir().unwrap();
        let (machine, stack) = (Machine::new(root.path()), "s".parse().unwrap());
        let wait = Duration::from_millis(50);
        let lock = StackLock::take(&machine, &stack, wait).unwrap();
        let mut child =
            Command::new("sleep").arg("60").stdin(lock.to_inherit().unwrap()).spawn().unwrap();
        // As at the end of a process: closed, and not unlinked.
        lock.leave_to_children();
        drop(lock);
        assert!(StackLock::take(&machine, &stack, wait).is_err());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(StackLock::take(&machine, &stack, wait).is_ok());
    }
}
