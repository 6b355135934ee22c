"""Models that were made elsewhere, through the whole system: uploaded, converted, asked; and what is refused."""

import base64
import io
import json
import shutil
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.jobs.bundles import bundle_in, files_of
from hepfaas.learner.converter import Converter, ConverterSettings
from hepfaas.platform.stores import open_store
from hepfaas.runs.steps import Convert
from hepfaas.serving import tfaas_pb2
from hepfaas.steps import convert
from hepfaas.steps.objects import encoded, put_blob
from numpy.typing import NDArray
from PIL import Image
from support import documents
from support.system import System

MOST_BYTES = 2_000_000

BUILD = """
import sys, numpy as np
from hepfaas.learner.process import without_optional_packages
with without_optional_packages():
    import keras, tensorflow as tf
keras.utils.set_random_seed(3)
layers, folder = keras.layers, sys.argv[1]
drawn = np.random.default_rng(7)

rows = drawn.random((20, 5), dtype="f4")
net = keras.Sequential([keras.Input((5,)), layers.Dense(16, activation="relu", name="inputs"),
                        layers.Dense(1, activation="sigmoid")])
tf.saved_model.save(net, f"{folder}/model")
net.save(f"{folder}/net.h5")

digits = drawn.integers(0, 256, (3, 9, 7, 1)).astype("f4")
images = keras.Sequential([keras.Input((9, 7, 1)), layers.Rescaling(1 / 255), layers.Conv2D(4, 3, activation="relu"),
                           layers.Flatten(), layers.Dropout(0.5), layers.Dense(10, activation="softmax")])
images.save(f"{folder}/digits.keras")

pictures = drawn.integers(0, 256, (3, 4, 6, 3)).astype("f4")
graph = tf.Graph()
with graph.as_default(), tf.compat.v1.Session() as session:
    x = tf.compat.v1.placeholder(tf.float32, [None, 4, 6, 3], name="dense_4_input")
    weights = tf.constant(drawn.normal(size=(72, 7)).astype("f4") / 9)
    y = tf.nn.softmax(tf.matmul(tf.reshape(x, [-1, 72]) / 255.0, weights), name="output_node0")
    tf.identity(x, name="another_end")
    answers = session.run(y, {x: pictures})
with open(f"{folder}/tf_model.pb", "wb") as out:
    out.write(graph.as_graph_def().SerializeToString())

class Module(tf.Module):
    def __init__(self, name, function, spec):
        super().__init__()
        self.function = tf.function(function, input_signature=[spec])
        tf.saved_model.save(self, f"{folder}/{name}", {"serving_default": self.function})

vector = tf.TensorSpec([None, 2], tf.float32, name="x")
Module("betainc", lambda x: {"y": tf.math.betainc(1 + x, 1 + x, x)}, vector)
Module("several", lambda x: {"low": x - 1, "high": tf.reduce_sum(x, 1)}, vector)
Module("text", lambda x: {"y": tf.strings.to_number(x)}, tf.TensorSpec([None, 2], tf.string, name="x"))
Module("fixed", lambda x: {"y": x}, tf.TensorSpec([4, 2], tf.float32, name="x"))
Module("open", lambda x: {"y": tf.reduce_sum(x, [1, 2])}, tf.TensorSpec([None, None, 2], tf.float32, name="x"))
Module("cube", lambda x: {"y": x[:, :, None, None] + x[:, None, :, None]}, vector)
Module("nan", lambda x: {"y": x / (x - x)}, vector)
Module("counts", lambda x: {"y": tf.cast(x, tf.float32) * 0.5}, tf.TensorSpec([None, 3], tf.int32, name="x"))
np.savez(f"{folder}/answers.npz", rows=rows, net=net(rows), digits=digits, images=images(digits), pictures=pictures,
         frozen=answers)
"""


