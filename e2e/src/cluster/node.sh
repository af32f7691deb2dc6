# What a node does once its root is set up (guest::init): a network card, disks, a container runtime, a kubelet.
# The values in capitals are set by the lines before these.
exec >/share/init.log 2>&1

# The kubelet wants a clock rate, which this processor does not tell.
sed "s/^bogomips.*/cpu MHz\t\t: 2000.000\n&/" /proc/cpuinfo >/run/cpuinfo
mount --bind /run/cpuinfo /proc/cpuinfo

hostname "$NODE"
ip address add "$ADDRESS/24" dev vec0
ip link set vec0 up
ip route add default via "$GATEWAY"
modprobe -a br_netfilter veth bridge xfs
sysctl -qw net.ipv4.ip_forward=1

cat >/etc/lvm/lvm.conf <<END
devices { types = [ "ubd", 16 ] }
END
"$HARNESS" node-shell >/share/shell.log 2>&1 &

mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo "+cpu +io +memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
mount --make-rshared /

# A real file system for what cannot live on an overlay: layers, volumes, metadata that is opened with O_DIRECT.
# Private, or each mount beneath one of the three would appear under /disk as well.
blkid /dev/ubda >/dev/null || mkfs.ext4 -q -F /dev/ubda
mkdir -p /disk && mount /dev/ubda /disk && mount --make-private /disk
for directory in containerd kubelet eratrack; do
    mkdir -p "/disk/$directory" "/var/lib/$directory"
    mount --bind "/disk/$directory" "/var/lib/$directory"
    mount --make-shared "/var/lib/$directory"
done

# As a node's own start does, which has no udev here: volumes first, then what is to be done before they are used.
vgchange --activate y
if [ -x /disk/at-boot ]; then /disk/at-boot; fi

mkdir -p /etc/cni/net.d
cat >/etc/cni/net.d/10-bridge.conflist <<END
{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": true,
 "ipam": {"type": "host-local", "ranges": [[{"subnet": "$PODS"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
END
cat >/run/containerd.toml <<END
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$PAUSE"
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
END
containerd -c /run/containerd.toml >/share/containerd.log 2>&1 &
until ctr version >/dev/null 2>&1; do sleep 0.1; done
for image in "$IMAGES"/*.tar; do ctr -n k8s.io images import "$image"; done

cat >/run/kubelet.yaml <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $PKI/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $PKI/$NODE.crt
tlsPrivateKeyFile: $PKI/$NODE.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
# User-Mode Linux has no cpuset controller.
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
registerWithTaints: $TAINTS
# Nobody answers there; without it the kubelet warns of every pod.
clusterDNS: [$DNS]
evictionHard: {imagefs.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%"}
localStorageCapacityIsolation: false
END
"$KUBELET" --config /run/kubelet.yaml --kubeconfig "$PKI/$NODE.kubeconfig" \
    --hostname-override "$NODE" --node-ip "$ADDRESS" >/share/kubelet.log 2>&1 &
# The first process must not end while the others run.
wait
