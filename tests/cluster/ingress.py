"""A Knative ingress for one node: Knative's Ingress objects in, Envoy configuration files out.

    ingress.py FOLDER KUBECONFIG PUBLIC_IP INTERNAL_IP

Public hosts are served on PUBLIC_IP:80, cluster-local ones on INTERNAL_IP:80. Envoy follows the files by itself.
"""

from __future__ import annotations

import json
import pathlib
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request

FOLDER, KUBECONFIG = pathlib.Path(sys.argv[1]), json.loads(pathlib.Path(sys.argv[2]).read_text())
PUBLIC_IP, INTERNAL_IP = sys.argv[3], sys.argv[4]
SERVER = KUBECONFIG["clusters"][0]["cluster"]["server"]
TOKEN = KUBECONFIG["users"][0]["user"]["token"]
TLS = ssl.create_default_context(cafile=KUBECONFIG["clusters"][0]["cluster"]["certificate-authority"])
INGRESSES = "/apis/networking.internal.knative.dev/v1alpha1/ingresses"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
SETTLED_S = 0.4
"""Time that Envoy may take to follow a file."""
changed = threading.Event()


def call(
    path: str, method: str = "GET", body: object = None, content_type: str = "application/json", timeout: float = 10
):
    request = urllib.request.Request(
        SERVER + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": content_type},
    )
    return urllib.request.urlopen(request, context=TLS, timeout=timeout)


def listed(path: str) -> list[dict]:
    with call(path) as answer:
        return json.load(answer)["items"]


def watch(path: str) -> None:
    while True:
        try:
            with call(f"{path}?watch=true&timeoutSeconds=300", timeout=320) as stream:
                for _ in stream:
                    changed.set()
        except (OSError, urllib.error.URLError):
            time.sleep(0.5)


def endpoints(slices: list[dict]) -> dict[tuple[str, str], dict[str, list[tuple[str, int]]]]:
    """(namespace, service) -> port name -> ready addresses."""
    found: dict[tuple[str, str], dict[str, list[tuple[str, int]]]] = {}
    for item in slices:
        service = item["metadata"].get("labels", {}).get("kubernetes.io/service-name")
        ports = found.setdefault((item["metadata"]["namespace"], service), {})
        for port in item.get("ports") or []:
            for endpoint in item.get("endpoints") or []:
                if endpoint.get("conditions", {}).get("ready", True):
                    ports.setdefault(port.get("name") or "", []).extend(
                        (address, port["port"]) for address in endpoint["addresses"]
                    )
    return found


def envoy_files(
    ingresses: list[dict], slices: list[dict], services: list[dict]
) -> tuple[list[dict], dict[str, dict], dict[str, dict]]:
    """Listeners, clusters by name, and the route configurations by the name of their listener."""
    ready = endpoints(slices)
    port_names = {
        (s["metadata"]["namespace"], s["metadata"]["name"], p["port"]): p.get("name", "")
        for s in services
        for p in s["spec"].get("ports") or []
    }
    clusters: dict[str, dict] = {}
    hosts: dict[str, list[dict]] = {"public": [], "internal": []}
    for ingress in ingresses:
        for rule in ingress["spec"].get("rules", []):
            routes = []
            for path in rule["http"]["paths"]:
                weighted = []
                for split in path["splits"]:
                    port = split["servicePort"]
                    key = (split["serviceNamespace"], split["serviceName"])
                    name = f"{key[0]}/{key[1]}/{port}"
                    port_name = port if isinstance(port, str) else port_names.get((*key, port), "")
                    addresses = ready.get(key, {}).get(port_name, [])
                    clusters[name] = cluster(name, addresses, h2=port_name in ("http2", "h2c", "grpc"))
                    weighted.append(
                        {
                            "name": name,
                            "weight": split.get("percent", 100),
                            "request_headers_to_add": headers(split.get("appendHeaders", {})),
                        }
                    )
                route = {
                    "match": {"prefix": path.get("path", "/") or "/"},
                    "request_headers_to_add": headers(path.get("appendHeaders", {})),
                    "route": {
                        "weighted_clusters": {"clusters": weighted},
                        "timeout": "0s",
                        "upgrade_configs": [{"upgrade_type": "websocket"}],
                    },
                }
                if path.get("headers"):
                    route["match"]["headers"] = [
                        {"name": name, "string_match": value} for name, value in path["headers"].items()
                    ]
                if path.get("rewriteHost"):
                    route["route"]["host_rewrite_literal"] = path["rewriteHost"]
                routes.append(route)
            routes.sort(key=lambda route: (-len(route["match"].get("headers", [])), -len(route["match"]["prefix"])))
            domains = sorted({domain for host in rule["hosts"] for domain in (host, f"{host}:80")})
            virtual = {
                "name": f"{ingress['metadata']['namespace']}/{rule['hosts'][0]}",
                "domains": domains,
                "routes": routes,
            }
            hosts["internal"].append(virtual)
            if rule.get("visibility", "ExternalIP") != "ClusterLocal":
                hosts["public"].append(virtual)
    listeners = [listener("public", PUBLIC_IP), listener("internal", INTERNAL_IP)]
    return listeners, clusters, {name: routes_of(name, virtual) for name, virtual in hosts.items()}


