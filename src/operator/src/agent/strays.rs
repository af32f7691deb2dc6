//! Stacks on the machine that no worker has: all of them until the API server has told whose they are, later those whose
//! volume is none of this node's.
//!
//! Each is looked after as a worker would, and handed to one when its volume comes to light. The controller may have
//! given an `EraVolume` up while no agent was here. Then the record is all that is left, and it knows no name: so the
//! stack is taken out only when the API server's whole list has no volume with its uid, or has it on another node. An
//! `EraVolume` never changes its node, so that no object can ever go on with the chain that is here.

use std::sync::Arc;
use std::time::Duration;

use eratrack_api::{EraVolume, Reason};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument;

use super::cluster::Cluster;
use super::discover::Node;
use super::operations::{Operation, Operations};
use super::stacks::{Found, FoundState, Stacks, Tracked};
use super::volume::{Context, watch_over};

/// How long to wait before the API server is asked whose it is: most have a worker by then.
const FIRST_QUESTION: Duration = Duration::from_secs(60);
/// How long to wait before it is asked again.
const QUESTION: Duration = Duration::from_secs(600);
/// How long to wait before what did not succeed is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// A stack that is looked after until a worker takes it.
pub(crate) struct Stray {
    stop: oneshot::Sender<()>,
    task: JoinHandle<FoundState>,
}

impl Stray {
    /// Begins to look after it.
    pub(crate) fn look_after<C: Cluster, S: Stacks, N: Node>(
        context: Arc<Context<C, S, N>>,
        found: Found,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let Found { volume_uid, state } = found;
        let span = tracing::info_span!("stray", volume_uid);
        let operations = Operations::new(context.stacks.clone(), &volume_uid);
        let keeper = Keeper { context, operations };
        let task = tokio::spawn(keeper.keep(state, stopped).instrument(span));
        Self { stop, task }
    }

    /// Nobody looks after it any more. What is known of it by now; what was under way is waited for.
    pub(crate) async fn let_go(self) -> FoundState {
        // It has ended by itself if nobody listens.
        let _ = self.stop.send(());
        let ended = self.task.await;
        ended.unwrap_or_else(|panic| FoundState::Stuck(panic.to_string()))
    }
}

/// Who looks after one stray.
struct Keeper<C, S, N> {
    context: Arc<Context<C, S, N>>,
    operations: Operations<S>,
}

/// How it is with the stray.
#[derive(Debug)]
enum State {
    /// Era is in, and its chain goes on.
    Kept(Tracked),
    /// Era is to come out, which did not succeed yet; tried again at that time.
    Doomed(Option<Reason>, Instant),
    /// It could not be cleared up yet; tried again at that time.
    Stuck(String, Instant),
    /// It is gone.
    Ended(Option<Reason>),
}

/// What happens to a stray.
enum Event {
    /// A look at it says that its chain ends.
    Broken(Reason),
    /// It is time to try again.
    Retry,
    /// It is time to ask whose it is.
    Ask,
}

/// Whose a stack is, as far as the API server's whole list tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// Nobody's who could go on with its chain.
    Nobodys,
    /// A worker's to be, or not known.
    SomebodysOrUnknown,
}

impl From<FoundState> for State {
    fn from(found: FoundState) -> Self {
        match found {
            FoundState::Present(tracked) => Self::Kept(tracked),
            FoundState::Ended(reason) => Self::Ended(reason),
            FoundState::Stuck(message) => Self::Stuck(message, Instant::now() + RETRY),
        }
    }
}

impl From<State> for FoundState {
    fn from(state: State) -> Self {
        match state {
            State::Kept(tracked) => Self::Present(tracked),
            State::Ended(reason) => Self::Ended(reason),
            State::Stuck(message, _) => Self::Stuck(message),
            State::Doomed(..) => Self::Stuck("era could not be taken out yet".to_owned()),
        }
    }
}

