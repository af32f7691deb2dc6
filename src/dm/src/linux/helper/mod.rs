//! The helper process that holds a group: this program again, with nothing else to do.
//!
//! It is told the order on its standard input, and answers on its standard output in one line. It inherits the locks, so
//! that they are held for as long as it is at work, whatever becomes of who started it.

mod child;
mod together;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, dup};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::from_errno;
use crate::hold::{Held, HoldError, Holder, Order, Verb};

pub use child::{Watcher, serve};

/// What its line begins with: a test's program prints others.
const ANSWER: &str = "eratrack-held ";
/// How long it is waited for beyond the order's deadline: it makes ready before, and resumes after.
const PATIENCE: Duration = Duration::from_secs(15);
/// An answer is no longer.
const LONGEST: usize = 1 << 20;

/// What the helper says.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Held(Held),
    Late { waiting: usize, first: usize },
    Refused { member: usize, verb: Verb, errno: i32 },
    NotReady(String),
}

/// Starts a helper for each group, one at a time.
#[derive(Debug)]
pub struct HelperProcess {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    one_at_a_time: Mutex<()>,
}

impl HelperProcess {
    /// By this program and these arguments; it must call [`serve`].
    pub fn new(program: PathBuf, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { program, arguments, environment: Vec::new(), one_at_a_time: Mutex::default() }
    }

    /// The same with a variable in its environment.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    fn start(&self, locks: &[File]) -> io::Result<Child> {
        // A duplicate that a program inherits; where another thread starts one at this moment, that one holds the lock
        // a little longer.
        let inherited = locks.iter().map(dup).collect::<Result<Vec<_>, Errno>>()?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).envs(self.environment.iter().cloned());
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        drop(inherited);
        started
    }
}

impl Holder for HelperProcess {
    fn hold(&self, order: &Order, locks: &[File]) -> Result<Held, HoldError> {
        let _turn = self.one_at_a_time.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let told = serde_json::to_vec(order).map_err(|e| HoldError::Start(e.into()))?;
        let mut child = self.start(locks).map_err(HoldError::Start)?;
        let answer = tell(&mut child, &told).and_then(|()| listen(&mut child, order.deadline));
        // Whatever a call of its is at that came too late: it shall do nothing more, for the locks are about to be given
        // back, or its devices resumed.
        let _ = child.kill();
        see_it_end(child);
        match answer.map_err(|error| tracing::warn!(%error, "no answer of the helper")) {
            Ok(Some(answer)) => understood(answer, order),
            Ok(None) | Err(()) => Err(HoldError::Lost),
        }
    }
}

/// Waits for its end, unless a call of its hangs in the kernel.
fn see_it_end(mut child: Child) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let ended = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let limit = Timespec { tv_sec: 2, tv_nsec: 0 };
    let hangs = ended.is_some_and(|ended| {
        matches!(poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&limit)), Ok(0))
    });
    if !hangs {
        let _ = child.wait();
        return;
    }
    tracing::warn!(pid = child.id(), "the helper was killed and has not ended yet");
    let _ = std::thread::Builder::new().spawn(move || child.wait());
}

fn tell(child: &mut Child, order: &[u8]) -> io::Result<()> {
    // Its end is the end of the order: half of one is none.
    let mut stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    stdin.write_all(order)
}

/// What it says until it closes its output; none if that is no answer.
fn listen(child: &mut Child, deadline: Duration) -> io::Result<Option<Answer>> {
    let mut stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let (start, limit) = (Instant::now(), deadline + PATIENCE);
    let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
    while said.len() < LONGEST {
        let left = limit.saturating_sub(start.elapsed());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let read = stdout.read(&mut buffer)?;
        said.extend_from_slice(&buffer[..read]);
        if let Some(answer) = answer(&said) {
            return Ok(Some(answer));
        }
        if read == 0 {
            break;
        }
    }
    Ok(None)
}

fn answer(said: &[u8]) -> Option<Answer> {
    let text = std::str::from_utf8(said).ok()?;
    let start = text.find(ANSWER)? + ANSWER.len();
    let line = &text[start..start + text[start..].find('\n')?];
    serde_json::from_str(line).ok()
}

fn understood(answer: Answer, order: &Order) -> Result<Held, HoldError> {
    let member = |index: usize| order.members.get(index).copied().ok_or(HoldError::Lost);
    match answer {
        Answer::Held(held) => Ok(held),
        Answer::Late { waiting, first } => {
            let (of, deadline, first) = (order.members.len(), order.deadline, member(first)?.x);
            Err(HoldError::Late { waiting, of, first, deadline })
        }
        Answer::Refused { member: index, verb, errno } => {
            let member = member(index)?;
            let device = if verb == Verb::Checkpoint { member.era } else { member.x };
            let errno = Errno::from_raw_os_error(errno);
            let source = from_errno(verb.as_str(), device, errno);
            Err(HoldError::Refused { member: index, verb, source })
        }
        Answer::NotReady(why) => Err(HoldError::NotReady(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        Order { members: Vec::new(), deadline: Duration::from_millis(1) }
    }

    #[test]
    fn an_answer_is_one_whole_line() {
        let held = Held { at: std::time::SystemTime::UNIX_EPOCH, held: Duration::from_millis(7) };
        let line = serde_json::to_string(&Answer::Held(held)).unwrap();
        let said = format!("running 1 test\n{ANSWER}{line}");
        assert!(answer(said.as_bytes()).is_none(), "its end is not there yet");
        let found = answer(format!("{said}\nok").as_bytes()).unwrap();
        assert_eq!(understood(found, &order()).unwrap(), held);
    }

    #[test]
    fn a_helper_that_ends_without_a_word_is_lost() {
        for program in ["true", "cat"] {
            let helper = HelperProcess::new(program.into(), Vec::<OsString>::new());
            let error = helper.hold(&order(), &[]).unwrap_err();
            assert!(matches!(error, HoldError::Lost), "{error}");
        }
        let helper = HelperProcess::new("/there/is/no/such".into(), Vec::<OsString>::new());
        assert!(matches!(helper.hold(&order(), &[]), Err(HoldError::Start(_))));
    }

    #[test]
    fn an_answer_of_a_member_that_is_none_is_no_answer() {
        let answer = Answer::Late { waiting: 1, first: 3 };
        assert!(matches!(understood(answer, &order()), Err(HoldError::Lost)));
    }
}
