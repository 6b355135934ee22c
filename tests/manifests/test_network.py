"""Where each pod may connect to, by the NetworkPolicies of each overlay, against one table."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from support.rendered import TOP, Thing, chosen, of_kind

FUNCTIONS = sorted(path.parent.name for path in (TOP / "functions").glob("*/main.py"))
SERVICE = "serving.knative.dev/service"
NAMESPACE = "hepfaas"


@dataclass(frozen=True)
class Peer:
    """An endpoint: a pod (namespace and labels) or an address."""

    port: int
    address: str = ""
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    protocol: str = "TCP"


def pod(port: int, namespace: str = NAMESPACE, protocol: str = "TCP", **labels: str) -> Peer:
    names = {"app": "app.kubernetes.io/name", "component": "app.kubernetes.io/component", "service": SERVICE}
    names |= {"broker": "eventing.knative.dev/brokerRole"}
    return Peer(port, "", namespace, {names[key]: value for key, value in labels.items()}, protocol)


PEERS = {
    "dns": pod(53, "kube-system", "UDP", app="kube-dns"),
    "dns by tcp": pod(53, "kube-system", app="kube-dns"),
    "dns of the node": Peer(53, "169.254.20.10", protocol="UDP"),
    "dns of gke": Peer(53, "169.254.169.254", protocol="UDP"),
    "broker": pod(8080, "knative-eventing", broker="ingress"),
    "cache": pod(1094, app="xrootd-cache"),
    "public door": Peer(1094, "131.225.1.1"),
    "public https": Peer(443, "188.184.1.1"),
    "public ipv6": Peer(1095, "2001:1458::1"),
    "gateway": pod(8081, "kourier-system"),
    "store": pod(8333, app="seaweedfs"),
    "issuer": pod(9400, app="identity-provider"),
    # Nobody's business:
    "metadata": Peer(80, "169.254.169.254"),
    "metadata of ecs": Peer(80, "169.254.170.2"),
    "metadata by ipv6": Peer(80, "fd00:ec2::254"),
    "kubernetes": Peer(443, "10.96.0.1"),
    "kubelet": Peer(10250, "192.168.1.7"),
    "private door": Peer(1094, "172.16.3.4"),
    "private ipv6": Peer(1094, "fd12::1"),
    "carrier": Peer(443, "100.64.0.1"),
    "dns outside": Peer(53, "8.8.8.8", protocol="UDP"),
    "broker filter": pod(8080, "knative-eventing", broker="filter"),
    "activator": pod(8012, "knative-serving"),
    "another function": pod(8012, service="train"),
    "proxy": pod(4180, app="training-proxy", component="oauth2-proxy"),
    "filer": pod(8888, app="seaweedfs"),
    "cache metrics": pod(9932, app="xrootd-cache"),
    "another namespace": pod(8080, "default", app="any"),
}
DNS = {"dns", "dns by tcp", "dns of the node", "dns of gke"}
OUTSIDE = {"public door", "public https", "public ipv6"}
STEP = DNS | {"store", "broker"}
EGRESS = {
    "runs": STEP | {"issuer"},
    "intake": STEP | {"issuer"},
    "advance": STEP | OUTSIDE,  # webhooks
    "survey": STEP | {"cache"} | OUTSIDE,
    "prepare": STEP | {"cache"} | OUTSIDE,
    "train": STEP,
    "score": STEP,
    "apply": STEP | {"cache"} | OUTSIDE,
    "evaluate": STEP,
    "publish": STEP,
    "predict": STEP | {"cache", "issuer"} | OUTSIDE,
    "predict-grpc": DNS | {"store", "issuer"},
}
OTHERS = {
    "training-proxy": DNS | {"gateway", "issuer"},
    "inference-proxy": DNS | {"gateway", "issuer"},
    "xrootd-cache": DNS | OUTSIDE | {"kubernetes", "kubelet", "private door", "private ipv6", "carrier"},
}
BY_ADDRESS = {
    "store": Peer(443, "192.0.2.1"),
    "issuer": Peer(443, "192.0.2.2"),
}
"""Where the overlay `site` has them."""


def selects(selector: Mapping[str, object], labels: Mapping[str, str]) -> bool:
    """Whether a label selector of Kubernetes selects an object; {} selects all."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):  # type: ignore[attr-defined]
        return False
    for wanted in selector.get("matchExpressions", ()):  # type: ignore[attr-defined]
        key, values = wanted["key"], wanted.get("values", ())
        holds = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not holds[wanted["operator"]]:
            return False
    return True


