//! A kernel of its own, run as a process: User-Mode Linux with the host's files as its root.
//!
//! What the guest writes stays in its memory; only `/share` and its disks are files of the host. It needs no privilege.

mod init;

use std::{
    env,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::fs::{StatVfsMountFlags, statvfs};

pub(crate) use init::{Program, quote};

use crate::{
    cleanup::{self, Leftover, Ticket},
    failure::Outcome,
    paths,
    process::{self, Background},
    wait,
};

/// Why a guest did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file that it needs could not be made.
    #[error("cannot prepare the guest {name}: {path}")]
    Prepare {
        /// The guest.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No place for its memory.
    #[error(
        "no room for the memory of the guest {name}: {mebibytes} MiB are needed in one of {tried}, in a directory that \
         is not mounted noexec; set TMPDIR to one"
    )]
    NoRoom {
        /// The guest.
        name: String,
        /// What it needs.
        mebibytes: u32,
        /// Where it was looked for.
        tried: String,
    },
    /// The kernel process.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// It ended before the program did.
    #[error(
        "the guest {name} ended before its program did; its console ({log}) ends with:\n{console}"
    )]
    Died {
        /// The guest.
        name: String,
        /// Where its console is kept.
        log: String,
        /// Its last lines.
        console: String,
    },
    /// It took too long.
    #[error(
        "the guest {name} was ended: {why} {seconds} s; its console ({log}) ends with:\n{console}"
    )]
    TooLong {
        /// The guest.
        name: String,
        /// Which limit was hit.
        why: &'static str,
        /// The limit.
        seconds: u64,
        /// Where its console is kept.
        log: String,
        /// Its last lines.
        console: String,
    },
}

/// What a guest is made of.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Names its log.
    pub(crate) name: String,
    /// Its memory.
    pub(crate) memory_mib: u32,
    /// Files that it sees as `/dev/ubda`, `/dev/ubdb`, …
    pub(crate) disks: Vec<PathBuf>,
    /// Further arguments of its kernel, such as network devices.
    pub(crate) kernel: Vec<String>,
    /// The network namespace that its kernel process runs in.
    pub(crate) netns: Option<String>,
    /// What it does once its root is set up: lines of the shell.
    pub(crate) script: String,
}

/// A guest that runs; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    name: String,
    directory: PathBuf,
    log: PathBuf,
    kernel: Background,
    _directories: [Ticket; 2],
}

impl Guest {
    /// Boots a guest.
    pub(crate) fn boot(config: &Config) -> Result<Self, Error> {
        let memory = place_for_memory(config)?;
        let (directory, directory_ticket) = scratch(&config.name, &paths::cache().join("guests"))?;
        let (sockets, sockets_ticket) = scratch(&config.name, &memory)?;
        let share = directory.join("share");
        prepare(config, &share, fs::create_dir(&share))?;
        let init = directory.join("init");
        prepare(config, &init, write_program(&init, &init::script(&share, &config.script)))?;
        let log = paths::logs().join(format!("{}.console.log", config.name));
        prepare(config, &log, fs::create_dir_all(paths::logs()))?;
        // Another run may still write to a file of this name.
        let _ = fs::remove_file(&log);
        let mut command = kernel(config, &init, &sockets);
        command.env("TMPDIR", &memory);
        let kernel = Background::start(&mut command, &log)?;
        let name = config.name.clone();
        Ok(Self { name, directory, log, kernel, _directories: [directory_ticket, sockets_ticket] })
    }

    /// The directory of the host that the guest sees as `/share`.
    pub(crate) fn share(&self) -> PathBuf {
        self.directory.join("share")
    }

    /// Where its console, that is the kernel's log, goes.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of its console.
    pub(crate) fn console(&self, lines: usize) -> String {
        process::tail(&fs::read_to_string(&self.log).unwrap_or_default(), lines)
    }

    /// Whether it runs no more.
    pub(crate) fn has_ended(&mut self) -> Result<bool, Error> {
        Ok(self.kernel.ended()?.is_some())
    }

    fn died(&self) -> Error {
        Error::Died { name: self.name.clone(), log: self.shown_log(), console: self.console(30) }
    }

