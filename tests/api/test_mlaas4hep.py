"""The example in the README of MLaaS4HEP_server with plain curl, reply by reply; and its defects."""

import io
import json
import subprocess
import tarfile
import time
from pathlib import Path

import httpx
import pytest
from support.jobs import packed, small_job
from support.system import System

MOST_S = 300


def curl(system: System, path: str, *options: str) -> str:
    command = ["curl", "-sS", "--max-time", "60", *options, f"{system.url}{path}"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=90).stdout


def submitted(name: str) -> str:
    values = {
        "name": name, "device": "cpu", "memory": "3gb", "cpus": "2", "files": "files.txt", "labels": "labels.txt",
        "model": "model.py", "params": "params.json",
    }  # fmt: skip
    return json.dumps(values)


def uploaded(system: System, folder: Path, name: str) -> str:
    archive = folder.parent / f"{folder.name}.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    return curl(system, f"/upload?name={name}", "-F", f"file=@{archive}")


def finished(system: System, process: str) -> dict[str, str]:
    end = time.monotonic() + MOST_S
    while True:
        status: dict[str, str] = json.loads(curl(system, f"/status_docker?process_name={process}"))
        if not status["status"].startswith("Up") or time.monotonic() > end:
            return status
        time.sleep(0.3)


@pytest.mark.slow
def test_the_published_journey(system: System, tmp_path: Path) -> None:
    folder = small_job(tmp_path / "folder_to_upload", seed=31)
    (folder / "global-specs.json").write_text("{}")
    assert curl(system, "/hello") == "Hello World\n"
    assert uploaded(system, folder, "luca_r") == "Successfully uploaded!\n"
    job = tmp_path / "submit.json"
    job.write_text(submitted("luca_r"))
    answer = curl(system, "/submit", "-H", "Content-Type: application/json", "-d", f"@{job}")
    assert answer == '{\n "process_name": "luca_r_1",\n "job_id": 1\n}'
    status = finished(system, "luca_r_1")
    assert status["process_name"] == "luca_r_1"
    assert status["status"].startswith("Exited (0) ")
    assert status["status"].endswith(" ago")
    curl(system, "/logs?process_name=luca_r_1", "-L", "-o", str(tmp_path / "logs.txt"))
    assert "train" in (tmp_path / "logs.txt").read_text()
    curl(system, "/model?process_name=luca_r_1", "-L", "-o", str(tmp_path / "model.tar.gz"))
    with tarfile.open(tmp_path / "model.tar.gz") as tar:
        assert {"luca_r/params.json", "luca_r/model.keras"} <= set(tar.getnames())
    (tmp_path / "notes.txt").write_text("for TFaaS")
    form = ("-F", f"file=@{tmp_path / 'notes.txt'}")
    assert curl(system, "/setup_tfaas?process_name=luca_r_1", *form) == "Successfully uploaded!\n"
    for name in ("deleted", "card.json"):
        told = curl(system, "/setup_tfaas?process_name=luca_r_1", *form[:-1], f"{form[-1]};filename={name}")
        assert f"'{name}' is a name that model versions use themselves" in told
    assert [one["model"] for one in json.loads(curl(system, "/v1/models"))["models"]].count("luca_r/1") == 1
    assert "luca_r" in [model["name"] for model in json.loads(curl(system, "/models"))]
    row = json.dumps({"keys": ["a", "b", "c", "d"], "values": [0.1, 0.2, 0.3, 0.4], "model": "luca_r_1"})
    (score,) = json.loads(curl(system, "/json", "-H", "Content-Type: application/json", "-d", row))
    assert 0 < score < 1
    assert json.loads(curl(system, "/params/luca_r_1"))["name"] == "luca_r"
    assert curl(system, "/delete_specs?name=luca_r") == "Specs deletion completed!\n"
    again = json.loads(curl(system, "/submit", "-H", "Content-Type: application/json", "-d", f"@{job}"))
    assert again["process_name"] == "luca_r_2"
    assert finished(system, "luca_r_2")["status"].startswith("Exited (0) ")
    assert curl(system, "/delete_folder?name=luca_r") == "Folder deletion completed!\n"
    assert curl(system, "/delete/luca_r_1", "-X", "DELETE") == ""
    end = time.monotonic() + 5
    while "error" not in curl(system, "/json", "-d", row):
        assert time.monotonic() < end, "a deleted model answers"
    assert "luca_r_1" in json.loads(curl(system, "/params/luca_r_1"))["error"]
    assert "there is no model version 'luca_r/1'" in curl(system, "/v1/models/luca_r/1")
    assert "there is no folder 'luca_r'" in curl(
        system, "/submit", "-H", "Content-Type: application/json", "-d", f"@{job}"
    )


def test_a_link_on_another_page_removes_nothing(system: System, tmp_path: Path) -> None:
    folder = small_job(tmp_path / "job", seed=34)
    with httpx.Client(base_url=system.url) as http:
        sent = http.post("/upload", params={"name": "linked"}, files={"file": ("job.tar.gz", packed(folder))})
        assert sent.status_code == 200, sent.text
        for path in ("/delete_specs", "/delete_folder"):
            for site in ("cross-site", "same-site"):
                refused = http.get(path, params={"name": "linked"}, headers={"Sec-Fetch-Site": site})
                assert refused.status_code == 403, refused.text
                assert "nothing was done" in refused.json()["error"]
            for site in ("none", "same-origin"):
                assert http.get("/delete_specs?name=linked", headers={"Sec-Fetch-Site": site}).status_code == 200
        assert http.get("/delete_folder?name=linked").status_code == 200
        assert http.get("/delete_folder?name=linked").status_code == 404


@pytest.mark.parametrize("name", ["x; rm -rf /", "../../etc", "$(id)", "a b", ""])
def test_no_value_reaches_a_shell_or_another_folder(system: System, tmp_path: Path, name: str) -> None:
    folder = small_job(tmp_path / "job", seed=33)
    with httpx.Client(base_url=system.url) as http:
        files = {"file": ("job.tar.gz", packed(folder))}
        assert http.post("/upload", params={"name": name}, files=files).status_code == 422
        assert http.get("/delete_folder", params={"name": name}).status_code == 422
        assert http.get("/logs", params={"process_name": f"{name}_1"}).status_code == 404
        values = {**json.loads(submitted("luca")), "files": name or "../files.txt"}
        assert http.post("/submit", json=values).status_code in (404, 422)


def test_errors_have_a_status_and_a_reason(system: System) -> None:
    with httpx.Client(base_url=system.url) as http:
        missing = http.post("/submit", json={"name": "luca"})
        assert missing.status_code == 422
        assert "'device' is missing" in missing.json()["error"]
        assert http.post("/upload?name=x").text == "No file was provided \n"
        wrong = http.post("/upload?name=x", files={"file": ("x.exe", io.BytesIO(b"x"))})
        assert "must end in .gz" in wrong.json()["error"]
        assert http.get("/status_docker?process_name=none_1").status_code == 404
        assert http.get("/model").status_code == 404