class Originals:
    """Models made by TensorFlow itself, and what they answer to some inputs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-c", BUILD, str(folder)], check=True, capture_output=True, timeout=200)
        self.answers: dict[str, NDArray[np.float32]] = dict(np.load(folder / "answers.npz"))
        (folder / "labels.txt").write_text("".join(f"class {number}\n" for number in range(7)))
        self.params = {
            "name": "ImageModel", "model": "tf_model.pb", "labels": "labels.txt", "img_channels": 3,
            "inputNode": "dense_4_input", "outputNode": "output_node0",
        }  # fmt: skip
        (folder / "params.json").write_text(json.dumps(self.params))
        Image.fromarray(self.answers["pictures"][0].astype("u1")).save(folder / "picture.png")
        Image.fromarray(self.answers["digits"][0, :, :, 0].astype("u1")).save(folder / "digit.jpeg")

    def tar(self, name: str, called: str = "", **texts: str) -> bytes:
        """A SavedModel as a bundle: a directory with its files and some texts."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as tar:
            tar.add(self.folder / name, called or name)
            for file, text in texts.items():
                add(tar, f"{called or name}/{file.replace('_', '.')}", text.encode())
        return out.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **fields: Any) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Originals:
    return Originals(tmp_path_factory.mktemp("originals"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "tmp").mkdir()
    more = {"HEPFAAS_DEADLINE_S": "100", "HEPFAAS_PREDICT_MODEL_BYTES": str(MOST_BYTES), "TMPDIR": str(folder / "tmp")}
    with System(folder, **more) as started:
        yield started


@pytest.fixture(scope="module")
def http(whole: System) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=whole.url, timeout=150) as client:
        yield client


@pytest.fixture(scope="module")
def uploaded(whole: System, originals: Originals) -> list[str]:
    """What the examples of the document print, which upload a model of each kind."""
    return documents.run(documents.commands("how-to/upload.md"), originals.folder, URL=whole.url)


def near(found: Any, expected: Any) -> bool:
    return np.allclose(np.asarray(found, dtype=np.float64), expected, rtol=1e-5, atol=1e-5)


def png(pixels: NDArray[np.float32]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.squeeze(pixels).astype("u1")).save(out, "png")
    return out.getvalue()