def admits(rule: Thing, peer: Peer) -> bool:
    """Whether an egress rule lets connections to a peer pass."""
    ports = rule.get("ports")
    if ports is not None and not any(
        one.get("protocol", "TCP") == peer.protocol and one["port"] <= peer.port <= one.get("endPort", one["port"])
        for one in ports
    ):
        return False
    return "to" not in rule or any(is_of(one, peer) for one in rule["to"])


def is_of(where: Thing, peer: Peer) -> bool:
    if "ipBlock" in where:
        if not peer.address or ip_address(peer.address).version != ip_network(where["ipBlock"]["cidr"]).version:
            return False
        inside, *outside = (ip_network(one) for one in (where["ipBlock"]["cidr"], *where["ipBlock"].get("except", ())))
        address = ip_address(peer.address)
        return address in inside and not any(address in one for one in outside)
    if peer.address:
        return False
    namespace = {"kubernetes.io/metadata.name": peer.namespace}
    in_namespace = (
        selects(where["namespaceSelector"], namespace) if "namespaceSelector" in where else peer.namespace == NAMESPACE
    )
    return in_namespace and selects(where.get("podSelector", {}), peer.labels)


def reached(policies: Iterable[Thing], labels: Mapping[str, str], peers: Mapping[str, Peer]) -> set[str]:
    """Names of the peers that a pod may connect to; all of them, if no policy of egress selects it."""
    mine = [
        policy["spec"]
        for policy in policies
        if "Egress" in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], labels)
    ]
    rules = [rule for one in mine for rule in one.get("egress", ())]
    return {name for name, peer in peers.items() if not mine or any(admits(rule, peer) for rule in rules)}


def labels_of(overlay: str) -> dict[str, dict[str, str]]:
    """Labels of the pods of every function and of every other workload."""
    found = {}
    for kind in ("Deployment", "StatefulSet"):
        for name, one in of_kind(overlay, kind).items():
            found[name] = one["spec"]["template"]["metadata"]["labels"]
    for name, one in of_kind(overlay, "Service", "serving.knative.dev").items():
        found[name] = {**one["spec"]["template"]["metadata"].get("labels", {}), SERVICE: name}
    return found


@pytest.mark.parametrize("overlay", ["local", "site"])
def test_every_pod_reaches_what_it_needs_and_nothing_else(overlay: str) -> None:
    peers = PEERS | (BY_ADDRESS if overlay == "site" else {})
    local = {"seaweedfs": DNS, "identity-provider": DNS} if overlay == "local" else {}
    wanted = {**EGRESS, **OTHERS, **local}
    if overlay == "site":
        wanted["xrootd-cache"] = wanted["xrootd-cache"] | set(BY_ADDRESS)  # its origin may be anywhere
        doors = {name: hosts | {"store", "issuer"} for name, hosts in wanted.items() if hosts & OUTSIDE}
        wanted |= doors  # TEST-NET is as public as any address
    policies = of_kind(f"overlays/{overlay}", "NetworkPolicy").values()
    pods = labels_of(f"overlays/{overlay}")
    assert set(EGRESS) == set(FUNCTIONS) <= set(pods)
    assert {name: reached(policies, labels, peers) for name, labels in pods.items()} == wanted


def test_the_test_cluster_reaches_the_files_of_its_machine() -> None:
    policies = of_kind("overlays/local", "NetworkPolicy").values()
    machine = {"door": Peer(1094, "10.231.0.1"), "ssh": Peer(22, "10.231.0.1"), "another": Peer(1094, "10.231.0.2")}
    for name, labels in labels_of("overlays/local").items():
        here = reached(policies, labels, machine)
        assert here - {"ssh", "another"} == ({"door"} if "cache" in EGRESS.get(name, ()) or name in HERE else set())
        assert name == "xrootd-cache" or here <= {"door"}


HERE = ("advance", "xrootd-cache")
"""Webhooks of the tests, and the origin of the cache."""


def test_a_site_with_the_store_in_its_cluster_reaches_it(tmp_path: Path) -> None:
    things = chosen(tmp_path, "- ../../components/seaweedfs", "- {name: seaweedfs")
    policies = [one for one in things if one["kind"] == "NetworkPolicy"]
    for name in FUNCTIONS:
        assert "store" in reached(policies, {SERVICE: name}, PEERS)
        assert "filer" not in reached(policies, {SERVICE: name}, PEERS)


@pytest.mark.parametrize("overlay", ["local", "site"])
def test_any_other_pod_of_the_namespace_reaches_nothing(overlay: str) -> None:
    policies = of_kind(f"overlays/{overlay}", "NetworkPolicy").values()
    assert reached(policies, {"app": "of-somebody"}, PEERS) == DNS
