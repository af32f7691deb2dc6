//! One tracked volume: a worker of its own, which does one thing at a time.
//!
//! - `chain`, `status`, `replica_status`: what is said of it (pure)
//! - `copier`: copying beside the worker
//! - `trouble`: why its chain ends (pure)
//! - `stack`: what the worker knows
//! - `worker`: the loop
//! - `wish`, `take_over`, `guard`, `refit`, `ending`, `attach`, `release`, `publish`, `replica`, `snapshots`: the worker's
//!   steps
//! - `holders`: one worker a stack
//! - `watch_over`: looking after era beside something else
//! - `retry`, `pace`: when to try again (pure)

mod attach;
mod chain;
mod copier;
mod ending;
mod guard;
mod holders;
mod pace;
mod points;
mod publish;
mod refit;
mod release;
mod replica;
mod replica_status;
mod retry;
mod snapshots;
mod stack;
mod status;
mod take_over;
#[cfg(test)]
mod tests;
pub(crate) mod trouble;
mod watch_over;
mod wish;
mod worker;

pub(crate) use holders::Holders;
pub(crate) use status::State;
pub(crate) use watch_over::watch_over;
pub(crate) use worker::{Context, Worker};
