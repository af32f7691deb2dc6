//! Uninstalling: every tracked volume gets its original table back while its application runs, before the agents go.
//!
//! Take the Lease → fill the caches → delete every EraVolume → act as the controller would, for EraVolumes alone →
//! wait until they are gone. EraTrackings and EraSnapshots stay, as the definitions do: a later installation goes on from
//! them, each volume with a full snapshot first.

use std::sync::Arc;
use std::time::Duration;

use eratrack_api::EraVolume;
use futures::StreamExt;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt};
use tokio::time::Instant;

use super::api_error::{ApiError, ApiErrorKind};
use super::context::Context;
use super::lease::{Candidate, Keeper, identity};
use super::volume::{self, Patience, Release, is_held};
use super::world::{Work, World, queues};
use crate::cli::UninstallArgs;
use crate::exit::Failure;

/// How long no controller begins after a success: Helm removes its Deployment meanwhile.
const AFTERWARDS: Duration = Duration::from_secs(60);
/// At most this many volumes are named in a message.
const NAMED: usize = 20;

/// Takes every stack out, or says which are left, why, and what to do.
pub(crate) async fn uninstall(args: UninstallArgs) -> Result<(), Failure> {
    let end = Instant::now() + args.timeout;
    let client = super::connect().await?;
    let asked = tokio::time::timeout_at(end, tracked(&client)).await;
    let asked = asked.unwrap_or_else(|_| Err(ApiError::timed_out("list", "EraVolumes")));
    match asked.map_err(Failure::other)? {
        Tracked::NoSuchKind => {
            println!("there is no kind EraVolume any more, so no volume is tracked");
            return Ok(());
        }
        // Only once the Lease is ours can none be made.
        Tracked::Nothing => println!("no volume is tracked"),
        Tracked::Something => {}
    }
    let candidate =
        Candidate::new(&client, &args.namespace, &args.lease_name, identity("uninstall"));
    let mut keeper = candidate.seize().await.map_err(Failure::other)?.keep_apart();
    let result = take_out(&client, &args, end, &mut keeper).await;
    match (&result, keeper.stop().await) {
        (Ok(()), Some(held)) => held.leave_for(AFTERWARDS).await.map_err(Failure::other)?,
        // The installation stays, and so its controller must be able to go on.
        (Err(_), Some(held)) => held.release().await,
        (_, None) => {}
    }
    result
}

/// What there is to take out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tracked {
    /// The definition is gone: it goes only after the last EraVolume.
    NoSuchKind,
    /// There is no EraVolume.
    Nothing,
    /// There are some.
    Something,
}

async fn tracked(client: &Client) -> Result<Tracked, ApiError> {
    let api: Api<EraVolume> = Api::all(client.clone());
    match api.list(&ListParams::default().limit(1)).await {
        Ok(list) if list.items.is_empty() => Ok(Tracked::Nothing),
        Ok(_) => Ok(Tracked::Something),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Tracked::NoSuchKind),
        Err(error) => Err(ApiError::new("list", "EraVolumes", error)),
    }
}

async fn take_out(
    client: &Client,
    args: &UninstallArgs,
    end: Instant,
    keeper: &mut Keeper,
) -> Result<(), Failure> {
    let (world, writers) = World::new();
    let world = Arc::new(world);
    let (queues, work) = queues();
    let pumps = world.pumps(client, &args.namespace, writers, &queues);
    let context = super::context(client.clone(), world.clone(), super::Settings::default());
    let context = Arc::new(Context { patience: Patience::Unbounded, ..context });
    tokio::select! {
        () = pumps => Err(Failure::Incomplete("the watches ended".to_owned())),
        lost = keeper.lost() => Err(lost),
        result = tokio::time::timeout_at(end, all_gone(&context, args, work)) => match result {
            Ok(result) => result,
            Err(_) => Err(Failure::Incomplete(left(&context, &args.namespace, args.timeout))),
        },
    }
}