    fn too_long(&self, why: &'static str, limit: Duration) -> Error {
        let (name, log) = (self.name.clone(), self.shown_log());
        Error::TooLong { name, why, seconds: limit.as_secs(), log, console: self.console(30) }
    }

    fn shown_log(&self) -> String {
        self.log.display().to_string()
    }
}

/// How long a program in a guest may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// In all, the boot included.
    pub(crate) total: Duration,
    /// Without printing anything.
    pub(crate) silence: Duration,
}

/// How a program in a guest ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit status.
    pub(crate) status: u8,
    /// The last lines of the kernel's log.
    pub(crate) console: String,
    /// Where the whole log is.
    pub(crate) log: PathBuf,
}

/// Boots a guest with a scratch filesystem and an empty disk, runs one program in it, and hands over what it prints.
pub(crate) fn run(
    name: &str,
    memory_mib: u32,
    program: &Program,
    limits: Limits,
    mut printed: impl FnMut(&str),
) -> Result<Ended, Error> {
    let (disks, _ticket) = scratch_disks(name)?;
    let config = Config {
        name: name.to_owned(),
        memory_mib,
        disks,
        kernel: Vec::new(),
        netns: None,
        script: init::run(program),
    };
    let mut guest = Guest::boot(&config)?;
    follow(&mut guest, limits, &mut printed)
}

/// `cargo e2e guest`: runs a command, shows what it prints, and ends as it ends.
pub(crate) fn command(memory_mib: u32, deadline: u64, words: &[String]) -> Outcome<ExitCode> {
    let program = Program {
        words: words.to_vec(),
        directory: env::current_dir().ok(),
        environment: Vec::new(),
    };
    let total = Duration::from_secs(deadline);
    let ended = run("guest", memory_mib, &program, Limits { total, silence: total }, |text| {
        print!("{text}");
        let _ = io::stdout().flush();
    })?;
    eprintln!("status {}, kernel log: {}", ended.status, ended.log.display());
    Ok(ExitCode::from(ended.status))
}

fn follow(
    guest: &mut Guest,
    limits: Limits,
    printed: &mut impl FnMut(&str),
) -> Result<Ended, Error> {
    let start = Instant::now();
    let mut last = start;
    let mut output =
        Follower { path: guest.share().join("output"), file: None, pending: Vec::new() };
    loop {
        // Asked before reading: what it printed before it ended is then read for certain.
        let over = guest.has_ended()?;
        let status = read_status(&guest.share().join("status"));
        let text = output.more();
        if !text.is_empty() {
            last = Instant::now();
            printed(&text);
        }
        if let Some(status) = status {
            return Ok(Ended { status, console: guest.console(30), log: guest.log().to_owned() });
        }
        if over {
            return Err(guest.died());
        }
        if start.elapsed() > limits.total {
            return Err(guest.too_long("it ran for more than", limits.total));
        }
        if last.elapsed() > limits.silence {
            return Err(guest.too_long("nothing was printed for", limits.silence));
        }
        wait::pause();
    }
}

fn read_status(path: &Path) -> Option<u8> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Reads a file that grows.
struct Follower {
    path: PathBuf,
    file: Option<File>,
    /// The bytes of a character that is not complete yet.
    pending: Vec<u8>,
}

impl Follower {
    fn more(&mut self) -> String {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        if let Some(file) = &mut self.file {
            let _ = file.read_to_end(&mut self.pending);
        }
        take_text(&mut self.pending)
    }
}

/// Takes the complete characters; what is no UTF-8 at all is replaced.
fn take_text(bytes: &mut Vec<u8>) -> String {
    let complete = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    };
    let rest = bytes.split_off(complete);
    String::from_utf8_lossy(&std::mem::replace(bytes, rest)).into_owned()
}

