//! `cluster_lvm_lock`: the agent, in its container, takes the lock that the node's LVM takes.

use super::stage::{Stage, tracking};
use crate::{cluster::Application, failure::Outcome};

/// A group of its own: while somebody holds its lock, nobody else can work with its volumes.
const GROUP: &str = "locked";

pub(super) fn run() -> Outcome {
    let stage = Stage::open("cluster-lvm-lock")?;
    let node = stage.node();
    node.run(&format!(
        "set -e
truncate -s 128M /disk/{GROUP}.img
vgcreate {GROUP} $(losetup --find --show /disk/{GROUP}.img)
lvcreate --yes --name data --size 64M {GROUP}"
    ))?;
    stage.offer_device("data", &format!("/dev/mapper/{GROUP}-data"), "ReadWriteOnce")?;
    stage.user.apply(&Application::idle("data", &["data"]))?;
    stage.user.run(&["wait", "--for=condition=Ready", "pod/data", "--timeout=90s"])?;
    let table = node.run(&format!("dmsetup table {GROUP}-data"))?;
    // As LVM does: an exclusive flock of this file. It is held until the file `held` goes.
    node.run(&format!(
        "set -e
mkdir -p /run/lock/lvm
touch /run/held
setsid flock --exclusive /run/lock/lvm/V_{GROUP} \\
    sh -c 'touch /run/has-lock; while [ -e /run/held ]; do sleep 0.1; done' >/dev/null 2>&1 </dev/null &
until [ -e /run/has-lock ]; do sleep 0.1; done"
    ))?;
    stage.user.apply(&tracking("data", "claims: {names: [data]}"))?;
    let busy = stage.until_reason("eravolume/data", "Attached", "False", "DeviceBusy");
    let meanwhile = node.run(&format!("dmsetup table {GROUP}-data"));
    node.run("rm -f /run/held")?;
    let (message, meanwhile) = (busy?, meanwhile?);
    if !message.contains(GROUP) {
        return Err(format!("the message does not name the volume group: {message}").into());
    }
    if meanwhile != table {
        return Err(format!("the table was changed under LVM's lock: {meanwhile}").into());
    }
    stage.until_attached("data")?;
    stage.close()
}
