//! What must not outlive a run: processes, network namespaces, mounts, scratch files.
//!
//! Each is registered the moment it exists and undone in reverse order: when its ticket is dropped, at the end of the
//! run, on Ctrl-C, SIGTERM or SIGHUP, and on a panic. The list is also kept in a journal under `target/e2e/runs`, so
//! that what a run that was killed outright left behind is undone by its watchman (`reap`), and what `--keep` left by
//! `cargo e2e down`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use rustix::process::{
    Pid, Signal, WaitOptions, kill_process_group, test_kill_process_group, waitpgid,
};
use serde::{Deserialize, Serialize};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{paths, wait};

/// Something that must be undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Leftover {
    /// A process group, killed as a whole.
    ProcessGroup(Process),
    /// A network namespace by the name that `ip netns` knows.
    Netns(String),
    /// A mount point that was made for what is mounted or bound below it; unmounted once nothing is.
    EmptyMount(PathBuf),
    /// A directory with all that is in it.
    Directory(PathBuf),
    /// A file.
    File(PathBuf),
}

/// A process, told apart from a later one with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pid: i32,
    /// When it started, in clock ticks since the machine did.
    started: u64,
}

/// Undoes its leftover when dropped.
#[derive(Debug)]
pub(crate) struct Ticket(u64);

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut registry = registry();
        if registry.keep {
            return;
        }
        if let Some(index) = registry.entries.iter().position(|entry| entry.id == self.0) {
            let entry = registry.entries.remove(index);
            undo(&entry.leftover);
            registry.write_journal();
        }
    }
}

/// Registers what already exists.
pub(crate) fn defer(leftover: Leftover) -> Ticket {
    registry().add(leftover)
}

/// Starts `command` as the leader of a process group of its own, registered before anything can interrupt.
pub(crate) fn spawn(command: &mut Command) -> io::Result<(Child, Ticket)> {
    use std::os::unix::process::CommandExt;
    let mut registry = registry();
    let child = command.process_group(0).spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let started = started(pid).unwrap_or_default();
    let ticket = registry.add(Leftover::ProcessGroup(Process { pid, started }));
    Ok((child, ticket))
}

/// Does what must not be interrupted: a signal is answered when it is done. `work` starts nothing through this module.
pub(crate) fn undisturbed<T>(work: impl FnOnce() -> T) -> T {
    let _registry = registry();
    work()
}

/// Leaves everything that is registered now in place after this run, until [`down`].
pub(crate) fn keep() {
    let mut registry = registry();
    registry.keep = true;
    registry.write_journal();
}

/// Dropped at the end of the run, also by a panic: undoes everything in reverse order, unless it is to be kept.
pub(crate) struct Finish;

impl Drop for Finish {
    fn drop(&mut self) {
        registry().finish();
    }
}

/// Handles the signals that end a run, and undoes what killed runs left behind.
pub(crate) fn install() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            eprintln!("\ninterrupted: cleaning up");
            // The lock is never given back: nothing new can be started while the process ends.
            let mut registry = registry();
            registry.keep = false;
            registry.finish();
            std::process::exit(128 + signal);
        }
    });
    start_watchman()?;
    match sweep(|journal| !journal.keep) {
        0 => {}
        swept => eprintln!("cleaned up what {swept} killed run(s) had left behind"),
    }
    Ok(())
}

/// A process that outlives us by as long as it takes to undo what we left, should we be killed in a way that we cannot
/// answer. It learns of our end by that of its input.
fn start_watchman() -> io::Result<()> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(paths::program()?);
    command.arg("reap").process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // Dropping the child does not end it, and dropping its input would: that is kept until our own end.
    std::mem::forget(command.spawn()?.stdin);
    Ok(())
}

/// The watchman's work.
pub(crate) fn reap() {
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    sweep(|journal| !journal.keep);
}

/// Ends what earlier runs left up, kept or not.
pub(crate) fn down() {
    let ended = sweep(|_| true);
    match ended {
        0 => println!("nothing is up"),
        1 => println!("ended 1 earlier run"),
        _ => println!("ended {ended} earlier runs"),
    }
}

struct Entry {
    id: u64,
    leftover: Leftover,
}

struct Registry {
    entries: Vec<Entry>,
    next: u64,
    keep: bool,
}

static REGISTRY: Mutex<Registry> =
    Mutex::new(Registry { entries: Vec::new(), next: 0, keep: false });

fn registry() -> MutexGuard<'static, Registry> {
    // A panic elsewhere must not stop the cleaning up.
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    fn add(&mut self, leftover: Leftover) -> Ticket {
        let id = self.next;
        self.next += 1;
        self.entries.push(Entry { id, leftover });
        self.write_journal();
        Ticket(id)
    }

    fn finish(&mut self) {
        if self.keep {
            return;
        }
        while let Some(entry) = self.entries.pop() {
            undo(&entry.leftover);
        }
        self.write_journal();
    }

    fn write_journal(&self) {
        if let Err(error) = self.try_write_journal() {
            eprintln!(
                "warning: cannot note what is running, so a killed run would leave it behind: {error}"
            );
        }
    }

    fn try_write_journal(&self) -> io::Result<()> {
        let pid = i32::try_from(std::process::id()).map_err(io::Error::other)?;
        let path = journals().join(format!("{pid}.json"));
        if self.entries.is_empty() {
            return gone(fs::remove_file(path));
        }
        let journal = Journal {
            owner: Process { pid, started: started(pid).unwrap_or_default() },
            boot: boot_id(),
            keep: self.keep,
            leftovers: self.entries.iter().map(|entry| entry.leftover.clone()).collect(),
        };
        fs::create_dir_all(journals())?;
        let fresh = path.with_extension("new");
        fs::write(&fresh, serde_json::to_vec_pretty(&journal)?)?;
        fs::rename(fresh, path)
    }
}

