//! What becomes of a snapshot whose time is over: one from the middle of a chain is merged into the next one, then it goes.
//!
//! 1. which, and into which: `choose` (pure)
//! 2. both as the API server has them now, and their lists, proven whole: `delta`
//! 3. the list of both, and what the next one's status says of it: `joined` (pure)
//! 4. its slices, beside those that are valid; then one write of the status: `sinceEra` falls, count and digest with it; then
//!    the slices that were valid before go, and at last the snapshot itself: `fold`
//!
//! Slices have two places, indexes from 0 and from 16; the status says which is valid. A kill between any two effects leaves
//! a snapshot that is merged already, or not at all, and in both cases still there: the next look goes on from there.

mod choose;
mod fold;
mod joined;
mod kube_store;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use choose::{Fate, Fold, fates};
pub(crate) use fold::{FoldError, fold};
pub(crate) use kube_store::KubeStore;