async fn all_gone(context: &Arc<Context>, args: &UninstallArgs, work: Work) -> Result<(), Failure> {
    let world = &context.world;
    world.filled_for_volumes().await.map_err(Failure::other)?;
    let volumes = world.volumes.state();
    let total = volumes.iter().filter(|it| is_held(it)).count();
    println!("{total} volumes get their original tables back");
    for volume in &volumes {
        delete(&context.client, volume).await.map_err(Failure::other)?;
    }
    // Each event about a volume passes through here, its end too.
    let mut done = std::pin::pin!(super::volume_loop(context, work.volumes));
    while world.volumes.find(is_held).is_some() {
        if done.next().await.is_none() {
            return Err(Failure::Incomplete(left(context, &args.namespace, Duration::ZERO)));
        }
    }
    println!("{}", told(total, |cause| context.metrics.let_go(cause).get()));
    if let Some(foreign) = foreign(&world.volumes.state()) {
        println!("{foreign}");
    }
    Ok(())
}

/// The EraVolumes that others still hold: they mean nothing any more.
fn foreign(volumes: &[Arc<EraVolume>]) -> Option<String> {
    let named = volumes.iter().filter(|it| !it.finalizers().is_empty()).take(NAMED).map(|it| {
        format!(
            "{}/{} ({})",
            it.namespace().unwrap_or_default(),
            it.name_any(),
            it.finalizers().join(", ")
        )
    });
    let named: Vec<String> = named.collect();
    (!named.is_empty()).then(|| {
        format!("finalizers that are not eratrack's keep these EraVolumes: {}", named.join("; "))
    })
}