def test_every_example_of_uploads_does_what_the_document_says(uploaded: list[str], originals: Originals) -> None:
    empty = [said for said in uploaded if said == ""]
    assert len(empty) == 5  # tar, base64 and three uploads
    assert json.loads(uploaded[8])["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 9, 7, 1]}]
    assert originals.params.items() <= json.loads(uploaded[9]).items()
    assert json.loads(uploaded[10]) == originals.params
    assert '<meta name="file" content="model.tflite">' in uploaded[11]


def test_a_bundle_of_the_old_readme_answers_as_its_original(
    uploaded: list[str], originals: Originals, http: httpx.Client
) -> None:
    rows, expected = originals.answers["rows"], originals.answers["net"]
    for row, wanted in zip(rows[:3], expected, strict=False):
        assert near(http.post("/json", json={"values": row.tolist(), "model": "model"}).json(), wanted)
    sent = tfaas_pb2.Row(value=rows[4].tolist(), model="model").SerializeToString()
    answer = tfaas_pb2.Predictions.FromString(http.post("/proto", content=sent).content)
    assert [one.label for one in answer.prediction] == ["0"]
    assert near([one.probability for one in answer.prediction], expected[4])
    inputs = [{"name": "features", "shape": [20, 5], "datatype": "FP32", "data": rows.tolist()}]
    output = http.post("/v2/models/model/infer", json={"inputs": inputs}).json()["outputs"][0]
    assert near(np.reshape(output["data"], output["shape"]), expected)


def test_pictures_get_the_scores_that_the_original_gives_their_pixels(
    uploaded: list[str], originals: Originals, http: httpx.Client
) -> None:
    known = originals.answers
    for pixels, wanted in zip(known["pictures"], known["frozen"], strict=True):
        form = {"files": {"image": ("a.jpg", png(pixels))}, "data": {"model": "ImageModel"}}  # told by its content
        answer = http.post("/image", **form).json()  # type: ignore[arg-type]
        order = np.argsort(-wanted)[:5]
        assert answer["filename"] == "a.jpg"
        assert [one["label"] for one in answer["labels"]] == [f"class {number}" for number in order]
        assert near([one["probability"] for one in answer["labels"]], wanted[order])
    for pixels, wanted in zip(known["digits"], known["images"], strict=True):
        form = {"files": {"image": ("a.png", png(pixels))}, "data": {"model": "digits"}}
        assert near(http.post("/predict/image", **form).json(), wanted)  # type: ignore[arg-type]
        flat = {"values": pixels.reshape(-1).tolist(), "model": "digits"}
        assert near(http.post("/json", json=flat).json(), wanted)
    inputs = [{"name": "features", "shape": [3, 9, 7, 1], "datatype": "FP32", "data": known["digits"].tolist()}]
    output = http.post("/v2/models/digits/infer", json={"inputs": inputs}).json()["outputs"][0]
    assert near(np.reshape(output["data"], output["shape"]), known["images"])
    inputs[0]["shape"] = [3, 7, 9, 1]
    wrong = http.post("/v2/models/digits/infer", json={"inputs": inputs})
    assert (wrong.status_code, "shape [events, 9, 7, 1]" in wrong.json()["error"]) == (400, True)


def test_a_picture_of_another_kind_is_refused_before_it_is_decoded(
    uploaded: list[str], originals: Originals, http: httpx.Client
) -> None:
    def refused(image: bytes, model: str = "digits") -> str:
        answer = http.post("/image", files={"image": ("x.png", image)}, data={"model": model})
        assert answer.status_code in (404, 422)
        return str(answer.json()["error"])

    assert "12000 × 10000 pixels; model 'digits/1' takes 7 × 9" in refused(bomb(12_000, 10_000))
    assert "could be decompression bomb" in refused(bomb(60_000, 50_000))
    assert "24 × 3 pixels" in refused(png(np.zeros((3, 24, 3), "f4")))
    assert "neither PNG nor JPEG" in refused(b"GIF89a no picture")
    assert "cannot be decoded" in refused(png(originals.answers["digits"][0])[:60])
    assert "takes no pictures: its input has shape ['events', 5]" in refused(png(np.zeros((3, 3), "f4")), "model")
    assert "no model 'none'" in refused(b"", "none")
    assert http.post("/image", data={"model": "digits"}).status_code == 422
    assert http.post("/image", content=b"x", headers={"Content-Type": "multipart/form-data"}).status_code == 422


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says to be large."""
    data = bytearray(png(np.zeros((2, 2), "f4")))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def test_raw_events_and_files_are_refused_with_the_way_out(uploaded: list[str], http: httpx.Client) -> None:
    for sent in ({"events": {"a": [1.0]}}, {"files": ["root://x//a.root"], "tree": "Events"}):
        answer = http.post("/v1/models/model/predict", json=sent)
        assert answer.status_code == 422
        assert "was uploaded without a spec" in answer.json()["error"]
        assert "send vectors, to /json" in answer.json()["error"]
    inputs = [{"name": "a", "shape": [1], "datatype": "FP32", "data": [1]}]
    answer = http.post("/v2/models/model/infer", json={"inputs": inputs})
    assert (answer.status_code, "send vectors" in answer.json()["error"]) == (400, True)


REFUSED: list[tuple[str, dict[str, str], str]] = [
    ("betainc", {}, "has no operation Betainc"),
    ("several", {}, "it has 2 outputs: high, low, "),
    ("several", {"output_name": "middle"}, "it has no output 'middle'; it has: high, low"),
    ("several", {"input_name": "y"}, "it has no input 'y'; it has: x, serving_default_x"),
    ("text", {}, "its input is string; it must be numbers"),
    ("fixed", {}, "its input has shape [4, 2]; the first size must be open"),
    ("open", {}, "its input has shape [open, open, 2]"),
    ("cube", {}, "two rows give an array of shape [2, 2, 2, 1]"),
]
NAN: tuple[str, dict[str, str], str] = ("nan", {}, "differs from the model by nan")


class OneConverter:
    """Gives one process to all models, one after the other, in the place of `Learners`: each imports the framework."""

    def __init__(self) -> None:
        self._converter: Converter | None = None

    @contextmanager
    def converter(self, settings: ConverterSettings) -> Iterator[Converter]:
        if self._converter is None:
            self._converter = Converter(settings)
        else:
            folder = self._converter._running.scratch / "code"
            shutil.rmtree(folder)
            self._converter._settings = settings
            self._converter._write_code(folder)
            values = {name: value for name, value in vars(settings).items() if name != "code"}
            self._converter._request({"do": "begin", "cache_bytes": 0, **values})
        yield self._converter

    def close(self) -> None:
        if self._converter:
            self._converter.close()


@pytest.fixture(scope="module")
def learners() -> Iterator[OneConverter]:
    with closing(OneConverter()) as one:
        yield one


@pytest.mark.parametrize(("model", "params", "said"), REFUSED)
def test_the_step_that_converts_a_model_refuses_what_cannot_be_served(
    originals: Originals, learners: Any, tmp_path: Path, model: str, params: dict[str, str], said: str
) -> None:
    folder, store = tmp_path / "refused", open_store(f"{tmp_path}/store")
    shutil.copytree(originals.folder / model, folder)
    (folder / "params.json").write_text(json.dumps(params))
    bundle = bundle_in(folder, "refused")
    files = {name: put_blob(store, path.read_bytes()) for name, path in files_of(bundle).items()}
    code = put_blob(store, encoded(files))
    step = Convert(code=code, format=bundle.format, file=bundle.file, input=bundle.input, output=bundle.output)
    with pytest.raises(RequestError) as caught:
        convert.perform(step, store, learners)
    assert said in str(caught.value)
    assert not store.size_bytes(step.key)


@pytest.mark.parametrize(
    ("model", "params", "said"),
    [NAN, *(pytest.param(*one, marks=pytest.mark.slow) for one in REFUSED)],
)
def test_a_model_that_cannot_be_served_is_refused_with_the_reason(
    originals: Originals, http: httpx.Client, model: str, params: dict[str, str], said: str
) -> None:
    body = originals.tar(model, "refused", params_json=json.dumps({"name": "refused", **params}))
    answer = http.post("/upload", content=body, headers={"Content-Type": "application/octet-stream"})
    assert (answer.status_code, said in answer.json()["error"]) == (422, True), answer.text
    assert "refused" not in [one["name"] for one in http.get("/models").json() or []]


def test_outputs_and_whole_numbers_are_chosen_and_cast(originals: Originals, http: httpx.Client) -> None:
    texts = {"params_json": json.dumps({"output_name": "high"}), "labels_txt": "background\nsignal\n"}
    assert http.post("/upload", content=originals.tar("several", **texts)).content == b""
    assert near(http.post("/json", json={"values": [2.5, 4.0], "model": "several"}).json(), [6.5])
    sent = tfaas_pb2.Row(value=[2.5, 4.0], model="several").SerializeToString()
    answer = tfaas_pb2.Predictions.FromString(http.post("/proto", content=sent).content)
    assert [one.label for one in answer.prediction] == ["signal"]
    assert http.post("/upload", content=originals.tar("counts")).content == b""
    assert near(http.post("/json", json={"values": [3, 0, 8], "model": "counts"}).json(), [1.5, 0, 4])


@pytest.mark.slow
def test_what_is_no_model_is_refused_at_once(originals: Originals, http: httpx.Client) -> None:
    def refused(**request: Any) -> str:
        answer = http.post("/upload", **request)
        assert answer.status_code in (413, 422), answer.text
        return str(answer.json()["error"])

    def packed(**files: str) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name, text in files.items():
                add(tar, f"some/{name.replace('_', '.')}", text.encode())
        return out.getvalue()

    graph = (originals.folder / "tf_model.pb").read_bytes()
    assert "the form has no file 'model'" in refused(data={"name": "x"}, files={"labels": ("l", b"")})
    assert "not a complete tar.gz archive" in refused(content=b"nothing of the kind" * 99)
    assert "the upload has no models" in refused(content=packed(readme_txt="x"))
    assert "has 2 models" in refused(content=packed(a_pb="x", b_keras="x"))
    assert "params.json is not JSON" in refused(content=packed(a_pb="x", params_json="{"))
    assert "'img_channels' is 7" in refused(content=packed(a_pb="x", params_json='{"img_channels": 7}'))
    assert "give one name" in refused(content=packed(a_pb="x", params_json='{"name": "other"}'))
    files = {"model": ("a.pb", graph)}
    assert "cannot name a model" in refused(data={"name": "../x"}, files=files)
    assert "the model has no name" in refused(files=files)
    assert "base64, but 'model' is not" in refused(
        data={"name": "x"}, files={"model": ("a.pb", b"$$$$")}, headers={"Content-Encoding": "base64"}
    )
    assert "larger than 2 MB" in refused(data={"name": "x"}, files={"model": ("a.pb", b"0" * (MOST_BYTES + 1))})
    assert f"more than {MOST_BYTES}" in refused(content=b"0" * (MOST_BYTES + 1))
    params = json.dumps({"input_node": "nope"}).encode()
    several = {"model": ("a.pb", graph), "params": ("p.json", params)}
    assert "no node 'nope' for its input; it could be: dense_4_input" in refused(data={"name": "x"}, files=several)
    several["params"] = ("p.json", b"{}")
    assert "names no output_node; it could be: output_node0, another_end" in refused(data={"name": "x"}, files=several)
    assert "it is not a TensorFlow graph" in refused(data={"name": "x"}, files={"model": ("a.pb", b"\xff" * 99)})
    assert "cannot read it" in refused(data={"name": "x"}, files={"model": ("a.keras", b"x")})


def test_an_archive_writes_nothing_elsewhere_and_is_bounded(whole: System, http: httpx.Client) -> None:
    folder = whole.options.folder
    before = sorted(folder.glob("*"))

    def refused(*members: tuple[str, bytes, dict[str, Any]]) -> str:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
            for name, data, fields in members:
                add(tar, name, data, **fields)
        answer = http.post("/upload", content=out.getvalue(), headers={"Content-Encoding": "gzip"})
        assert answer.status_code == 422
        return str(answer.json()["error"])

    outside = f"{folder}/escaped"
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
        link = ("m/link", b"", {"type": kind, "linkname": str(folder)})
        assert "is not a plain file" in refused(link, ("m/link/escaped", b"x", {}))
    for name in ("../../escaped", outside, "m/../../escaped", "m/\n"):
        assert "not the name of a file inside" in refused((name, b"x", {}))
    assert "twice" in refused(("m/a.pb", b"x", {}), ("m/a.pb", b"y", {}))
    assert "larger than 2 MB" in refused(("m/a.pb", bytes(30_000_000), {}))
    assert "more than 10000 files" in refused(
        *[(f"m/{number}", b"", {"type": tarfile.DIRTYPE}) for number in range(10_001)]
    )
    assert "at most 65,536 are read" in refused(("m/a.pb", b"x", {"pax_headers": {"comment": "x" * 60_000_000}}))
    assert sorted(folder.glob("*")) == before
    assert list((folder / "tmp").glob("hepfaas-upload-*")) == []


@pytest.mark.slow
def test_uploads_at_once_disturb_no_other_and_the_same_name_makes_the_next_version(
    originals: Originals, http: httpx.Client
) -> None:
    net = (originals.folder / "net.h5").read_bytes()
    row, expected = originals.answers["rows"][0], originals.answers["net"][0]

    def sent(name: str) -> httpx.Response:
        if name == "bundled":
            return http.post(
                "/upload", content=originals.tar("several", "bundled", params_json='{"output_name": "low"}')
            )
        return http.post("/upload", data={"name": name}, files={"model": ("net.h5", net)})

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(sent, ["twice", "bundled", "once", "twice"]))
    assert [(answer.status_code, answer.content) for answer in answers] == [(200, b"")] * 4
    assert http.get("/v2/models/twice").json()["versions"] == ["2"]
    for name in ("twice", "once"):
        assert near(http.post("/json", json={"values": row.tolist(), "model": name}).json(), expected)
    assert near(http.post("/json", json={"values": [1, 2], "model": "bundled"}).json(), [0, 1])
    form = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ntwice\r\n--b--\r\n'  # as its Python client
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    assert http.request("DELETE", "/delete", content=form, headers=kind).content == b""
    end = time.monotonic() + 5
    while http.post("/json", json={"values": row.tolist(), "model": "twice"}).status_code != 404:
        assert time.monotonic() < end, "a deleted model answers"
    assert sent("twice").content == b""
    assert near(http.post("/json", json={"values": row.tolist(), "model": "twice"}).json(), expected)
    assert http.get("/v2/models/twice").json()["versions"] == ["3"]


def test_a_browser_sees_the_models_and_their_graphs_and_nothing_else(uploaded: list[str], http: httpx.Client) -> None:
    page = http.get("/").text
    assert 'href="netron/ImageModel/"' in page
    assert 'href="../netron/digits/"' in http.get("/netron/").text
    assert http.get("/netron/digits", follow_redirects=False).headers["location"] == "./digits/"
    viewer = http.get("/netron/digits", follow_redirects=True)
    assert str(viewer.url).endswith("/netron/digits/")
    script = http.get("/netron/digits/index.js")
    assert (script.status_code, script.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    graph = http.get("/netron/digits/model.tflite").content
    assert graph[4:8] == b"TFL3"
    assert http.get("/download/digits/model.tflite").content == graph
    assert "labels.txt" in http.get("/download/ImageModel/").text
    for path in (
        "/netron/digits/server.py", "/netron/digits/__init__.py", "/netron/digits/..%2f..%2fpyproject.toml",
        "/netron/digits/%2fetc%2fpasswd", "/netron/none/", "/download/digits/claim", "/download/digits/..%2f..",
        "/download/none/card.json",
    ):  # fmt: skip
        assert http.get(path).status_code == 404, path
    assert http.get("/data?model=/etc/passwd").status_code == 410


def test_models_from_elsewhere_stand_in_all_lists(uploaded: list[str], whole: System, http: httpx.Client) -> None:
    assert {"model", "ImageModel", "digits"} <= {one["name"] for one in http.get("/models").json()}
    rows = {row["model"]: row for row in http.get("/v1/models").json()["models"]}
    assert rows["digits/1"]["AUC"] is None
    runs = [row for row in http.get("/v1/runs").json()["runs"] if row["model"] == "digits/1"]
    assert [row["kind"] for row in runs] == ["conversion"]
    status = http.get(f"/v1/runs/{runs[0]['run']}").json()
    assert (status["state"], status["phase"]) == ("completed", "finished")
    assert http.get(f"/v1/runs/{runs[0]['run']}/report").status_code == 200
    process = runs[0]["run"].replace("-", "_")
    assert http.get(f"/params/{process}").json()["name"] == "digits"
    command = [sys.executable, "-m", "hepfaas", "models", "--url", whole.url]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (shown.returncode, "digits/1" in shown.stdout) == (0, True), shown.stderr


def test_base64_is_read_in_lines_and_blocks(tmp_path: Path) -> None:
    from hepfaas.platform.spool import Spool
    from hepfaas.serving.uploads import BLOCK_BYTES, _from_base64

    data = np.random.default_rng(1).bytes(2 * BLOCK_BYTES + 5)
    with (tmp_path / "out").open("w+b") as out, Spool(10 * BLOCK_BYTES).share("one") as share:
        assert _from_base64(io.BytesIO(base64.encodebytes(data)), out, share).read() == data
