//! Suspend all, checkpoint all, resume all: a thread a volume, so that it takes as long as the slowest, not as all
//! together.
//!
//! The one that waits for them all decides: on as long as each has done its part in time, else back. Back means that a
//! table that waits is thrown away and X goes on with the one it has. A thread whose call hangs in the kernel keeps
//! nobody suspended: the one that waits resumes its X.

use std::fs::File;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant, SystemTime};

use devicemapper::DmFlags;
use rustix::io::Errno;

use super::Answer;
use super::child::Watcher;
use crate::hold::{Held, Member, Order, Verb};
use crate::linux::deadline;
use crate::linux::raw::{self, Call, Header};

/// A thread needs a few calls' worth; all of it is in memory.
const STACK: usize = 128 << 10;
/// How long it takes, once it is called off, until those that wait have heard of it.
const AGAIN: Duration = Duration::from_millis(50);
/// How often a resume is tried that something interrupted.
const TRIES: u32 = 16;

/// What all are at, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Gather,
    Suspend,
    Checkpoint,
    Resume,
    Undo,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// What each has done its part of.
    done: Vec<Option<Phase>>,
    refused: Option<(usize, Verb, Errno)>,
}

struct Group<'a> {
    control: &'a File,
    order: &'a Order,
    watcher: Watcher<'a>,
    state: Mutex<State>,
    news: Condvar,
    threads: Vec<AtomicI32>,
}

/// How waiting for all ended.
#[derive(PartialEq, Eq)]
enum End {
    All,
    Refused,
    Late,
}

/// Does it, and says what came of it when every X runs. Returns once all threads have ended, which may be never: the
/// kernel may keep one.
pub(super) fn hold(control: &File, order: &Order, watcher: Watcher<'_>, say: impl FnOnce(Answer)) {
    deadline::install();
    let count = order.members.len();
    let group = Group {
        control,
        order,
        watcher,
        state: Mutex::new(State { phase: Phase::Gather, done: vec![None; count], refused: None }),
        news: Condvar::new(),
        threads: (0..count).map(|_| AtomicI32::new(0)).collect(),
    };
    std::thread::scope(|threads| {
        let (group, mut missing) = (&group, None);
        for index in 0..count {
            let builder = Builder::new().stack_size(STACK);
            if let Err(error) = builder.spawn_scoped(threads, move || group.member(index)) {
                missing = Some(error);
                break;
            }
        }
        say(match missing {
            None => group.lead(),
            Some(error) => {
                group.go_to(Phase::Undo);
                Answer::NotReady(error.to_string())
            }
        });
    });
}

