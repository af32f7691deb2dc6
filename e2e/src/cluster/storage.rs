//! Volumes as an administrator makes them without a CSI driver: logical volumes on the node, and `local`
//! persistent volumes that name them.

use super::{Kubectl, LVM_DISK, Node, node};
use crate::failure::Outcome;

/// The volume group on the node's second disk.
pub(crate) const GROUP: &str = "data";

/// A thick logical volume and the objects that give it to a namespace.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    /// Its name in the volume group; also that of the PersistentVolume.
    pub(crate) name: String,
    /// The namespace of the claim.
    pub(crate) namespace: String,
    /// The claim.
    pub(crate) claim: String,
    /// Its size in MiB.
    pub(crate) mebibytes: u64,
}

impl Volume {
    /// Its device as LVM names it.
    pub(crate) fn device(&self) -> String {
        format!("/dev/mapper/{}", self.dm_name())
    }

    /// Its device's name, for dmsetup: LVM doubles the hyphens of a volume's name.
    pub(crate) fn dm_name(&self) -> String {
        format!("{GROUP}-{}", self.name.replace('-', "--"))
    }

    /// Its size in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.mebibytes << 20
    }

    /// The command that makes it.
    pub(crate) fn create(&self) -> String {
        format!("lvcreate --yes --name {} --size {}M {GROUP}", self.name, self.mebibytes)
    }

    /// The PersistentVolume and the claim. The mount options keep ext4 from writing when nobody asked it to, so that a
    /// quiesced volume is one that does not change.
    pub(crate) fn manifest(&self) -> String {
        let (name, device, size) = (&self.name, self.device(), self.mebibytes);
        let (namespace, claim, node) = (&self.namespace, &self.claim, node::NAME);
        format!(
            "apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: local}}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec:
  capacity: {{storage: {size}Mi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  claimRef: {{namespace: {namespace}, name: {claim}}}
  storageClassName: local
  mountOptions: [noatime, noinit_itable]
  local: {{path: {device}, fsType: ext4}}
  nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [
    {{key: kubernetes.io/hostname, operator: In, values: [{node}]}}]}}]}}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {claim}, namespace: {namespace}}}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: local
  volumeName: {name}
  resources: {{requests: {{storage: {size}Mi}}}}
"
        )
    }
}

/// What is on the node of a persistent volume's stack: devices, loop devices, files; nothing, if all is well.
pub(crate) fn left_on_node(kubectl: &Kubectl, node: &Node, volume: &str) -> Outcome<String> {
    let stack = kubectl.run(&["get", "pv", volume, "-o", "jsonpath={.metadata.uid}"])?;
    let looks =
        "dmsetup ls; losetup --noheadings --output NAME,BACK-FILE; ls -d /var/lib/eratrack/*";
    node.run(&format!("{{ {looks}; }} 2>&1 | grep {stack} || true"))
}

/// The command that makes the volume group.
pub(crate) fn create_group() -> String {
    format!("vgcreate {GROUP} {LVM_DISK}")
}

/// Makes the volume group if it is not there.
pub(crate) fn ensure_group(node: &Node) -> Outcome {
    if !node.script(&format!("vgs {GROUP}"))?.success {
        node.run(&create_group())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyphens_are_doubled_as_lvm_does() {
        let volume =
            Volume { name: "pg-0".into(), namespace: "n".into(), claim: "c".into(), mebibytes: 2 };
        assert_eq!(volume.device(), "/dev/mapper/data-pg--0");
        assert_eq!(volume.bytes(), 2_097_152);
    }
}
