"""What the manifests say is what the code says: names, events, delivery, settings; and all that they name is there."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hepfaas.errors import RequestError
from hepfaas.local.broker import Delivery
from hepfaas.local.up import TRIGGERS
from hepfaas.platform.identity import Identity
from hepfaas.platform.settings import STREAM_S, Settings
from support.rendered import Thing, of_kind, rendered, variables

TOP = Path(__file__).parents[2]
FUNCTIONS = sorted(path.parent.name for path in (TOP / "functions").glob("*/main.py"))
SPREAD = ("survey", "prepare", "score", "apply")
OVERLAYS = ("local", "site")
STEPS = [trigger.function for trigger in TRIGGERS if trigger.function not in ("advance", "intake")]
SECRETS_OF_A_SITE = {
    *(f"store-{name}" for name in FUNCTIONS),
    *(f"event-keys-{name}" for name in STEPS),
    "event-keys",
    "credentials-key",
    "training-proxy",
    "inference-proxy",
}


def services(overlay: str = "base") -> dict[str, Thing]:
    return of_kind(overlay, "Service", "serving.knative.dev")


def pod(service: Thing) -> Thing:
    found: Thing = service["spec"]["template"]["spec"]
    return found


def annotation(service: Thing, name: str) -> str:
    return str(service["spec"]["template"]["metadata"]["annotations"][f"autoscaling.knative.dev/{name}"])


def named(thing: Any, key: str) -> set[str]:
    """The names under every reference of a kind, anywhere in an object."""
    if isinstance(thing, list):
        return set().union(*(named(one, key) for one in thing)) if thing else set()
    if not isinstance(thing, dict):
        return set()
    mine = thing[key] if isinstance(thing.get(key), dict) and not thing[key].get("optional") else {}
    here = {mine.get("name") or mine.get("secretName")} if mine else set()
    return here.union(*(named(value, key) for value in thing.values()))


def test_a_function_has_one_name() -> None:
    assert sorted(services()) == FUNCTIONS
    for name, service in services().items():
        assert pod(service)["containers"][0]["image"] == f"hepfaas/{name}"
        assert pod(service)["serviceAccountName"] == name
        assert (TOP / "manifests/base" / f"{name}.yaml").exists()
        assert (TOP / "locks" / f"{name}.txt").exists()


def test_triggers_are_those_of_hepfaas_up() -> None:
    found = {}
    for trigger in of_kind("base", "Trigger").values():
        (filter_,) = trigger["spec"]["filters"]
        function = trigger["spec"]["subscriber"]["ref"]["name"]
        found[function] = frozenset(one["exact"]["type"] for one in filter_["any"])
        assert trigger["spec"]["broker"] == "hepfaas"
    assert found == {trigger.function: trigger.types for trigger in TRIGGERS}


def test_delivery_is_that_of_hepfaas_up() -> None:
    broker = of_kind("base", "Broker")["hepfaas"]
    assert broker["metadata"]["annotations"]["messaging.knative.dev/async-handler"] == "true"
    delivery, usual = broker["spec"]["delivery"], Delivery()
    assert delivery["deadLetterSink"]["ref"]["name"] == "advance"
    assert delivery["retry"] == usual.retry
    assert delivery["backoffDelay"] == f"PT{usual.back_off_s}S"
    assert delivery["timeout"] == f"PT{usual.timeout_s:.0f}S"
    assert usual.timeout_s > pod(services()["survey"])["timeoutSeconds"]


@pytest.mark.parametrize("overlay", ["base", "overlays/local", "overlays/site"])
def test_the_window_fits_the_instances(overlay: str) -> None:
    (settings,) = (one for name, one in of_kind(overlay, "ConfigMap").items() if name.startswith("settings-"))
    for name in SPREAD:
        assert annotation(services(overlay)[name], "max-scale") == settings["data"]["HEPFAAS_MAX_SCALE"]


def test_one_step_at_a_time_and_nobody_waits_behind_a_long_one() -> None:
    for name, service in services().items():
        assert annotation(service, "target-burst-capacity") == "-1"
        assert annotation(service, "target-utilization-percentage") == "100"
        assert annotation(service, "min-scale") == "0"
        taken = pod(service)["containerConcurrency"]
        threads = [
            int(one["value"]) for one in pod(service)["containers"][0].get("env", ()) if one["name"] == "THREADS"
        ]
        assert taken == 1 or threads == [taken + 1] or name.startswith("predict")


def test_people_reach_two_functions_and_the_others_are_inside() -> None:
    label = "networking.knative.dev/visibility"
    inside = {name for name, one in services().items() if one["metadata"]["labels"].get(label) == "cluster-local"}
    assert set(FUNCTIONS) - inside == {"runs", "predict"}


def test_train_has_the_disk_that_its_scratch_may_take() -> None:
    spec = pod(services()["train"])
    (scratch,) = (volume["emptyDir"] for volume in spec["volumes"] if volume["name"] == "scratch")
    resources = spec["containers"][0]["resources"]
    assert resources["limits"]["ephemeral-storage"] == scratch["sizeLimit"]
    asked = resources["requests"]["ephemeral-storage"]
    usual_mb = Settings.from_environ({"HEPFAAS_STORE": "/nowhere"}).learner_scratch_mb
    assert int(asked.removesuffix("Gi")) * 2**30 > usual_mb * 1_000_000


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_restricted_and_has_no_token(overlay: str) -> None:
    things = rendered(f"overlays/{overlay}")
    pods = [thing["spec"]["template"]["spec"] for thing in things if "template" in thing.get("spec", {})]
    assert len(pods) > len(FUNCTIONS)
    for one in pods:
        assert one["automountServiceAccountToken"] is False
        for container in one["containers"]:
            security = container["securityContext"]
            assert security["runAsNonRoot"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert all(thing["automountServiceAccountToken"] is False for thing in things if thing["kind"] == "ServiceAccount")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_all_that_is_named_is_there(overlay: str) -> None:
    things = rendered(f"overlays/{overlay}")
    for reference in ("configMapKeyRef", "configMapRef", "configMap", "secretKeyRef", "secretRef", "secret"):
        kind, of_others = ("ConfigMap", set[str]()) if "config" in reference else ("Secret", SECRETS_OF_A_SITE)
        there = set(of_kind(f"overlays/{overlay}", kind)) | (of_others if overlay == "site" else set())
        assert named(things, reference) <= there
    accounts = {pod_["serviceAccountName"] for pod_ in map(pod, services(f"overlays/{overlay}").values())}
    assert accounts <= set(of_kind(f"overlays/{overlay}", "ServiceAccount"))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_changed_configuration_or_secret_rolls_what_uses_it(overlay: str) -> None:
    maps = of_kind(f"overlays/{overlay}", "ConfigMap")
    assert len(maps) >= 5
    assert all(re.search(r"-[a-z0-9]{10}$", name) for name in maps)
    if overlay == "local":
        assert all(re.search(r"-[a-z0-9]{10}$", name) for name in of_kind("overlays/local", "Secret"))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_labelled(overlay: str) -> None:
    for thing in rendered(f"overlays/{overlay}"):
        if thing["kind"] in ("ConfigMap", "Secret"):
            continue
        labels = thing["metadata"]["labels"]
        wanted = {f"app.kubernetes.io/{key}" for key in ("name", "component", "part-of")}
        assert wanted <= set(labels), f"{thing['kind']} {thing['metadata']['name']}"


def test_every_variable_of_a_function_is_a_setting() -> None:
    documented = set(re.findall(r"^\| `([A-Z_]+)`", (TOP / "docs/reference/settings.md").read_text(), re.M))
    ours = {"K_SINK"} | {name for name in documented if name.startswith("HEPFAAS_")}
    ours |= {f"HEPFAAS_EVENT_KEYS_{name.upper()}" for name in STEPS}
    for overlay in ("base", "overlays/local", "overlays/site"):
        given = {
            one["name"]
            for service in services(overlay).values()
            for one in pod(service)["containers"][0].get("env", ())
        }
        for name, one in of_kind(overlay, "ConfigMap").items():
            given |= set(one["data"]) if name.startswith("settings-") else set()
        unknown = {name for name in given if name.startswith("HEPFAAS_")} - ours
        assert not unknown
        assert "K_SINK" in given


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_function_starts_with_the_settings_it_is_given(overlay: str) -> None:
    for service in services(f"overlays/{overlay}").values():
        settings = Settings.from_environ(variables(f"overlays/{overlay}", pod(service)["containers"][0]))
        assert settings.deadline_s <= pod(service)["timeoutSeconds"]
        assert settings.store.startswith("s3://")


def test_answers_end_before_knative_cuts_them_off() -> None:
    for service in services().values():
        assert pod(service)["timeoutSeconds"] >= STREAM_S + 20


def test_nobody_asks_a_predict_that_is_not_ready() -> None:
    probes = {name: pod(service)["containers"][0]["readinessProbe"] for name, service in services().items()}
    assert probes["predict"]["httpGet"]["path"] == "/v2/health/ready"
    assert probes["predict-grpc"]["grpc"] == {"service": "inference.GRPCInferenceService"}
    others = set(FUNCTIONS) - {"predict", "predict-grpc"}
    assert {probes[name]["httpGet"]["path"] for name in others} == {"/healthz"}


@pytest.mark.parametrize("name", ["runs", "intake", "predict", "predict-grpc"])
def test_the_base_alone_lets_nobody_in(name: str) -> None:
    given = variables("base", pod(services()[name])["containers"][0])
    with pytest.raises(RequestError, match="HEPFAAS_ISSUER is empty"):
        Identity(Settings.from_environ({**given, "K_SERVICE": name}))


def test_what_every_pod_of_the_test_cluster_must_reach_is_let_in() -> None:
    policies = of_kind("overlays/local", "NetworkPolicy").values()
    for kind in ("Deployment", "StatefulSet"):
        for name, one in of_kind("overlays/local", kind).items():
            labels = one["spec"]["template"]["metadata"]["labels"]
            wanted = [policy["spec"]["podSelector"].get("matchLabels") for policy in policies]
            assert any(some and some.items() <= labels.items() for some in wanted), name


def test_policies_are_json() -> None:
    for path in (TOP / "manifests").rglob("*.json"):
        assert isinstance(json.loads(path.read_text()), dict), path


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_knative_would_admit_every_object(overlay: str) -> None:
    validate = TOP / ".cache/go/bin/validate"
    if not validate.exists():
        text = "no .cache/go/bin/validate (tests/build-knative-validate)"
        pytest.fail(text) if os.environ.get("CI") else pytest.skip(text)
    text = "\n---\n".join(yaml.safe_dump(thing) for thing in rendered(f"overlays/{overlay}"))
    done = subprocess.run([validate], input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("timeoutSeconds: 300", "timeoutSeconds: 3600", "expected 0 <= 3600 <= 600"),
        ("automountServiceAccountToken: false", "automountServiceAccountToken: true", "automountServiceAccountToken"),
        ("envFrom:", "envFron:", "unknown field"),
        ("name: HEPFAAS_ISSUER", "name: K_SERVICE", "reserved environment variable"),
    ],
)
def test_what_knative_would_refuse_is_told(old: str, new: str, said: str) -> None:
    validate = TOP / ".cache/go/bin/validate"
    if not validate.exists():
        pytest.skip("no .cache/go/bin/validate (tests/build-knative-validate)")
    text = yaml.safe_dump(services()["runs"])
    assert old in text
    done = subprocess.run([validate], input=text.replace(old, new), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert said in done.stderr


@pytest.mark.parametrize("proxy", ["training", "inference"])
def test_oauth2_proxy_takes_its_configuration(proxy: str, tmp_path: Path) -> None:
    program = shutil.which("oauth2-proxy") or TOP / ".cache/go/bin/oauth2-proxy"
    if not Path(program).exists():
        text = "no oauth2-proxy (tests/build-oauth2-proxy)"
        pytest.fail(text) if os.environ.get("CI") else pytest.skip(text)
    maps = of_kind("overlays/local", "ConfigMap")
    container = of_kind("overlays/local", "Deployment")[f"{proxy}-proxy"]["spec"]["template"]["spec"]["containers"][0]
    config = tmp_path / "oauth2-proxy.cfg"
    config.write_text(next(one["data"][config.name] for one in maps.values() if config.name in one["data"]))
    given = variables("overlays/local", container)
    command = [program, f"--config={config}", "--config-test"]
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
