"""The cluster that tests/cluster makes, for all tests of this folder."""

import os
import subprocess
from collections.abc import Iterator

import pytest
from support.deployed import CLUSTER, SLOW_S, Service, kubectl, run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.timeout(2 * SLOW_S))


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """On a cluster that is there, or is started here and stopped at the end."""
    if os.environ.get("HEPFAAS_E2E") != "1":
        pytest.skip("an hour on a real Knative: make e2e")
    variables = {one.partition("=")[0]: one.partition("=")[2] for one in run(str(CLUSTER), "env").split() if "=" in one}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", variables["KUBECONFIG"])
        patch.setenv("PATH", variables["PATH"].replace("$PATH", os.environ["PATH"]))
        was_up = subprocess.run(["kubectl", "get", "--raw", "/readyz"], capture_output=True).returncode == 0
        run("tests/e2e/cluster-up")
        try:
            run("make", "deploy", "SITE=local")
            kubectl("wait", "--for=condition=Available", "--timeout=300s", "deployment", "--all")
            with Service() as alice:
                yield alice
        finally:
            if not was_up:
                run(str(CLUSTER), "down")
