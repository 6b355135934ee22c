"""The calls of TFaaS, unchanged for its clients: vectors that are normalised and padded already, one row a request."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from starlette.datastructures import UploadFile
from starlette.responses import Response

from hepfaas.errors import NotThereError, RequestError
from hepfaas.inputs.numbers import from_json
from hepfaas.models import versions
from hepfaas.models.served import Served
from hepfaas.models.versions import Version
from hepfaas.platform.storage import Store, is_name
from hepfaas.serving.context import MOST_VALUES_BYTES, Context
from hepfaas.serving.responses import in_thread, json_response

BEST = 5
"""Labels in the response of /image for a model of TensorFlow 1."""


async def row(context: Context) -> Response:
    """POST /json, /predict/json: {"keys": names, "values": numbers, "model": name} -> a list of scores."""
    values = await context.values()
    served = await _served(context, values.get("model"))
    numbers = values.get("values")
    if not isinstance(numbers, list):
        raise RequestError(f"'values' is missing: a list of {served.n_features} numbers")
    features = from_json(_in_order(served, values.get("keys"), numbers), np.float32, "'values'")[None]
    scores = await context.scores(served, features)
    return json_response(scores[0])


async def protobuf(context: Context) -> Response:
    """POST /proto, /predict/proto: a message Row, or with ?message=DataFrame several -> a message Predictions.

    It has the scores of all rows, one after the other, each with its label.
    """
    from google.protobuf.message import DecodeError  # only for protobuf

    from hepfaas.serving import tfaas_pb2

    kind = context.request.query_params.get("message") or "Row"
    if kind not in ("Row", "DataFrame"):
        raise RequestError(f"message is '{kind[:40]}'; it takes Row or DataFrame")
    message = getattr(tfaas_pb2, kind)()
    try:
        message.ParseFromString(await context.body())
    except DecodeError as error:
        raise RequestError(f"the body is not a protobuf message tfaaspb.{kind}") from error
    rows = list(message.row) if kind == "DataFrame" else [message]
    names = {row.model for row in rows}
    if len(names) > 1:
        raise RequestError(f"the rows of a DataFrame name {len(names)} models; send a DataFrame for each model")
    served = await _served(context, next(iter(names), ""))
    values = [_in_order(served, list(row.key), list(row.value)) for row in rows]
    if len(set(map(len, values))) > 1:
        raise RequestError("the rows of a DataFrame have unequal numbers of values; each has one for each feature")
    scores = await context.scores(served, np.asarray(values, dtype=np.float32))
    labels = _score_labels(served)
    predictions = tfaas_pb2.Predictions()
    for row in scores:
        for label, score in zip(labels, row, strict=True):
            predictions.prediction.add(label=label, probability=float(score))
    return Response(predictions.SerializeToString(), media_type="application/x-protobuf")


async def image(context: Context) -> Response:
    """POST /image, /predict/image: a form with 'image' (PNG or JPEG) and 'model' -> a list of scores.

    A model of TensorFlow 1 answers {"filename", "labels": the best five, each with its probability}.
    """
    from hepfaas.inputs.raw_events import pixels_of  # only for pictures

    async with context.form(context.settings.predict_body_bytes) as form:
        upload, name = form.get("image"), form.get("model")
        if not isinstance(upload, UploadFile):
            raise RequestError("the form has no file 'image': a PNG or JPEG picture")
        served = await _served(context, name)
        features = await in_thread(pixels_of, served, await upload.read(), context.hold, context.settings.worker_memory)
    scores = (await context.scores(served, features[None]))[0]
    if served.published.card.get("foreign") != "frozen_graph":
        return json_response(scores)
    labels = _score_labels(served)
    best = [int(place) for place in np.argsort(-scores, kind="stable")[:BEST]]
    rows = [{"label": labels[place], "probability": float(scores[place])} for place in best]
    return json_response({"filename": upload.filename, "labels": rows})


async def status(context: Context) -> Response:
    """GET /status: memory, load and processors of the machine, and the number of requests to this instance."""
    import psutil  # only for this call

    answered = context.server.instance.answered
    return json_response(
        {
            "NGo": threading.active_count(),
            "Memory": {
                "Virtual": _memory(psutil.virtual_memory()),
                "Swap": _memory(psutil.swap_memory()),
            },
            "Load": dict(zip(("load1", "load5", "load15"), psutil.getloadavg(), strict=True)),
            "CPU": psutil.cpu_percent(percpu=True),
            "Uptime": time.time() - psutil.Process().create_time(),
            "getRequests": answered["GET"],
            "postRequests": answered["POST"],
        }
    )


def _memory(usage: Any) -> dict[str, float]:
    return {"Total": usage.total, "Free": usage.free, "Used": usage.used, "UsedPercent": usage.percent}


async def models(context: Context) -> Response:
    """GET /models: the parameters of each model; null if there is no model."""
    return json_response(await in_thread(_all_params, context.server.store) or None)


async def params(context: Context, model: str) -> Response:
    """GET /params/{model}: parameters of a model, in both dialects of params.json."""
    return json_response(await in_thread(_params_of_name, context.server.store, model))


async def set_params(context: Context) -> Response:
    """POST /params: set the owner's default model, for requests that name no model."""
    values = await context.few_values()
    name = values.get("name") or values.get("model")
    if not isinstance(name, str) or not is_name(name):
        raise RequestError("'name' is missing: the name of a model")
    await in_thread(_version, context.server.store, name)
    await in_thread(_set_default, context.server.store, name)
    return Response()


