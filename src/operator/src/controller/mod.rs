//! The controller: turns what users write into what agents do, and sums up what comes of it.
//!
//! hold the Lease (`lease`) → fill the caches (`world`) → for each object that something changed about (`routes`):
//!
//! | kind | module | does |
//! |---|---|---|
//! | EraTracking | `tracking` | resolves claims, keeps EraVolumes, fires the schedule, prunes, sums up |
//! | EraVolume | `volume` | keeps Ready, holds and releases the finalizer |
//! | EraSnapshot | `snapshot` | gives it to a node's agent, ends it at its deadline |
//!
//! What is decided is decided in pure modules: `place`, `schedule`, `retention`, `budget`, and the inner steps of the
//! three above. `uninstall` is a controller for EraVolumes alone.

mod api_error;
mod budget;
mod context;
mod error;
mod events;
mod lease;
mod merge;
mod metrics;
mod outcome;
mod place;
mod retention;
mod routes;
mod schedule;
mod snapshot;
#[cfg(test)]
mod testing;
mod tracking;
mod trim;
mod uninstall;
mod volume;
mod world;

use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use eratrack_api::EraVolume;
use futures::channel::mpsc::UnboundedReceiver;
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use kube::runtime::applier;
use kube::runtime::controller::{self, Action, Error};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Config, Resource};

use crate::cli::ControllerArgs;
use crate::exit::{Failure, chain};
use crate::http_server::{self, Readiness};
use crate::shutdown;
use api_error::ApiError;
use context::{Context, Pacer, Settings};
use error::ReconcileError;
use events::Events;
use lease::{Candidate, identity};
use metrics::Metrics;
pub(crate) use uninstall::uninstall;
use world::{Queues, Work, World, Writers, queues};

/// How many objects of a kind are worked on at once; each waits for the API server most of the time.
const CONCURRENCY: u16 = 8;
/// Changes that come together are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// How long one object may take; each holds one of few places meanwhile.
const RECONCILIATION: Duration = Duration::from_secs(60);
/// How long the API server may be silent: longer than the quietest watch, which it ends after 290 s.
const SILENCE: Duration = Duration::from_secs(320);

/// Runs until asked to end, or until the Lease is lost.
pub(crate) async fn run(args: ControllerArgs) -> Result<(), Failure> {
    let client = connect().await?;
    let (world, writers) = World::new();
    let world = Arc::new(world);
    let settings = Settings { min_granularity: args.min_granularity, keep_max: args.keep_max };
    let context = Arc::new(context(client.clone(), world.clone(), settings));
    let mut registry = crate::metrics::registry();
    context.metrics.register(&mut registry, &world);
    let readiness = Readiness::default();
    let served = http_server::serve(args.metrics_addr, readiness.clone(), Arc::new(registry));
    tokio::select! {
        result = served => match result {
            Err(error) => Err(Failure::other(error)),
        },
        result = lead(&args, &context, writers, &readiness) => result,
    }
}

/// The API server, from the pod's service account or a kubeconfig.
async fn connect() -> Result<Client, Failure> {
    let mut config = Config::infer().await.map_err(Failure::other)?;
    config.read_timeout = Some(SILENCE);
    // A connection that was idle before has its full time.
    config.reset_reader_on_write = true;
    Client::try_from(config).map_err(Failure::other)
}

fn context(client: Client, world: Arc<World>, settings: Settings) -> Context {
    Context {
        events: Events::new(client.clone(), identity("controller")),
        client,
        world,
        settings,
        metrics: Arc::new(Metrics::default()),
        pacer: Pacer::default(),
        patience: volume::Patience::Bounded,
        now: Timestamp::now,
    }
}

/// Waits for the Lease, then works while it is held. One that waits is ready: it will do its work when its turn comes.
async fn lead(
    args: &ControllerArgs,
    context: &Arc<Context>,
    writers: Writers,
    readiness: &Readiness,
) -> Result<(), Failure> {
    let mut end = std::pin::pin!(shutdown::requested());
    readiness.set(true);
    let candidate =
        Candidate::new(&context.client, &args.namespace, &args.lease_name, identity("controller"));
    let mut keeper = tokio::select! {
        held = candidate.acquire() => held.keep_apart(),
        ended = &mut end => return ended.map_err(Failure::other),
    };
    context.metrics.leading.set(1);
    readiness.set(false);
    let (queues, work) = queues();
    tokio::select! {
        lost = keeper.lost() => return Err(lost),
        ended = work_on(args, context, writers, &queues, work, readiness) => ended?,
        ended = &mut end => ended.map_err(Failure::other)?,
    }
    if let Some(held) = keeper.stop().await {
        held.release().await;
    }
    Ok(())
}

