# Read by the scripts of the Kubernetes rig.
# shellcheck shell=bash
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

here=$rig/kubernetes
bin=$PROGRAMS/kubernetes
data=$RIG/data/kubernetes
pki=$data/pki
SERVICES=10.96.0 # cluster addresses of services are $SERVICES.0/24
NODE=rig         # the node's name
export KUBECONFIG=$data/admin.kubeconfig
export PATH=$bin:$PATH

ctr() { command ctr -a "$RIG/run/containerd.sock" -n k8s.io "$@"; }