async def delete(context: Context, model: str = "") -> Response:
    """DELETE /delete/{model}, or /delete with the form field 'model': all versions of a model, or the one of a run."""
    name = model
    if not name:
        async with context.form(MOST_VALUES_BYTES) as form:
            name = str(form.get("model") or "")
    await in_thread(_delete_all, context.server.store, name)
    return Response()


def _in_order(served: Served, keys: Any, numbers: Sequence[Any]) -> Sequence[Any]:
    """Return the numbers in the order of the model's columns if the keys are their names; other keys are ignored.

    Raises: RequestError if only some keys are columns, which must be a mistake.
    """
    if not keys:
        return numbers
    if not isinstance(keys, list):
        raise RequestError(f"'keys' is {str(keys)[:40]!r}; it takes a list of names")
    if len(keys) != len(numbers):
        raise RequestError(f"'keys' and 'values' are {len(keys)} and {len(numbers)}; each value has one key")
    columns = served.published.columns
    if keys == columns:
        return numbers
    named = dict(zip(map(str, keys), numbers, strict=True))
    missing = [name for name in columns if name not in named]
    if not missing and len(named) == len(columns):
        return [named[name] for name in columns]
    if len(missing) == len(columns):
        return numbers
    unknown = [name for name in named if name not in columns]
    finding = f"without '{missing[0]}'" if missing else f"with the unknown '{unknown[0]}'" if unknown else "twice"
    raise RequestError(
        f"'keys' are columns of model '{served.version}', but {finding}; give all {len(columns)} or none"
    )


def _score_labels(served: Served) -> list[str]:
    """Return the label of each score; a single score has the last label. Numbers if the labels are not as many.

    The predictions of a regression have the names of its targets.
    """
    if targets := served.published.card.get("targets"):
        return [target["name"] for target in targets]
    labels = [str(label) for label in served.published.card["labels"]]
    labels = labels[-1:] if served.outputs == 1 else labels
    return labels if len(labels) == served.outputs else [str(output) for output in range(served.outputs)]


async def _served(context: Context, name: Any) -> Served:
    """Return the model of that name, or the one that the run of that name published; without a name the default."""
    if name and not isinstance(name, str):
        raise RequestError("'model' is not a text; it takes the name of a model")
    server = context.server
    name = name or await in_thread(_default, server.store)
    if name not in server.version_of_run:
        try:
            return await server.model(name)
        except NotThereError:
            version = await in_thread(_published_by, server.store, name)
            if version is None:
                raise
            server.version_of_run[name] = version
    version = server.version_of_run[name]
    return await server.model(version.name, str(version.number))


def _version(store: Store, name: str) -> Version:
    """Return the newest version of a model, or the one that a run published. Raises: NotThereError."""
    if not is_name(name):
        raise NotThereError(f"there is no model '{name[:100]}'; GET /models lists them")
    return _published_by(store, name) or versions.find(store, name)


def _published_by(store: Store, run: str) -> Version | None:
    """Return the version that a run published, unless it was deleted. run: its name for TFaaS clients, 'name_k'."""
    name, _, number = run.rpartition("_")
    from hepfaas.orchestration import records  # only where a model is named by a run

    end = records.last_end(store, f"{name}-{number}") if name and number.isdecimal() and is_name(name) else None
    if end is None or not end.model:
        return None
    model, _, version = end.model.rpartition("/")
    published = Version(model, int(version))
    return published if versions.is_there(store, published) else None


def _all_params(store: Store) -> list[dict[str, Any]]:
    newest = {version.name: version for version in versions.versions(store)}  # sorted: the last of a name is kept
    return [_params(version, versions.card_of(store, version)) for version in newest.values()]


def _params_of_name(store: Store, name: str) -> dict[str, Any]:
    version = _version(store, name)
    return _params(version, versions.card_of(store, version))


def _params(version: Version, card: Mapping[str, Any]) -> dict[str, Any]:
    """Return params.json of TFaaS in the dialects of its releases (inputNode, outputNode) and of its later sources.

    An uploaded model keeps its own values; the others are defaults.
    """
    defaults = {
        "name": version.name,
        "model": versions.GRAPH,
        "labels": versions.LABELS if "foreign" in card and card["labels"] else "",
        "options": [],
        "op": "",
        "input_name": "features",
        "output_name": "scores",
        "img_channels": 0,
        "input_node": "features",
        "output_node": "scores",
        "inputNode": "features",
        "outputNode": "scores",
        "description": f"version {version.number}: {card['n_features']} features, {card['parameters']} parameters",
        "timestamp": time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime()),
    }
    return {**defaults, **card.get("params", {})}


def _default(store: Store) -> str:
    """Return the name of the owner's default model. Raises: RequestError if none is set."""
    numbers = sorted(int(key.rpartition("/")[2]) for key in store.keys("default/"))
    if not numbers:
        raise RequestError("'model' is missing, and no default was set by POST /params; GET /models lists the models")
    return store.get(f"default/{numbers[-1]}").decode()


def _set_default(store: Store, name: str) -> None:
    versions.write_next(store, "default/", name)


def _delete_all(store: Store, name: str) -> None:
    if is_name(name) and (version := _published_by(store, name)):
        versions.delete(store, version)
        return
    _version(store, name)
    for version in versions.versions(store):
        if version.name == name:
            versions.delete(store, version)
