//! One boundary over several volumes: an instant at which nothing is in flight on any of them.
//!
//! lock all → make ready, each for itself → hold: suspend all, checkpoint all, resume all (`hold`) → verify each, write
//! each down. What fails for one fails for all: then each X goes on as it was, and an era more does no harm.

use std::fs::File;
use std::time::Duration;

use eratrack_model::check;
use eratrack_model::lvm::VgName;
use eratrack_model::names::Role;
use eratrack_model::plan::{self, Member, Step};
use eratrack_model::record::Record;
use eratrack_model::refusal::Refusal;
use eratrack_model::units::{Bytes, DevNo};
use rustix::io::Errno;

use super::boundaries::DiscardsSeen;
use super::surroundings::At;
use super::{Boundary, Host, HostError, Moment, PointInTime};
use crate::executor::{Executor, Outcome, Ready, StepError, StepErrorKind};
use crate::file_lock::FileLock;
use crate::hold::{self, Held, HoldError, Order, Verb};
use crate::lvm_lock::VolumeGroupLock;
use crate::port::{DmErrorKind, Lookup};
use crate::stack_lock::{self, StackLock};

/// How long the volumes of a group are held at most: a write waits no longer.
pub const HOLD_DEADLINE: Duration = Duration::from_secs(5);
/// The most volumes of a group on one machine.
pub const GROUP_MAX: usize = 100;

/// A volume that shall have a boundary together with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joining {
    /// Which.
    pub record: Record,
    /// Whether it shall be a point in time, and with how much room for copies.
    pub point: Option<Option<Bytes>>,
}

/// What a volume got of it.
#[derive(Debug)]
pub enum Joined {
    /// A boundary.
    Boundary(Boundary),
    /// A boundary that can be read.
    Point(Box<PointInTime>),
}

/// Why there is no boundary of any.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct GroupError {
    /// The volume that it is about, by its place; none if it is about all.
    pub member: Option<usize>,
    /// What went wrong.
    #[source]
    pub source: Box<HostError>,
}

/// One volume while it takes part.
struct Part<'a> {
    joining: &'a Joining,
    lock: StackLock,
    reader: Option<FileLock>,
    copies: Bytes,
    discards: DiscardsSeen,
    member: Member,
}

type OfMember<T> = Result<T, GroupError>;

fn of_member(member: usize) -> impl FnOnce(HostError) -> GroupError {
    move |source| GroupError { member: Some(member), source: Box::new(source) }
}

fn of_all(source: impl Into<HostError>) -> GroupError {
    GroupError { member: None, source: Box::new(source.into()) }
}

impl Host {
    /// Draws one boundary over all of them: whatever was acknowledged before it on any volume is before it on that one,
    /// and what begins after it on any is after it on all. In the order of the volumes given.
    pub fn boundary_together(&self, joining: &[Joining]) -> OfMember<Vec<Joined>> {
        if joining.is_empty() || joining.len() > GROUP_MAX {
            return Err(of_all(HostError::GroupSize { volumes: joining.len() }));
        }
        // Always in one order, so that two groups never wait for each other.
        let mut order: Vec<usize> = (0..joining.len()).collect();
        order.sort_by(|a, b| joining[*a].record.stack.cmp(&joining[*b].record.stack));
        let mut parts = Vec::new();
        let drawn =
            self.gather(joining, &order, &mut parts).and_then(|()| self.draw(&order, &parts));
        let drawn = match drawn {
            Ok(drawn) => drawn,
            Err(failed) => {
                self.end_points_begun(&parts);
                return Err(failed.in_order(&order));
            }
        };
        let mut joined: Vec<_> = order
            .into_iter()
            .zip(parts.into_iter().zip(drawn))
            .map(|(place, (part, (boundary, device)))| (place, part.joined(boundary, device)))
            .collect();
        joined.sort_by_key(|(place, _)| *place);
        Ok(joined.into_iter().map(|(_, joined)| joined).collect())
    }