/// What a run has registered, as the next one finds it.
#[derive(Serialize, Deserialize)]
struct Journal {
    owner: Process,
    boot: String,
    keep: bool,
    leftovers: Vec<Leftover>,
}

fn journals() -> PathBuf {
    paths::cache().join("runs")
}

/// Undoes the journals of runs that are no more and that `chosen` picks; how many there were.
fn sweep(chosen: impl Fn(&Journal) -> bool) -> usize {
    let Ok(files) = fs::read_dir(journals()) else { return 0 };
    let paths = files.flatten().map(|file| file.path());
    paths
        .filter(|path| path.extension().is_some_and(|it| it == "json"))
        .filter(|path| sweep_one(path, &chosen))
        .count()
}

fn sweep_one(path: &Path, chosen: &impl Fn(&Journal) -> bool) -> bool {
    let Some(journal) =
        fs::read(path).ok().and_then(|text| serde_json::from_slice::<Journal>(&text).ok())
    else {
        return false;
    };
    let same_boot = journal.boot == boot_id();
    if (same_boot && is_alive(journal.owner)) || !chosen(&journal) {
        return false;
    }
    // Only files outlast a reboot; the same ids and names may be somebody else's by now.
    let outlasts =
        |it: &&Leftover| same_boot || matches!(it, Leftover::Directory(_) | Leftover::File(_));
    journal.leftovers.iter().rev().filter(outlasts).for_each(undo);
    fs::remove_file(path).is_ok()
}

fn undo(leftover: &Leftover) {
    let result = match leftover {
        Leftover::ProcessGroup(leader) => end_group(*leader),
        Leftover::Netns(name) => quietly(Command::new("ip").args(["netns", "delete", name])),
        Leftover::EmptyMount(path) => unmount_empty(path),
        Leftover::Directory(path) => gone(fs::remove_dir_all(path)),
        Leftover::File(path) => gone(fs::remove_file(path)),
    };
    if let Err(error) = result {
        eprintln!("warning: cannot clean up {leftover:?}: {error}");
    }
}

/// Somebody else may have begun to use it.
fn unmount_empty(path: &Path) -> io::Result<()> {
    match fs::read_dir(path)?.next() {
        Some(_) => Ok(()),
        // What has just ended may hold it for a moment longer.
        None => quietly(Command::new("umount").arg("--lazy").arg(path)),
    }
}

fn end_group(leader: Process) -> io::Result<()> {
    let Some(group) = Pid::from_raw(leader.pid) else { return Ok(()) };
    // While a group lives, its id is given to no new process: a leader that started at another time is a stranger.
    if started(leader.pid).is_some_and(|now| now != leader.started) {
        return Ok(());
    }
    if kill_process_group(group, Signal::KILL).is_err() {
        return Ok(());
    }
    let ended = || {
        let _ = waitpgid(group, WaitOptions::NOHANG);
        test_kill_process_group(group).is_err()
    };
    wait::until("the process group to end", Duration::from_secs(10), || ended().then_some(()))
        .map_err(io::Error::other)
}

fn quietly(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// What is already gone needs no removing.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn is_alive(process: Process) -> bool {
    started(process.pid) == Some(process.started)
}

/// Field 22 of /proc/PID/stat; the name, field 2, may itself hold spaces and parentheses. None for one that has ended,
/// even if nobody has asked how yet.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    fields.get(19)?.parse().ok()
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_start_is_known_and_a_stranger_with_our_id_is_not_us() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let us = Process { pid, started: started(pid).unwrap() };
        assert!(is_alive(us));
        assert!(!is_alive(Process { started: us.started + 1, ..us }));
    }

    #[test]
    fn one_that_has_ended_is_not_alive_even_before_it_is_waited_for() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        wait::until("its end", Duration::from_secs(10), || started(pid).is_none().then_some(()))
            .unwrap();
        assert!(Path::new(&format!("/proc/{pid}")).exists(), "it was waited for");
        child.wait().unwrap();
    }

    #[test]
    fn a_dropped_ticket_ends_the_whole_group() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & sleep 1000"]);
        let (child, ticket) = spawn(&mut command).unwrap();
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(test_kill_process_group(group).is_ok());
        drop(ticket);
        assert!(test_kill_process_group(group).is_err());
    }

    #[test]
    fn a_group_whose_id_is_a_strangers_by_now_is_left_alone() {
        let mut command = Command::new("sleep");
        let (mut child, ticket) = spawn(command.arg("1000")).unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        end_group(Process { pid, started: 1 }).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "a process of another start time was killed");
        drop(ticket);
    }

    #[test]
    fn a_journal_is_read_back() {
        let leftovers = vec![Leftover::Netns("era".into()), Leftover::EmptyMount("/mnt/x".into())];
        let journal = Journal {
            owner: Process { pid: 1, started: 2 },
            boot: "b".into(),
            keep: true,
            leftovers: leftovers.clone(),
        };
        let read: Journal = serde_json::from_slice(&serde_json::to_vec(&journal).unwrap()).unwrap();
        assert_eq!(read.leftovers, leftovers);
        assert!(read.keep);
    }
}