impl Group<'_> {
    /// The one that waits for all, and decides.
    fn lead(&self) -> Answer {
        let (limit, mut start) = (self.order.deadline, Instant::now());
        if self.wait(start + limit) != End::All {
            self.go_to(Phase::Undo);
            return Answer::NotReady("its threads do not run".to_owned());
        }
        start = Instant::now();
        for phase in [Phase::Suspend, Phase::Checkpoint] {
            self.go_to(phase);
            if self.wait(start + limit) != End::All {
                return self.call_off(phase);
            }
        }
        let at = SystemTime::now();
        self.go_to(Phase::Resume);
        if self.wait(Instant::now() + limit) == End::Late {
            // Also those whose thread is late run then.
            for index in 0..self.order.members.len() {
                let _ = self.resume(index);
            }
        }
        let held = start.elapsed();
        match self.state().refused {
            None => Answer::Held(Held { at, held }),
            Some(refused) => refusal(refused),
        }
    }

    /// All go on with what they had.
    fn call_off(&self, phase: Phase) -> Answer {
        // What is interrupted from here on is not why.
        let refused = self.state().refused;
        let waiting = self.behind(phase);
        self.go_to(Phase::Undo);
        if phase == Phase::Suspend {
            self.interrupt();
        }
        // Each thread does it, and those that the kernel keeps have it done.
        if self.wait(Instant::now() + AGAIN) != End::All {
            (0..self.order.members.len()).for_each(|index| self.undo(index));
        }
        match (refused, waiting.first()) {
            (Some(refused), _) => refusal(refused),
            (None, Some(&first)) => Answer::Late { waiting: waiting.len(), first },
            (None, None) => Answer::NotReady("it was called off".to_owned()),
        }
    }

    /// Those that have not done their part of it.
    fn behind(&self, phase: Phase) -> Vec<usize> {
        let state = self.state();
        let all = state.done.iter().enumerate();
        all.filter(|(_, done)| **done < Some(phase)).map(|(index, _)| index).collect()
    }

    /// Until those that wait in the kernel for what is in flight have come back: they hear nothing before.
    fn interrupt(&self) {
        loop {
            let waiting = self.behind(Phase::Suspend);
            if waiting.is_empty() {
                return;
            }
            for index in waiting {
                deadline::interrupt(self.threads[index].load(Ordering::Relaxed));
            }
            let state = self.state();
            drop(self.news.wait_timeout(state, AGAIN).unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn member(&self, index: usize) {
        self.threads[index].store(deadline::this_thread(), Ordering::Relaxed);
        self.done(index, Phase::Gather, Ok(()));
        if self.next(Phase::Gather) == Phase::Undo {
            return self.done(index, Phase::Undo, Ok(()));
        }
        (self.watcher)("suspend");
        let suspended = self.suspend(index);
        self.done(index, Phase::Suspend, suspended.map_err(|errno| (Verb::Suspend, errno)));
        if self.next(Phase::Suspend) == Phase::Checkpoint {
            (self.watcher)("checkpoint");
            let begun = raw::checkpoint(self.control, self.order.members[index].era);
            let begun = begun.map_err(|errno| (Verb::Checkpoint, errno));
            self.done(index, Phase::Checkpoint, begun);
            if self.next(Phase::Checkpoint) == Phase::Resume {
                (self.watcher)("resume");
                let resumed = self.resume(index).map_err(|errno| (Verb::Resume, errno));
                return self.done(index, Phase::Resume, resumed);
            }
        }
        (self.watcher)("undo");
        self.undo(index);
        self.done(index, Phase::Undo, Ok(()));
    }

    fn suspend(&self, index: usize) -> Result<(), Errno> {
        let flags = DmFlags::DM_SUSPEND | DmFlags::DM_SKIP_LOCKFS;
        self.call(Call::Suspend, index, flags)
    }

    /// With the table that waits, if there is one. One that the kernel refuses leaves X suspended with its own, which it
    /// then goes on with.
    fn resume(&self, index: usize) -> Result<(), Errno> {
        let resume = || self.persistently(Call::Resume, index, DmFlags::DM_SKIP_LOCKFS);
        resume().inspect_err(|_| {
            let _ = resume();
        })
    }

    fn undo(&self, index: usize) {
        if self.order.members[index].loaded {
            // Should it stay, X goes on with it, which does no harm: it leads to the same blocks.
            let _ = self.persistently(Call::ClearTable, index, DmFlags::empty());
        }
        let _ = self.resume(index);
    }

    fn persistently(&self, call: Call, index: usize, flags: DmFlags) -> Result<(), Errno> {
        let mut tries = 0;
        loop {
            match self.call(call, index, flags) {
                Err(Errno::INTR) if tries < TRIES => tries += 1,
                result => return result,
            }
        }
    }

    fn call(&self, call: Call, index: usize, flags: DmFlags) -> Result<(), Errno> {
        let Member { x, .. } = self.order.members[index];
        raw::call(self.control, call, Header::of_number(x).with_flags(flags)).map(drop)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn go_to(&self, phase: Phase) {
        self.state().phase = phase;
        self.news.notify_all();
    }

    fn done(&self, index: usize, phase: Phase, part: Result<(), (Verb, Errno)>) {
        let mut state = self.state();
        state.done[index] = Some(phase);
        if let Err((verb, errno)) = part {
            state.refused.get_or_insert((index, verb, errno));
        }
        self.news.notify_all();
    }

    /// What comes after that phase.
    fn next(&self, phase: Phase) -> Phase {
        let mut state = self.state();
        while state.phase == phase {
            state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.phase
    }

    fn wait(&self, until: Instant) -> End {
        let mut state = self.state();
        loop {
            let going_on = matches!(state.phase, Phase::Resume | Phase::Undo);
            if state.refused.is_some() && !going_on {
                return End::Refused;
            }
            if state.done.iter().all(|done| *done >= Some(state.phase)) {
                return End::All;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return End::Late;
            }
            let waited = self.news.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn refusal((member, verb, errno): (usize, Verb, Errno)) -> Answer {
    Answer::Refused { member, verb, errno: errno.raw_os_error() }
}