impl<C: Cluster, S: Stacks, N: Node> Keeper<C, S, N> {
    async fn keep(self, found: FoundState, mut stop: oneshot::Receiver<()>) -> FoundState {
        let mut state = State::from(found);
        let mut question = Instant::now() + FIRST_QUESTION;
        while !matches!(state, State::Ended(_)) {
            let event = tokio::select! {
                biased;
                // Whoever let it go without a word has ended, and the process with it.
                _ = &mut stop => break,
                event = self.next(&state) => event,
                () = tokio::time::sleep_until(question) => Event::Ask,
            };
            if matches!(event, Event::Ask) {
                question = Instant::now() + QUESTION;
            }
            state = self.act(state, event, &mut question).await;
        }
        state.into()
    }

    /// Only waits and looks, so that nothing is lost when it is dropped.
    async fn next(&self, state: &State) -> Event {
        match state {
            State::Kept(tracked) => {
                Event::Broken(watch_over(&self.operations, &*self.context.node, tracked).await)
            }
            State::Doomed(_, at) | State::Stuck(_, at) => {
                tokio::time::sleep_until(*at).await;
                Event::Retry
            }
            State::Ended(_) => std::future::pending().await,
        }
    }

    async fn act(&self, state: State, event: Event, question: &mut Instant) -> State {
        match (event, state) {
            (Event::Broken(reason), _) => {
                tracing::warn!(%reason, "the chain ends");
                self.context.metrics.broken(reason);
                self.take_out(Some(reason)).await
            }
            (Event::Retry, State::Stuck(..)) => {
                let tried = self.operations.run(Operation::Recover, S::recover_again).await;
                tried.unwrap_or_else(|error| FoundState::Stuck(error.to_string())).into()
            }
            (Event::Retry, State::Doomed(reason, _)) => self.take_out(reason).await,
            (Event::Ask, state) => match self.whose().await {
                Some(Whose::Nobodys) => {
                    tracing::info!(?state, "nobody can go on with it");
                    self.take_out(None).await
                }
                Some(Whose::SomebodysOrUnknown) => state,
                None => {
                    *question = Instant::now() + RETRY;
                    state
                }
            },
            (Event::Retry, state @ (State::Kept(_) | State::Ended(_))) => state,
        }
    }

    /// An answer that did not come says nothing.
    async fn whose(&self) -> Option<Whose> {
        let listed = self.context.cluster.volumes().await;
        let listed = listed.inspect_err(|error| {
            tracing::warn!(error = crate::exit::chain(error), "who it belongs to is not known");
        });
        let uid = self.operations.volume_uid();
        listed.ok().map(|all| whose(&all, uid, &self.context.node_name))
    }

    async fn take_out(&self, reason: Option<Reason>) -> State {
        match self.operations.run(Operation::Detach, S::detach).await {
            Ok(()) => State::Ended(reason),
            Err(error) => {
                tracing::warn!(error = crate::exit::chain(&error), "cannot take it out yet");
                State::Doomed(reason, Instant::now() + RETRY)
            }
        }
    }
}