async fn work_on(
    args: &ControllerArgs,
    context: &Arc<Context>,
    writers: Writers,
    queues: &Queues,
    work: Work,
    readiness: &Readiness,
) -> Result<(), Failure> {
    let pumps = context.world.pumps(&context.client, &args.namespace, writers, queues);
    let loops = async {
        context.world.filled().await.map_err(Failure::other)?;
        readiness.set(true);
        tracing::info!("the caches are filled");
        let trackings = reconcile_loop(
            context,
            context.world.trackings.clone(),
            work.trackings,
            tracking::reconcile,
        );
        let snapshots = reconcile_loop(
            context,
            context.world.snapshots.clone(),
            work.snapshots,
            snapshot::reconcile,
        );
        let volumes = volume_loop(context, work.volumes);
        let drained = |()| futures::future::ready(());
        futures::join!(
            trackings.for_each(drained),
            volumes.for_each(drained),
            snapshots.for_each(drained)
        );
        Ok(())
    };
    tokio::select! {
        () = pumps => Ok(()),
        ended = loops => ended,
    }
}

/// Reconciles EraVolumes; yields once for each that was looked at, also for one that is gone.
fn volume_loop(
    context: &Arc<Context>,
    work: UnboundedReceiver<ObjectRef<EraVolume>>,
) -> impl Stream<Item = ()> + use<> {
    reconcile_loop(context, context.world.volumes.clone(), work, volume::reconcile)
}

/// Reconciles the objects of a kind as they come out of their queue, and again when they ask for it or fail.
fn reconcile_loop<K, F>(
    context: &Arc<Context>,
    cache: Store<K>,
    work: UnboundedReceiver<ObjectRef<K>>,
    reconcile: fn(Arc<K>, Arc<Context>) -> F,
) -> impl Stream<Item = ()> + use<K, F>
where
    K: Resource<DynamicType = ()> + Clone + Debug + 'static,
    K::DynamicType: Debug + Eq + Hash + Clone + Unpin,
    F: Future<Output = Result<Action, ReconcileError>> + 'static,
{
    let kind = K::kind(&()).into_owned();
    let failed = {
        let kind = kind.clone();
        move |_: Arc<K>, error: &ReconcileError, context: Arc<Context>| {
            context
                .metrics
                .errors
                .get_or_create(&vec![("kind", kind.clone()), ("step", error.step().into())])
                .inc();
            Action::requeue(error.retry_after())
        }
    };
    let counter = context.metrics.clone();
    applier(
        move |object, context| {
            let name = ObjectRef::from_obj(object.as_ref()).to_string();
            Box::pin(bounded(name, reconcile(object, context)))
        },
        failed,
        context.clone(),
        cache,
        work.map(Ok::<_, std::convert::Infallible>),
        controller::Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE),
    )
    .map(move |result| {
        counter.reconciliations.get_or_create(&vec![("kind", kind.clone())]).inc();
        report(result);
    })
}

/// A reconciliation with a deadline. Whatever it was at is safe to do again.
async fn bounded(
    object: String,
    reconciliation: impl Future<Output = Result<Action, ReconcileError>>,
) -> Result<Action, ReconcileError> {
    match tokio::time::timeout(RECONCILIATION, reconciliation).await {
        Ok(result) => result,
        Err(_) => Err(ReconcileError::TimedOut(ApiError::timed_out("reconcile", &object))),
    }
}

fn report<K>(
    result: Result<(ObjectRef<K>, Action), Error<ReconcileError, std::convert::Infallible>>,
) where
    K: Resource<DynamicType = ()>,
{
    match result {
        Ok((object, _)) => tracing::debug!(%object, "looked at"),
        // It is gone, or was never there: what cares about it was told of it all the same.
        Err(Error::ObjectNotFound(object)) => tracing::debug!(%object, "not there"),
        Err(Error::ReconcilerFailed(error, object)) if error.is_routine() => {
            tracing::debug!(%object, error = chain(&error), "once more");
        }
        Err(Error::ReconcilerFailed(error, object)) => {
            tracing::warn!(%object, error = chain(&error), "failed; it is tried again");
        }
        Err(error @ (Error::QueueError(_) | Error::RunnerError(_))) => {
            tracing::error!(error = chain(&error), "the work queue ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::testing::fake_api::FakeApi;
    use crate::controller::testing::scene::Scene;
    use crate::controller::testing::tracking as era_tracking;

    #[tokio::test(start_paused = true)]
    async fn scenario_an_api_server_that_does_not_answer_is_given_up_and_tried_again() {
        let api = FakeApi::new().hang("PATCH eravolumes/data");
        let all = era_tracking("all", json!({ "claims": { "selector": {} } }));
        let context = Scene::new().bound(&["data"]).tracking(all.clone()).context(&api);
        let begin = tokio::time::Instant::now();
        let looked =
            bounded("EraTracking shop/all".into(), tracking::reconcile(Arc::new(all), context));
        let error = looked.await.expect_err("no answer");
        assert_eq!(begin.elapsed(), RECONCILIATION);
        assert_eq!(error.to_string(), "cannot reconcile EraTracking shop/all: no answer in time");
        assert_eq!((error.retry_after().as_secs(), error.step()), (5, "deadline"));
    }
}