    fn gather<'a>(
        &self,
        joining: &'a [Joining],
        order: &[usize],
        parts: &mut Vec<Part<'a>>,
    ) -> OfMember<()> {
        for (index, place) in order.iter().enumerate() {
            self.join(&joining[*place], parts).map_err(of_member(index))?;
        }
        let all: Vec<DevNo> = parts.iter().map(|part| part.joining.record.x).collect();
        for (index, &upper) in all.iter().enumerate() {
            let beneath = self.machine.beneath(upper).map_err(HostError::from);
            let beneath = beneath.map_err(of_member(index))?;
            let is_other = |number: DevNo| number != upper && all.contains(&number);
            if let Some(lower) = beneath.into_iter().map(|it| it.number).find(|it| is_other(*it)) {
                return Err(of_member(index)(HostError::GroupNested { upper, lower }));
            }
        }
        Ok(())
    }

    /// Whatever can be done while X runs, but for what LVM's lock is needed for.
    fn join<'a>(&self, joining: &'a Joining, parts: &mut Vec<Part<'a>>) -> Result<(), HostError> {
        let record = &joining.record;
        let lock = self.lock_stack(&record.stack)?;
        self.wake(&lock, &record.stack)?;
        self.require_own_chain(&lock, record)?;
        self.require_intact(record)?;
        let reader = match joining.point {
            Some(_) => Some(self.take_reader(&lock, record)?),
            None => None,
        };
        let begun = reader.is_some();
        let planned = self.plan_of(joining).inspect_err(|_| {
            if begun {
                self.end_point_begun(&lock, record);
            }
        });
        let (discards, copies, member) = planned?;
        parts.push(Part { joining, lock, reader, copies, discards, member });
        Ok(())
    }

    fn plan_of(&self, joining: &Joining) -> Result<(DiscardsSeen, Bytes, Member), HostError> {
        let record = &joining.record;
        let store = match joining.point {
            Some(copies) => Some(self.make_copy_store(record, copies)?),
            None => None,
        };
        let discards = self.discards_now(record)?;
        let observed = self.observe(&record.stack, Some(record.x))?;
        let (plan, copies) = match &store {
            Some((store, size)) => (plan::plan_point_in_time(&observed, store)?, *size),
            None => (plan::plan_boundary(&observed)?, Bytes(0)),
        };
        check::check(&plan, &observed)
            .map_err(|violation| HostError::Plan { stack: record.stack.clone(), violation })?;
        let member = plan.as_member().ok_or_else(|| HostError::Unexpected {
            stack: record.stack.clone(),
            what: "the plan of a boundary draws none".to_owned(),
        })?;
        Ok((discards, copies, member))
    }

    fn take_reader(&self, lock: &StackLock, record: &Record) -> Result<FileLock, HostError> {
        let held = || Refusal::PointInTimeHeld { name: record.name.clone() };
        let reader = stack_lock::take_point(&self.machine, &record.stack)?.ok_or_else(held)?;
        self.end_point_locked(lock, record)?;
        self.has_snapshots()?;
        Ok(reader)
    }

    fn draw(
        &self,
        order: &[usize],
        parts: &[Part<'_>],
    ) -> OfMember<Vec<(Boundary, Option<DevNo>)>> {
        let groups = self.lock_groups(parts)?;
        let mut ready = Vec::new();
        let held = self
            .make_all_ready(parts, &mut ready)
            .and_then(|()| self.hold_all(parts, &ready, &groups));
        let held = match held {
            Ok(held) => held,
            Err(failed) => {
                self.call_off(parts, &ready);
                return Err(failed);
            }
        };
        tracing::debug!(volumes = order.len(), held = ?held.held, "held together");
        let outcomes = self.all_gone_on(parts, &ready)?;
        // LVM may come back: what remains is files of ours.
        drop(groups);
        let mut drawn = Vec::new();
        for (index, (part, outcome)) in parts.iter().zip(outcomes).enumerate() {
            let outcome = Outcome { drained: Some((held.at, held.held)), ..outcome };
            drawn.push(self.written_down(part, &outcome).map_err(of_member(index))?);
        }
        Ok(drawn)
    }

    /// Each group's lock once, always in one order.
    fn lock_groups(&self, parts: &[Part<'_>]) -> OfMember<Vec<(VgName, VolumeGroupLock)>> {
        let mut names: Vec<_> = parts.iter().filter_map(|part| part.member.lock.clone()).collect();
        names.sort();
        names.dedup();
        let mut locks = Vec::new();
        for name in names {
            let index = parts.iter().position(|part| part.member.lock.as_ref() == Some(&name));
            // Of the first volume in it.
            let locked = self.lock_group(&name).map_err(|error| GroupError {
                member: index,
                source: Box::new(
                    step_error(&parts[index.unwrap_or(0)], StepErrorKind::Lock(error)).into(),
                ),
            })?;
            locks.push((name, locked));
        }
        Ok(locks)
    }

    fn make_all_ready(&self, parts: &[Part<'_>], ready: &mut Vec<Ready>) -> OfMember<()> {
        for (index, part) in parts.iter().enumerate() {
            let made = self.with_executor(part, |executor| {
                executor.run_steps(&part.member.before)?;
                executor.make_ready(&part.member).map_err(|kind| step_error(part, kind))
            });
            let failed = |error: StepError| self.era_failed(&part.joining.record, error.into());
            ready.push(made.map_err(failed).map_err(of_member(index))?);
        }
        Ok(())
    }

    fn hold_all(
        &self,
        parts: &[Part<'_>],
        ready: &[Ready],
        groups: &[(VgName, VolumeGroupLock)],
    ) -> OfMember<Held> {
        let own = parts.iter().map(|part| part.lock.duplicate());
        let locks = own.chain(groups.iter().map(|(_, lock)| lock.duplicate()));
        let locks: Vec<File> =
            locks.collect::<Result<_, _>>().map_err(|e| of_all(HoldError::Start(e)))?;
        let member = |ready: &Ready| {
            let Ready { x, era, table, .. } = ready;
            hold::Member { x: *x, era: *era, loaded: table.is_some() }
        };
        let members = ready.iter().map(member).collect();
        self.about_to("hold the group");
        let order = Order { members, deadline: self.hold_deadline };
        let held = self.holder.hold(&order, &locks);
        self.about_to("go on after the group was held");
        held.map_err(|error| match &error {
            HoldError::Refused { member, verb: Verb::Checkpoint, source }
                if lacks_room(source.kind) =>
            {
                let stack = parts[*member].joining.record.stack.clone();
                of_member(*member)(HostError::EraFailed { stack })
            }
            HoldError::Refused { member, .. } => of_member(*member)(error.into()),
            _ => of_all(error),
        })
    }

    /// Each goes on as it was, whatever has become of who held it.
    fn call_off(&self, parts: &[Part<'_>], ready: &[Ready]) {
        for part in parts {
            if let Err(error) = self.wake_locked(&part.lock, &part.joining.record.stack) {
                tracing::error!(x = %part.joining.record.x, %error, "it is tried again");
            }
        }
        for (part, ready) in parts.iter().zip(ready) {
            self.with_executor(part, |executor| executor.called_off(ready));
        }
    }

    fn all_gone_on(&self, parts: &[Part<'_>], ready: &[Ready]) -> OfMember<Vec<Outcome>> {
        let mut went = Vec::new();
        for (part, ready) in parts.iter().zip(ready) {
            went.push(self.with_executor(part, |executor| executor.gone_on(ready)));
        }
        let mut outcomes = Vec::new();
        for (index, ((part, ready), went)) in parts.iter().zip(ready).zip(went).enumerate() {
            let after = self.with_executor(part, |executor| {
                went.map_err(|kind| step_error(part, kind))?;
                let outcome = executor.read_era_after(ready);
                let outcome = outcome.map_err(|kind| step_error(part, kind))?;
                executor.run_steps(&part.member.after).map(|_| outcome)
            });
            let failed = |error: StepError| self.era_failed(&part.joining.record, error.into());
            outcomes.push(after.map_err(failed).map_err(of_member(index))?);
        }
        Ok(outcomes)
    }

    fn written_down(
        &self,
        part: &Part<'_>,
        outcome: &Outcome,
    ) -> Result<(Boundary, Option<DevNo>), HostError> {
        let record = &part.joining.record;
        let boundary = self.drawn(record, outcome, part.discards)?;
        let snapshot = || self.dm.info(&Lookup::Uuid(record.stack.uuid(Role::Snapshot)));
        let device = part.reader.as_ref().map(|_| snapshot()).transpose()?;
        Ok((boundary, device.map(|device| device.number)))
    }

    fn end_points_begun(&self, parts: &[Part<'_>]) {
        for part in parts.iter().filter(|part| part.reader.is_some()) {
            self.end_point_begun(&part.lock, &part.joining.record);
        }
    }

    fn end_point_begun(&self, lock: &StackLock, record: &Record) {
        if let Err(undo) = self.end_point_locked(lock, record) {
            tracing::warn!(stack = %record.stack, %undo, "what was begun is left for the next time");
        }
    }

    fn with_executor<T>(&self, part: &Part<'_>, act: impl FnOnce(&Executor<'_, At<'_>>) -> T) -> T {
        let tell = |_, step: &Step| (self.observer)(Moment::Step(step));
        let surroundings = &At { host: self, lock: &part.lock };
        let stack = &part.joining.record.stack;
        act(&Executor { dm: &*self.dm, surroundings, stack, observer: &tell })
    }
}

impl Part<'_> {
    fn joined(self, boundary: Boundary, device: Option<DevNo>) -> Joined {
        match (self.reader, device) {
            (Some(reader), Some(device)) => {
                let record = self.joining.record.clone();
                Joined::Point(Box::new(PointInTime::held(
                    boundary,
                    device,
                    self.copies,
                    record,
                    reader,
                )))
            }
            _ => Joined::Boundary(boundary),
        }
    }
}

impl GroupError {
    /// With the place that the volume was given in.
    fn in_order(self, order: &[usize]) -> Self {
        Self { member: self.member.and_then(|index| order.get(index).copied()), ..self }
    }
}

/// Something of the part that is done together did not go as planned.
fn step_error(part: &Part<'_>, kind: StepErrorKind) -> StepError {
    let Member { x, expect, table, before, after, .. } = &part.member;
    let step = match table {
        Some(table) => Step::SwapIn {
            x: *x,
            expect: expect.clone(),
            table: table.clone(),
            keep_read_ahead: true,
        },
        None => Step::Drain { x: *x, table: expect.clone(), keep_read_ahead: true },
    };
    StepError {
        stack: part.joining.record.stack.clone(),
        number: before.len() + 1,
        of: before.len() + 1 + after.len(),
        step: Box::new(step),
        source: Box::new(kind),
    }
}

/// As of a checkpoint alone.
fn lacks_room(kind: DmErrorKind) -> bool {
    [Errno::NOSPC, Errno::IO].map(|e| DmErrorKind::Errno(e.raw_os_error())).contains(&kind)
}