/// What became of so many volumes, given how many of them ended for which cause.
fn told(total: usize, ended: impl Fn(&'static str) -> u64) -> String {
    let mut parts =
        vec![format!("{} of {total} volumes have their original tables back", ended("Detached"))];
    let others = [
        ("NeverAssigned", "were never given to an agent"),
        ("NodeGone", "were on nodes that are gone"),
        (
            "OutOfService",
            "were on nodes that are out of service, and must be restarted before they are used again",
        ),
    ];
    let seen = others.into_iter().map(|(cause, what)| (ended(cause), what));
    parts.extend(
        seen.filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")),
    );
    parts.join("; ")
}

async fn delete(client: &Client, volume: &EraVolume) -> Result<(), ApiError> {
    let namespace = volume.namespace().unwrap_or_default();
    let api: Api<EraVolume> = Api::namespaced(client.clone(), &namespace);
    match api.delete(&volume.name_any(), &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(error) => {
            match ApiError::new(
                "delete",
                &format!("EraVolume {namespace}/{}", volume.name_any()),
                error,
            ) {
                known if known.kind == ApiErrorKind::Gone => Ok(()),
                other => Err(other),
            }
        }
    }
}

/// Which volumes are left, why, and what to do.
fn left(context: &Context, namespace: &str, after: Duration) -> String {
    let volumes = context.world.volumes.state_filter(is_held);
    let now = (context.now)();
    let mut lines: Vec<String> = volumes
        .iter()
        .take(NAMED)
        .map(|it| {
            let around = volume::observe(&context.world, it);
            let why = match volume::decide(it, &around, context.patience, now) {
                Release::Hold(_, why) => format!("{why}{}", said(it)),
                Release::NotAsked => {
                    "it was made again meanwhile; delete its EraTracking".to_owned()
                }
                Release::Free(cause) => {
                    format!("{}, but its finalizer is not removed yet", cause.message())
                }
            };
            format!("  {}/{}: {why}", it.namespace().unwrap_or_default(), it.name_any())
        })
        .collect();
    if volumes.len() > NAMED {
        lines.push(format!("  and {} more", volumes.len() - NAMED));
    }
    format!(
        "{} volumes are still tracked after {} s:\n{}\n\
         Start the agents of those nodes (kubectl -n {namespace} get pods -o wide), or remove the Node objects of nodes \
         that will not come back, then uninstall again. Nothing was lost: the volumes work as before.",
        volumes.len(),
        after.as_secs(),
        lines.join("\n")
    )
}

/// What the agent says of a volume.
fn said(volume: &EraVolume) -> String {
    let conditions = volume.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let attached = eratrack_api::condition::find(conditions, eratrack_api::ConditionType::Attached);
    attached
        .map(|it| format!(" (Attached={}: {} {})", it.status.as_str(), it.reason, it.message))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::testing::fake_api::FakeApi;
    use crate::controller::testing::scene::Scene;
    use crate::controller::testing::{condition, era_volume};

    /// A volume that is being deleted, whose agent has been away for long.
    fn abandoned() -> EraVolume {
        era_volume(
            "data",
            json!({
                "metadata": { "deletionTimestamp": "2026-11-22T10:00:00Z" },
                "status": { "conditions": [
                    { "type": "Ready", "status": "Unknown", "reason": "AgentNotReady", "message": "",
                      "lastTransitionTime": "2026-11-22T10:00:00Z" },
                    condition("Attached", "True", "Attached"),
                ] },
            }),
        )
    }

    fn context(api: &FakeApi, volume: &EraVolume, agent_ready: bool) -> Arc<Context> {
        let context = Scene::new().agent("n1", agent_ready).volume(volume.clone()).context(api);
        let context = Arc::into_inner(context).expect("nobody else has it");
        Arc::new(Context { patience: Patience::Unbounded, ..context })
    }

    #[tokio::test]
    async fn scenario_a_volume_whose_agent_is_away_is_held_and_named_with_the_remedy() {
        let (api, volume) = (FakeApi::new(), abandoned());
        let context = context(&api, &volume, false);
        volume::reconcile(Arc::new(volume), context.clone()).await.expect("done");
        assert!(!api.order().contains(&"PATCH eravolumes/data".to_owned()), "{:?}", api.order());
        let text = left(&context, "eratrack-system", Duration::from_secs(20));
        for words in ["shop/data", "no agent is ready on node n1; start its pod", "after 20 s"] {
            assert!(text.contains(words), "{words} is not in: {text}");
        }
    }

    #[tokio::test]
    async fn scenario_a_missing_kind_is_told_from_an_empty_one() {
        let list = json!({ "metadata": {}, "items": [] });
        let empty = FakeApi::new().answer("GET v1alpha1/eravolumes", 200, list);
        assert_eq!(tracked(&empty.client()).await.expect("told"), Tracked::Nothing);
        let missing = FakeApi::new().refuse("GET v1alpha1/eravolumes", 404, "NotFound", "");
        assert_eq!(tracked(&missing.client()).await.expect("told"), Tracked::NoSuchKind);
        let down = FakeApi::new().refuse("GET v1alpha1/eravolumes", 503, "ServiceUnavailable", "");
        assert!(tracked(&down.client()).await.is_err(), "no answer is no proof");
    }

    #[tokio::test]
    async fn scenario_what_others_hold_is_not_waited_for_and_named() {
        let mut volume = abandoned();
        volume.metadata.finalizers = Some(vec!["a.example.com/x".into()]);
        let context = context(&FakeApi::new(), &volume, true);
        let text = left(&context, "eratrack-system", Duration::ZERO);
        assert!(text.starts_with("0 volumes are still tracked"), "{text}");
        let text = foreign(&context.world.volumes.state()).expect("one");
        assert!(text.contains("shop/data (a.example.com/x)"), "{text}");
        let free = era_volume("data", json!({ "metadata": { "finalizers": [] } }));
        assert_eq!(foreign(&[Arc::new(free)]), None);
    }

    #[test]
    fn what_became_of_the_volumes_is_told_by_cause() {
        let all = told(2, |cause| u64::from(cause == "Detached") * 2);
        assert_eq!(all, "2 of 2 volumes have their original tables back");
        let some = told(3, |_| 1);
        assert!(
            some.starts_with("1 of 3 volumes have")
                && some.contains("1 were on nodes that are gone"),
            "{some}"
        );
    }
}