def headers(wanted: dict[str, str]) -> list[dict]:
    return [
        {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        for key, value in wanted.items()
    ]


def cluster(name: str, addresses: list[tuple[str, int]], *, h2: bool) -> dict:
    made = {
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {
                    "lb_endpoints": [
                        {"endpoint": {"address": {"socket_address": {"address": ip, "port_value": port}}}}
                        for ip, port in sorted(set(addresses))
                    ]
                }
            ],
        },
    }
    if h2:
        made["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
    return made


def routes_of(name: str, virtual_hosts: list[dict]) -> dict:
    return {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": name,
        "virtual_hosts": virtual_hosts,
    }


def listener(name: str, ip: str) -> dict:
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "AUTO",
        "use_remote_address": True,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "rds": {
            "route_config_name": name,
            "config_source": {"path_config_source": {"path": str(FOLDER / f"routes-{name}.json")}},
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    return {
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name,
        "address": {"socket_address": {"address": ip, "port_value": 80}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def write(path: pathlib.Path, resources: list[dict]) -> bool:
    """Whether the file was another before."""
    text = json.dumps({"resources": resources})
    if path.exists() and path.read_text() == text:
        return False
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
    return True


def mark_ready(ingress: dict) -> None:
    meta, generation = ingress["metadata"], ingress["metadata"]["generation"]
    status = ingress.get("status", {})
    if status.get("observedGeneration") == generation and any(
        c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", [])
    ):
        return
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": now}
        for kind in ("LoadBalancerReady", "NetworkConfigured", "Ready")
    ]
    wanted = {
        "status": {
            "observedGeneration": generation,
            "conditions": conditions,
            "publicLoadBalancer": {"ingress": [{"ip": PUBLIC_IP}]},
            "privateLoadBalancer": {"ingress": [{"ip": INTERNAL_IP}]},
        }
    }
    path = (
        f"/apis/networking.internal.knative.dev/v1alpha1/namespaces/{meta['namespace']}/ingresses/{meta['name']}/status"
    )
    with call(path, "PATCH", wanted, "application/merge-patch+json"):
        print("ready:", meta["namespace"], meta["name"], generation, flush=True)


def main() -> None:
    write(FOLDER / "bootstrap.json", [])
    (FOLDER / "bootstrap.json").write_text(
        json.dumps(
            {
                "node": {"id": "gateway", "cluster": "gateway"},
                "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9901}}},
                "dynamic_resources": {
                    "lds_config": {"path_config_source": {"path": str(FOLDER / "listeners.json")}},
                    "cds_config": {"path_config_source": {"path": str(FOLDER / "clusters.json")}},
                },
            }
        )
    )
    for path in (INGRESSES, SLICES, "/api/v1/services"):
        threading.Thread(target=watch, args=(path,), daemon=True).start()
    known: dict[str, dict] = {}
    while True:
        try:
            ingresses = listed(INGRESSES)
            listeners, clusters, routes = envoy_files(ingresses, listed(SLICES), listed("/api/v1/services"))
            # A route is never ahead of a cluster that it names, nor behind one that is gone: Envoy would answer 503.
            if write(FOLDER / "clusters.json", list({**known, **clusters}.values())):
                time.sleep(SETTLED_S)
            written = [write(FOLDER / f"routes-{name}.json", [made]) for name, made in routes.items()]
            if any(written):
                time.sleep(SETTLED_S)
            write(FOLDER / "listeners.json", listeners)
            write(FOLDER / "clusters.json", list(clusters.values()))
            known = clusters
            for ingress in ingresses:
                mark_ready(ingress)
        except (OSError, urllib.error.URLError) as error:
            print("later:", error, flush=True)
            time.sleep(0.5)
        changed.wait(timeout=5)
        changed.clear()


if __name__ == "__main__":
    main()
