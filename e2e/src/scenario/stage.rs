//! What most scenarios begin with: a namespace, volumes in it, applications on them.

use std::{sync::Mutex, time::Duration};

use serde_json::Value;

use crate::{
    cluster::{self, Application, Cluster, Kubectl, Node, Shared, Volume, condition, ensure_group},
    failure::Outcome,
};

/// What takes a machine a second, and a busy one minutes.
pub(super) const SOON: Duration = Duration::from_secs(150);

/// A scenario's own part of the shared cluster.
#[derive(Debug)]
pub(super) struct Stage {
    shared: &'static Shared,
    /// kubectl in the scenario's namespace.
    pub(super) user: Kubectl,
    namespace: String,
    volumes: Mutex<Vec<String>>,
}

impl Stage {
    /// Makes the namespace, on a cluster with eratrack installed.
    pub(super) fn open(name: &str) -> Outcome<Self> {
        let shared = cluster::shared()?;
        shared.ensure_installed()?;
        ensure_group(shared.cluster.node())?;
        shared.cluster.kubectl().run(&["create", "namespace", name])?;
        let user = shared.cluster.kubectl().in_namespace(name);
        Ok(Self { shared, user, namespace: name.to_owned(), volumes: Mutex::default() })
    }

    /// The cluster.
    pub(super) fn cluster(&self) -> &Cluster {
        &self.shared.cluster
    }

    /// The node.
    pub(super) fn node(&self) -> &Node {
        self.shared.cluster.node()
    }

    /// The second node, which the scenario shares with nobody.
    pub(super) fn second(&self) -> Outcome<&Node> {
        self.shared.cluster.second(&self.shared.product)
    }

    /// Waits until the node that was just powered on has told so, and eratrack's agent runs on it.
    pub(super) fn until_booted(&self, node: &str) -> Outcome {
        let boot = self.shared.cluster.second(&self.shared.product)?;
        let id = boot.run("cat /proc/sys/kernel/random/boot_id")?;
        let kubectl = self.shared.cluster.kubectl();
        kubectl.until(&format!("node/{node}"), "the new boot, Ready", SOON, |value| {
            let ready = condition(value, "Ready").is_some_and(|it| it["status"] == "True");
            let booted = value["status"]["nodeInfo"]["bootID"] == id.trim();
            (ready && booted).then_some(()).ok_or_else(String::new)
        })
    }

    /// A volume of this stage that is not made yet, for a claim.
    pub(super) fn plan(&self, claim: &str, mebibytes: u64) -> Volume {
        Volume {
            name: format!("{}-{claim}", self.namespace),
            namespace: self.namespace.clone(),
            claim: claim.to_owned(),
            mebibytes,
        }
    }

    /// Makes a thick logical volume and a claim bound to it.
    pub(super) fn volume(&self, claim: &str, mebibytes: u64) -> Outcome<Volume> {
        let volume = self.plan(claim, mebibytes);
        self.node().run(&volume.create())?;
        self.offer(&volume.name, &volume.manifest())?;
        Ok(volume)
    }

    /// Applies the PersistentVolume of that name and its claim.
    pub(super) fn offer(&self, name: &str, manifest: &str) -> Outcome {
        self.user.apply(manifest)?;
        self.volumes
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(name.to_owned());
        Ok(())
    }

    /// Offers something else on the node, a device or a directory, to a claim of that name.
    pub(super) fn offer_device(&self, claim: &str, path: &str, mode: &str) -> Outcome {
        let volume = self.plan(claim, 64);
        let manifest =
            volume.manifest().replace(&volume.device(), path).replace("ReadWriteOnce", mode);
        // Only a device has a file system to be made.
        let manifest = if path.starts_with("/dev/") {
            manifest
        } else {
            manifest
                .replace(", fsType: ext4", "")
                .replace("  mountOptions: [noatime, noinit_itable]\n", "")
        };
        self.offer(&volume.name, &manifest)
    }

    /// Starts the application on a claim and waits until it writes.
    pub(super) fn application(&self, claim: &str) -> Outcome<Application> {
        self.user.apply(&Application::manifest(claim, claim))?;
        let application = Application::new(&self.user, claim);
        application.until_writing()?;
        Ok(application)
    }

    /// A volume with an application that writes to it, tracked and attached.
    pub(super) fn tracked(&self, claim: &str, mebibytes: u64) -> Outcome<(Volume, Application)> {
        let volume = self.volume(claim, mebibytes)?;
        let application = self.application(claim)?;
        self.track(claim)?;
        self.until_attached(claim)?;
        Ok((volume, application))
    }

    /// Applies an EraTracking of one claim, named like it.
    pub(super) fn track(&self, claim: &str) -> Outcome {
        self.user.apply(&tracking(claim, &format!("claims: {{names: [{claim}]}}"))).map(drop)
    }

    /// Waits until era lies beneath the claim's volume.
    pub(super) fn until_attached(&self, claim: &str) -> Outcome<Value> {
        self.user.until_condition(&format!("eravolume/{claim}"), "Attached", "True", SOON)
    }

    /// Waits until the object has the condition with this status and reason; its message.
    pub(super) fn until_reason(
        &self,
        object: &str,
        kind: &str,
        status: &str,
        reason: &str,
    ) -> Outcome<String> {
        self.user.until(object, &format!("{kind}={status}, {reason}"), SOON, |value| {
            let found = condition(value, kind).ok_or("no such condition yet")?;
            if found["status"] == status && found["reason"] == reason {
                Ok(found["message"].as_str().unwrap_or_default().to_owned())
            } else {
                Err(String::new())
            }
        })
    }

    /// The live table of a volume.
    pub(super) fn table(&self, volume: &Volume) -> Outcome<String> {
        self.node().run(&format!("dmsetup table {}", volume.dm_name()))
    }

    /// Ends the tracking, checks that nothing of ours stays on the node, and has the namespace taken away.
    pub(super) fn close(self) -> Outcome {
        self.user.run(&["delete", "eratracking", "--all"])?;
        self.user.run(&["wait", "--for=delete", "eravolume", "--all", "--timeout=60s"])?;
        let volumes = self.volumes.into_inner().unwrap_or_default();
        let kubectl = self.shared.cluster.kubectl();
        for (volume, node) in
            volumes.iter().flat_map(|it| self.shared.cluster.nodes().map(move |node| (it, node)))
        {
            let left = cluster::left_on_node(kubectl, node, volume)?;
            if !left.is_empty() {
                return Err(format!("left behind on {}:\n{left}", node.name).into());
            }
        }
        // The volumes stay: there is room, and waiting for every unmount takes longer than the scenario.
        kubectl.run(&["delete", "namespace", &self.namespace, "--wait=false"]).map(drop)
    }
}

/// The manifest of an EraTracking with this spec.
pub(super) fn tracking(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: eratrack.dev/v1alpha1, kind: EraTracking, metadata: {{name: {name}}}, spec: {{{spec}}}}}"
    )
}