fn kernel(config: &Config, init: &Path, sockets: &Path) -> Command {
    let mut command = match &config.netns {
        Some(netns) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", netns, "linux.uml"]);
            command
        }
        None => Command::new("linux.uml"),
    };
    command.arg(format!("mem={}M", config.memory_mib)).args([
        "root=/dev/root",
        "rootfstype=hostfs",
        "ro",
    ]);
    command.arg(format!("init={}", init.display()));
    command.args(["con=null", "con0=null,fd:1", "con1=null", "umid=uml"]);
    command.arg(format!("uml_dir={}/", sockets.display()));
    for (index, disk) in config.disks.iter().enumerate() {
        command.arg(format!("ubd{index}={}", disk.display()));
    }
    command.args(&config.kernel);
    command
}

/// A directory, executable and with room, that is a tmpfs if there is one: the guest's memory is a file in it.
fn place_for_memory(config: &Config) -> Result<PathBuf, Error> {
    let chosen = env::var_os("TMPDIR").map(PathBuf::from);
    let places: Vec<PathBuf> =
        [Some("/dev/shm".into()), chosen, Some("/tmp".into()), Some(paths::cache())]
            .into_iter()
            .flatten()
            .collect();
    places.iter().find(|place| has_room(place, config.memory_mib)).cloned().ok_or_else(|| {
        Error::NoRoom {
            name: config.name.clone(),
            mebibytes: config.memory_mib,
            tried: places
                .iter()
                .map(|place| place.display().to_string())
                .collect::<Vec<_>>()
                .join(", "),
        }
    })
}

fn has_room(place: &Path, mebibytes: u32) -> bool {
    statvfs(place).is_ok_and(|it| {
        let executable = !it.f_flag.contains(StatVfsMountFlags::NOEXEC);
        executable && it.f_bavail.saturating_mul(it.f_frsize) >> 20 >= u64::from(mebibytes)
    })
}

/// Two disks: one that becomes `/scratch`, one left empty. Sparse, so that they cost what is written.
fn scratch_disks(name: &str) -> Result<(Vec<PathBuf>, Ticket), Error> {
    let (directory, ticket) = scratch(name, &paths::cache().join("guests"))?;
    let disks = vec![directory.join("scratch.img"), directory.join("empty.img")];
    for disk in &disks {
        let made = File::create(disk).and_then(|file| file.set_len(8 << 30));
        made.map_err(|source| Error::Prepare {
            name: name.to_owned(),
            path: disk.clone(),
            source,
        })?;
    }
    Ok((disks, ticket))
}

/// A new directory that is removed at the end.
fn scratch(name: &str, parent: &Path) -> Result<(PathBuf, Ticket), Error> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let path = parent.join(format!("eratrack-{}-{number}", std::process::id()));
    let made = fs::create_dir_all(&path);
    made.map_err(|source| Error::Prepare { name: name.to_owned(), path: path.clone(), source })?;
    let ticket = cleanup::defer(Leftover::Directory(path.clone()));
    Ok((path, ticket))
}

fn prepare<T>(config: &Config, path: &Path, result: io::Result<T>) -> Result<T, Error> {
    result.map_err(|source| Error::Prepare {
        name: config.name.clone(),
        path: path.to_owned(),
        source,
    })
}

fn write_program(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(0o755).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_taken_in_whole_characters() {
        let mut bytes = "aé".as_bytes()[..2].to_vec();
        assert_eq!(take_text(&mut bytes), "a");
        bytes.push("é".as_bytes()[1]);
        assert_eq!(take_text(&mut bytes), "é");
        let mut junk = vec![b'x', 0xff, b'y'];
        assert_eq!(take_text(&mut junk), "x\u{fffd}y");
    }

    #[test]
    fn a_guest_in_a_namespace_is_started_through_ip() {
        let config = Config {
            name: "n".into(),
            memory_mib: 512,
            disks: vec!["/d".into()],
            kernel: vec!["vec0:x".into()],
            netns: Some("era".into()),
            script: String::new(),
        };
        let line = process::shown(&kernel(&config, Path::new("/i"), Path::new("/s")));
        assert!(line.starts_with("ip netns exec era linux.uml mem=512M "), "{line}");
        assert!(line.ends_with("uml_dir=/s/ ubd0=/d vec0:x"), "{line}");
    }

    #[test]
    fn no_place_has_room_for_everything() {
        assert!(!has_room(Path::new("/"), u32::MAX));
        assert!(!has_room(Path::new("/no/such/place"), 1));
    }
}
