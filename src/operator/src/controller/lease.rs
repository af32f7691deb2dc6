//! One controller acts at a time: the holder of the Lease.
//!
//! Clocks of machines differ, so nobody compares the Lease's time with its own: a Lease is up for the taking when it has
//! been seen unchanged for as long as it says it lasts.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::api_error::{ApiError, ApiErrorKind};
use crate::exit::Failure;

/// How long a holder that is no longer heard of is waited for.
pub(crate) const DURATION: Duration = Duration::from_secs(15);
/// How long a holder goes on without having renewed. It must end before another may begin.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often a holder renews, and another looks.
const PERIOD: Duration = Duration::from_secs(4);
/// How long one request may take: two fit before the deadline.
const REQUEST: Duration = Duration::from_secs(4);

/// A Lease as last seen, and since when it has been so.
#[derive(Clone, Debug)]
struct Seen {
    lease: Lease,
    since: Instant,
}

/// What somebody who wants the Lease does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nobody holds it.
    Take,
    /// Somebody else does, and may still.
    Wait,
}

fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (!holder.is_empty()).then_some(holder)
}

fn lasts(lease: &Lease) -> Duration {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    seconds.and_then(|it| u64::try_from(it).ok()).map_or(DURATION, Duration::from_secs)
}

fn next(seen: &Seen, me: &str, now: Instant) -> Step {
    match holder(&seen.lease) {
        None => Step::Take,
        Some(holder) if holder == me => Step::Take,
        Some(_) if now.duration_since(seen.since) >= lasts(&seen.lease) => Step::Take,
        Some(_) => Step::Wait,
    }
}

/// The Lease with `me` as its holder, for as long as `lasts`.
fn taken(lease: &Lease, me: &str, lasts: Duration, now: Timestamp) -> Lease {
    let old = lease.spec.clone().unwrap_or_default();
    let again = old.holder_identity.as_deref() == Some(me);
    let transitions = old.lease_transitions.unwrap_or(0);
    let spec = LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: i32::try_from(lasts.as_secs()).ok(),
        acquire_time: if again { old.acquire_time } else { Some(MicroTime(now)) },
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if again { transitions } else { transitions.saturating_add(1) }),
        ..old
    };
    Lease { metadata: lease.metadata.clone(), spec: Some(spec) }
}

/// Somebody who wants the Lease.
pub(crate) struct Candidate {
    api: Api<Lease>,
    place: String,
    name: String,
    me: String,
}

/// The Lease, held for a few seconds. Whoever works under it has it renewed by [`Held::keep_apart`].
pub(crate) struct Held {
    candidate: Candidate,
    lease: Lease,
    renewed: Instant,
}

impl Candidate {
    /// Somebody called `me`, which no other candidate may be called.
    pub(crate) fn new(client: &Client, namespace: &str, name: &str, me: String) -> Self {
        let api = Api::namespaced(client.clone(), namespace);
        Self { api, place: format!("{namespace}/{name}"), name: name.to_owned(), me }
    }