fn whose(volumes: &[EraVolume], uid: &str, node: &str) -> Whose {
    let mut of_uid = volumes.iter().filter(|volume| volume.spec.volume.uid == uid);
    let elsewhere =
        |volume: &EraVolume| volume.spec.node_name.as_deref().is_some_and(|it| it != node);
    if of_uid.all(elsewhere) { Whose::Nobodys } else { Whose::SomebodysOrUnknown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::stacks::{Liveness, Wanted};
    use crate::agent::testing::memory::Memory;
    use crate::agent::testing::{VOLUME_UID, context, era_volume, tracked};

    const LONG: Duration = Duration::from_secs(700);

    fn stray(memory: &Memory, state: fn(Tracked) -> FoundState) -> Stray {
        let wanted = Wanted {
            volume_uid: VOLUME_UID.to_owned(),
            device: tracked().number,
            granularity: tracked().granularity,
        };
        let (there, _) = memory.attach(&wanted).expect("a stack");
        let (context, ..) = context(memory);
        let found = Found { volume_uid: VOLUME_UID.to_owned(), state: state(there) };
        Stray::look_after(Arc::new(context), found)
    }

    fn stuck(_: Tracked) -> FoundState {
        FoundState::Stuck("the disk is busy".to_owned())
    }

    fn of(uid: &str, node: Option<&str>) -> EraVolume {
        let mut volume = era_volume();
        uid.clone_into(&mut volume.spec.volume.uid);
        volume.spec.node_name = node.map(str::to_owned);
        volume
    }

    #[test]
    fn whose_it_is() {
        let whose = |volumes: &[EraVolume]| whose(volumes, "u", "node1");
        assert_eq!(whose(&[]), Whose::Nobodys);
        assert_eq!(whose(&[of("v", Some("node1"))]), Whose::Nobodys, "another volume's");
        assert_eq!(whose(&[of("u", Some("node2"))]), Whose::Nobodys, "another node's");
        assert_eq!(whose(&[of("u", Some("node1"))]), Whose::SomebodysOrUnknown);
        assert_eq!(whose(&[of("u", None)]), Whose::SomebodysOrUnknown, "no node yet");
        let both = [of("u", Some("node2")), of("u", Some("node1"))];
        assert_eq!(whose(&both), Whose::SomebodysOrUnknown);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_nobody_wants_is_taken_out_once() {
        let memory = Memory::default();
        let stray = stray(&memory, FoundState::Present);
        tokio::time::sleep(LONG * 3).await;
        assert_eq!((memory.chain(), memory.detached()), (None, 1));
        assert_eq!(stray.let_go().await, FoundState::Ended(None));
    }

    #[tokio::test(start_paused = true)]
    async fn no_answer_takes_nothing_out() {
        let memory = Memory::default();
        memory.cut_off(true);
        let stray = stray(&memory, FoundState::Present);
        tokio::time::sleep(LONG * 3).await;
        assert_eq!(memory.detached(), 0);
        memory.cut_off(false);
        tokio::time::sleep(LONG).await;
        assert_eq!(memory.detached(), 1);
        drop(stray);
    }

    #[tokio::test(start_paused = true)]
    async fn one_whose_volume_is_this_nodes_waits_for_its_worker() {
        let memory = Memory::default();
        memory.set_volume(Some(era_volume()));
        let stray = stray(&memory, FoundState::Present);
        tokio::time::sleep(LONG * 3).await;
        assert_eq!(memory.detached(), 0);
        assert_eq!(stray.let_go().await, FoundState::Present(memory.stack().expect("still in")));
    }

    /// No watch tells of them yet, and the user's writes may already fail.
    #[tokio::test(start_paused = true)]
    async fn one_that_fails_comes_out_although_the_api_server_is_away() {
        let memory = Memory::default();
        memory.cut_off(true);
        let stray = stray(&memory, FoundState::Present);
        memory.fail_era();
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert_eq!(memory.chain(), None);
        assert_eq!(stray.let_go().await, FoundState::Ended(Some(Reason::MetadataError)));
    }

    #[tokio::test(start_paused = true)]
    async fn remains_of_a_device_that_is_gone_do_not_stay() {
        let memory = Memory::default();
        memory.cut_off(true);
        let stray = stray(&memory, FoundState::Present);
        memory.set_live(Liveness::Gone);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(memory.chain(), None);
        drop(stray);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_not_cleared_up_is_tried_again_and_goes_only_when_it_is_nobodys() {
        let memory = Memory::default();
        memory.set_volume(Some(era_volume()));
        memory.stick(usize::MAX);
        let first = stray(&memory, stuck);
        tokio::time::sleep(LONG).await;
        assert_eq!(memory.detached(), 0);
        memory.stick(0);
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert!(matches!(first.let_go().await, FoundState::Present(_)));

        memory.set_volume(None);
        memory.stick(usize::MAX);
        let second = stray(&memory, stuck);
        tokio::time::sleep(Duration::from_secs(65)).await;
        assert_eq!(memory.detached(), 1);
        drop(second);
    }
}
