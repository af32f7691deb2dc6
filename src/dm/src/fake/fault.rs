use crate::port::{DmError, DmErrorKind};

/// What a panic carries that stands for SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Killed;

/// On which side of a call something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The kernel has not begun.
    Before,
    /// The kernel has done it, and the caller does not learn of it.
    After,
}

/// What shall go wrong.
#[derive(Debug, Default)]
pub(super) struct Faults {
    calls: usize,
    kill: Option<(usize, When)>,
    fail: Option<(usize, DmErrorKind)>,
}

impl super::FakeKernel {
    /// Ends the caller, by a panic with [`Killed`], at its `nth` call from now, from 0.
    pub fn kill_at(&self, nth: usize, when: When) {
        let mut state = self.state();
        state.faults = Faults { kill: Some((nth, when)), ..Faults::default() };
    }

    /// Refuses the `nth` call from now, from 0.
    pub fn fail_at(&self, nth: usize, kind: DmErrorKind) {
        let mut state = self.state();
        state.faults = Faults { fail: Some((nth, kind)), ..Faults::default() };
    }

    /// Nothing goes wrong from now on.
    pub fn no_faults(&self) {
        self.state().faults = Faults::default();
    }

    /// One call: counted, refused, or the caller's last.
    pub(super) fn call<T>(
        &self,
        verb: &'static str,
        device: impl std::fmt::Display,
        act: impl FnOnce(&mut super::State) -> Result<T, DmError>,
    ) -> Result<T, DmError> {
        let mut state = self.state();
        let nth = state.faults.calls;
        state.faults.calls += 1;
        if state.faults.kill == Some((nth, When::Before)) {
            drop(state);
            std::panic::panic_any(Killed);
        }
        if let Some((_, kind)) = state.faults.fail.filter(|(at, _)| *at == nth) {
            return Err(DmError::new(kind, verb, device).with_context("a fault of the test's"));
        }
        let result = act(&mut state);
        if state.faults.kill == Some((nth, When::After)) {
            drop(state);
            std::panic::panic_any(Killed);
        }
        result
    }
}