    /// Waits until nobody else holds the Lease, and takes it.
    pub(crate) async fn acquire(self) -> Held {
        let mut seen: Option<Seen> = None;
        loop {
            match self.look(&mut seen).await {
                Ok(Some((lease, asked))) => {
                    tracing::info!(lease = self.place, holder = self.me, "the Lease is ours");
                    return Held { candidate: self, lease, renewed: asked };
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(
                        lease = self.place,
                        error = crate::exit::chain(&error),
                        "the Lease cannot be had yet"
                    );
                }
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Takes the Lease from whoever holds it. The former holder notices within the renew deadline; only after that may
    /// the caller act, so this waits for it.
    pub(crate) async fn seize(self) -> Result<Held, ApiError> {
        let lease = self.get_or_create().await?;
        let former = holder(&lease).filter(|it| *it != self.me).map(String::from);
        let asked = Instant::now();
        let lease = self.replace(&taken(&lease, &self.me, DURATION, Timestamp::now())).await?;
        let mut held = Held { candidate: self, lease, renewed: asked };
        if let Some(former) = former {
            tracing::info!(former, "the Lease is taken; waiting for its former holder to end");
            let end = Instant::now() + RENEW_DEADLINE + REQUEST;
            while Instant::now() < end {
                tokio::time::sleep(PERIOD).await;
                held.renew(DURATION).await?;
            }
        }
        Ok(held)
    }

    /// One look; the Lease, and when it was asked for, if it could be taken.
    async fn look(&self, seen: &mut Option<Seen>) -> Result<Option<(Lease, Instant)>, ApiError> {
        let lease = self.get_or_create().await?;
        let now = Instant::now();
        let since = match seen.as_ref() {
            Some(before) if before.lease.spec == lease.spec => before.since,
            _ => now,
        };
        let current = Seen { lease, since };
        let step = next(&current, &self.me, now);
        let wish = taken(&current.lease, &self.me, DURATION, Timestamp::now());
        *seen = Some(current);
        match step {
            Step::Wait => Ok(None),
            Step::Take => match self.replace(&wish).await {
                Ok(lease) => Ok(Some((lease, now))),
                // Another was faster.
                Err(error) if error.kind == ApiErrorKind::Conflict => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    async fn get_or_create(&self) -> Result<Lease, ApiError> {
        let doing = "get the Lease";
        let found = timed(doing, &self.place, self.api.get_opt(&self.name)).await?;
        if let Some(lease) = found {
            return Ok(lease);
        }
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        let empty = Lease { metadata, spec: None };
        timed("create the Lease", &self.place, self.api.create(&PostParams::default(), &empty))
            .await
    }

    /// Fails with a conflict when somebody changed the Lease meanwhile.
    async fn replace(&self, lease: &Lease) -> Result<Lease, ApiError> {
        let params = PostParams::default();
        timed("renew the Lease", &self.place, self.api.replace(&self.name, &params, lease)).await
    }
}

/// A request with a deadline of its own: one that hangs must not outlast the Lease.
async fn timed<T>(
    doing: &'static str,
    place: &str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(REQUEST, request).await {
        Ok(result) => result.map_err(|error| ApiError::new(doing, place, error)),
        Err(_) => Err(ApiError::timed_out(doing, place)),
    }
}

/// A Lease that a task of its own renews, which does not wait behind all that the holder is at.
pub(crate) struct Keeper {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Held, Failure>>,
}

impl Keeper {
    /// Returns why the Lease is ours no longer. Whoever has it ends then.
    pub(crate) async fn lost(&mut self) -> Failure {
        match (&mut self.task).await {
            Ok(Err(failure)) => failure,
            Ok(Ok(held)) => {
                let lease = held.candidate.place.clone();
                Failure::LeaseLost { lease, reason: "it is renewed no longer".to_owned() }
            }
            Err(error) => Failure::other(error),
        }
    }

    /// Stops renewing: the Lease, unless it was lost.
    pub(crate) async fn stop(self) -> Option<Held> {
        // A task that has ended has nobody to hear it.
        let _ = self.stop.send(());
        if self.task.is_finished() { None } else { self.task.await.ok()?.ok() }
    }
}

impl Held {
    /// Has a task of its own renew the Lease.
    pub(crate) fn keep_apart(mut self) -> Keeper {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            tokio::select! {
                lost = self.keep() => Err(lost),
                _ = stopped => Ok(self),
            }
        });
        Keeper { stop, task }
    }

    /// Renews for as long as it is polled; returns why the Lease is ours no longer.
    async fn keep(&mut self) -> Failure {
        loop {
            tokio::time::sleep(PERIOD).await;
            let Err(error) = self.renew(DURATION).await else { continue };
            let lost = match error.kind {
                ApiErrorKind::Conflict => self.lost().await,
                _ => None,
            };
            let reason = match lost {
                Some(other) => format!("{other} holds it"),
                None if self.renewed.elapsed() + REQUEST >= RENEW_DEADLINE => {
                    crate::exit::chain(&error)
                }
                None => {
                    tracing::warn!(
                        error = crate::exit::chain(&error),
                        "the Lease was not renewed; once more"
                    );
                    continue;
                }
            };
            return Failure::LeaseLost { lease: self.candidate.place.clone(), reason };
        }
    }

    /// After a conflict: who holds the Lease, if it is another. Else somebody only touched it.
    async fn lost(&mut self) -> Option<String> {
        let lease = self.candidate.get_or_create().await.ok()?;
        let other = holder(&lease).filter(|it| *it != self.candidate.me).map(String::from);
        self.lease = lease;
        other
    }

    async fn renew(&mut self, lasts: Duration) -> Result<(), ApiError> {
        let asked = Instant::now();
        let wish = taken(&self.lease, &self.candidate.me, lasts, Timestamp::now());
        self.lease = self.candidate.replace(&wish).await?;
        self.renewed = asked;
        Ok(())
    }

    /// Ends with the Lease in our name for a while longer, so that nobody else begins.
    pub(crate) async fn leave_for(mut self, lasts: Duration) -> Result<(), ApiError> {
        self.renew(lasts).await
    }

    /// Gives the Lease up, so that the next one need not wait. Failing to is no harm: it runs out.
    pub(crate) async fn release(self) {
        let mut free = self.lease.clone();
        if let Some(spec) = &mut free.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        if let Err(error) = self.candidate.replace(&free).await {
            tracing::debug!(
                error = crate::exit::chain(&error),
                "the Lease was not released; it runs out"
            );
        }
    }
}

/// A name for this process: that of its pod, which the kubelet sets.
pub(crate) fn identity(role: &str) -> String {
    let host = std::env::var("HOSTNAME").ok().filter(|it| !it.is_empty());
    format!("{role}_{}", host.unwrap_or_else(|| format!("pid-{}", std::process::id())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::testing::fake_api::FakeApi;
    use crate::controller::testing::object;

    fn lease(holder: &str, seconds: i32) -> Lease {
        object(json!({
            "metadata": { "name": "l", "resourceVersion": "1" },
            "spec": { "holderIdentity": holder, "leaseDurationSeconds": seconds, "leaseTransitions": 4,
                      "acquireTime": "2026-11-22T12:00:00.000000Z", "renewTime": "2001-01-01T00:00:00.000000Z" },
        }))
    }

    #[test]
    fn it_is_taken_when_nobody_can_hold_it() {
        let since = Instant::now();
        let table = [
            ("", 0, Step::Take),
            ("me", 0, Step::Take),
            ("other", 0, Step::Wait),
            ("other", 14, Step::Wait),
            // The time in the Lease is long past, but by whose clock? What counts is how long it was seen unchanged.
            ("other", 15, Step::Take),
        ];
        for (holder, age, expected) in table {
            let seen = Seen { lease: lease(holder, 15), since };
            assert_eq!(
                next(&seen, "me", since + Duration::from_secs(age)),
                expected,
                "{holder:?} {age}"
            );
        }
    }

    #[test]
    fn a_longer_lease_is_waited_for_longer() {
        let since = Instant::now();
        let seen = Seen { lease: lease("uninstall", 60), since };
        assert_eq!(next(&seen, "me", since + Duration::from_secs(59)), Step::Wait);
        assert_eq!(next(&seen, "me", since + Duration::from_secs(60)), Step::Take);
    }

    #[test]
    fn taking_counts_as_a_transition_and_renewing_does_not() {
        let now = "2026-11-22T13:00:00Z".parse().expect("a time");
        let mine = taken(&lease("other", 15), "me", DURATION, now);
        let spec = mine.spec.clone().expect("a spec");
        assert_eq!(
            (spec.holder_identity.as_deref(), spec.lease_transitions),
            (Some("me"), Some(5))
        );
        assert_eq!(spec.acquire_time, Some(MicroTime(now)));
        assert_eq!(
            mine.metadata.resource_version.as_deref(),
            Some("1"),
            "so that two cannot take it"
        );
        let later = "2026-11-22T13:00:04Z".parse().expect("a time");
        let renewed = taken(&mine, "me", DURATION, later).spec.expect("a spec");
        assert_eq!(renewed.lease_transitions, Some(5));
        assert_eq!(
            (renewed.acquire_time, renewed.renew_time),
            (Some(MicroTime(now)), Some(MicroTime(later)))
        );
    }

    #[test]
    fn a_holder_ends_before_another_begins() {
        assert!(RENEW_DEADLINE < DURATION);
        assert!(PERIOD + REQUEST < RENEW_DEADLINE);
    }

    fn candidate(api: &FakeApi) -> Candidate {
        Candidate::new(&api.client(), "eratrack-system", "l", "me".to_owned())
    }

    fn stored(holder: &str) -> serde_json::Value {
        serde_json::to_value(lease(holder, 15)).expect("JSON")
    }

    #[tokio::test(start_paused = true)]
    async fn scenario_a_holder_that_is_gone_is_waited_for_and_no_longer() {
        let api = FakeApi::new().answer("GET leases/l", 200, stored("former"));
        let begin = Instant::now();
        candidate(&api).acquire().await;
        let waited = begin.elapsed();
        assert!(waited >= DURATION && waited <= DURATION + 2 * PERIOD, "{waited:?}");
        let last = api.asked().pop().expect("a request");
        assert_eq!(last.body["spec"]["holderIdentity"], "me");
        assert_eq!(last.body["metadata"]["resourceVersion"], "1");
    }

    #[tokio::test(start_paused = true)]
    async fn scenario_a_holder_ends_when_another_took_the_lease() {
        let api = FakeApi::new().answer("GET leases/l", 200, stored(""));
        let mut held = candidate(&api).acquire().await;
        let api = FakeApi::new().refuse("PUT leases/l", 409, "Conflict", "l").answer(
            "GET leases/l",
            200,
            stored("uninstall_x"),
        );
        held.candidate = candidate(&api);
        let failure = held.keep().await.to_string();
        assert!(failure.contains("uninstall_x holds it"), "{failure}");
    }

    #[tokio::test(start_paused = true)]
    async fn scenario_the_lease_is_renewed_while_its_holder_is_busy_and_can_be_given_up() {
        let api = FakeApi::new().answer("GET leases/l", 200, stored(""));
        let keeper = candidate(&api).acquire().await.keep_apart();
        let renewals = || api.order().iter().filter(|it| *it == "PUT leases/l").count();
        let before = renewals();
        tokio::time::sleep(3 * PERIOD + PERIOD / 2).await;
        assert_eq!(renewals() - before, 3);
        keeper.stop().await.expect("ours").release().await;
        let last = api.asked().pop().expect("a request");
        assert_eq!(last.body["spec"]["holderIdentity"], "");
    }

    #[tokio::test(start_paused = true)]
    async fn scenario_a_keeper_that_lost_the_lease_has_none_to_give_up() {
        let api = FakeApi::new().answer("GET leases/l", 200, stored(""));
        let mut held = candidate(&api).acquire().await;
        held.candidate =
            candidate(&FakeApi::new().refuse("leases/l", 503, "ServiceUnavailable", "l"));
        let mut keeper = held.keep_apart();
        assert!(matches!(keeper.lost().await, Failure::LeaseLost { .. }));
        assert!(keeper.stop().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn scenario_a_holder_without_an_api_server_ends_before_another_may_begin() {
        let api = FakeApi::new().answer("GET leases/l", 200, stored(""));
        let mut held = candidate(&api).acquire().await;
        let down = FakeApi::new().refuse("leases/l", 503, "ServiceUnavailable", "l");
        held.candidate = candidate(&down);
        let begin = Instant::now();
        let failure = held.keep().await;
        assert!(matches!(failure, Failure::LeaseLost { .. }));
        assert!(begin.elapsed() < DURATION, "{:?}", begin.elapsed());
        assert!(down.order().len() > 1, "one failure is no reason to end");
    }

    #[tokio::test(start_paused = true)]
    async fn scenario_a_lease_that_is_seized_is_used_only_once_its_holder_ended() {
        let api = FakeApi::new().answer("GET leases/l", 200, stored("controller"));
        let begin = Instant::now();
        candidate(&api).seize().await.expect("seized");
        assert!(begin.elapsed() >= RENEW_DEADLINE + REQUEST, "{:?}", begin.elapsed());
        let free = FakeApi::new().answer("GET leases/l", 200, stored(""));
        let begin = Instant::now();
        candidate(&free).seize().await.expect("seized");
        assert!(begin.elapsed() < PERIOD, "nobody to wait for");
    }
}
