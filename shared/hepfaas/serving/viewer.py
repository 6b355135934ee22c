"""Pages for browsers: the list of models, their files, and the graph of each in Netron (the package's own pages).

Only the owner's models and Netron's own files are served, these by their bare names.
"""

from __future__ import annotations

import functools
import html
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response

from hepfaas.errors import NotThereError
from hepfaas.models import versions
from hepfaas.models.versions import Version
from hepfaas.platform.browsers import page_policy
from hepfaas.platform.storage import Store, is_name
from hepfaas.platform.terminal import visible
from hepfaas.serving.context import Context
from hepfaas.serving.responses import in_thread, json_response

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".png": "image/png",
    ".ico": "image/x-icon",
}
VERSION_TAG = re.compile(r'<meta name="version" content="[^"]*">\s*<meta name="date" content="[^"]*">')
STYLE = "body{font:15px sans-serif;margin:2em}th,td{padding:.3em 1em;text-align:left}"
NETRON_POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; connect-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Netron sets styles by script; its scripts are files of its package."""

NETRON_HEADERS = {"Content-Security-Policy": NETRON_POLICY, "Set-Cookie": "consent=0; SameSite=Strict"}
"""Headers of its page. The cookie answers no to the question whether Netron may report usage."""

CACHED = {"Cache-Control": "max-age=86400", "Content-Security-Policy": NETRON_POLICY}
"""Headers of Netron's own files; a web worker has the policy of its script."""

PAGE = """<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
<h1>{title}</h1>{body}</html>
"""


async def index(context: Context) -> Response:
    """GET /: a page with the models and links to their graphs, parameters and files."""
    return await _model_list(context, "")


async def graphs(context: Context) -> Response:
    """GET /netron/: the same page."""
    return await _model_list(context, "../")


async def graph(context: Context, model: str) -> Response:
    """GET /netron/{model}/: Netron with the graph of a model's newest version."""
    version = await in_thread(_version, context.server.store, model)
    page = await in_thread(_netron, version)
    return Response(page, headers=NETRON_HEADERS, media_type=KINDS[".html"])


async def with_slash(context: Context, model: str = "") -> Response:
    """GET /netron, /netron/{model}, /download/{model}: redirect to the page, whose relative links need the '/'."""
    last = context.request.scope["path"].rpartition("/")[2]
    return RedirectResponse(f"./{last}/", 308)


async def netron_file(context: Context, model: str, file: str) -> Response:
    """GET /netron/{model}/{file}: the graph, or one of Netron's own files."""
    if file == versions.GRAPH:
        return await download(context, model, file)
    path = _netron_files().get(file)
    if path is None:
        raise NotThereError(f"Netron has no file '{file[:100]}'")
    return Response(await in_thread(path.read_bytes), media_type=KINDS[path.suffix], headers=CACHED)


async def files(context: Context, model: str) -> Response:
    """GET /download/{model}/: the files of a model's newest version."""
    version = await in_thread(_version, context.server.store, model)
    names = await in_thread(versions.files_of, context.server.store, version)
    links = "".join(f'<li><a href="./{quote(name)}">{html.escape(visible(name))}</a></li>' for name in names)
    return _page(str(version), f"<ul>{links}</ul>")


async def download(context: Context, model: str, file: str) -> Response:
    """GET /download/{model}/{file}: a file of a model's newest version."""
    data = await in_thread(_file, context.server.store, model, file)
    return Response(data, media_type="application/octet-stream")


async def data(context: Context) -> Response:
    """GET /data: gone. In TFaaS it served any file of the server."""
    return json_response({"error": "/data is gone; GET /download/{model}/{file} gives the files of a model"}, 410)


async def _model_list(context: Context, base: str) -> Response:
    """Return a page with a table of the models. base: the base path, relative to the page."""
    published = await in_thread(versions.versions, context.server.store)
    newest = {version.name: version.number for version in published}  # sorted: the last of a name is kept
    rows = "".join(
        f"<tr><td>{html.escape(visible(name))}</td><td>{number}</td>"
        f'<td><a href="{base}netron/{quote(name)}/">graph</a></td>'
        f'<td><a href="{base}params/{quote(name)}">params.json</a></td>'
        f'<td><a href="{base}download/{quote(name)}/">files</a></td></tr>'
        for name, number in newest.items()
    )
    return _page("Models", f"<table><tr><th>model<th>version<th colspan=3></tr>{rows}</table>" if rows else "none yet")


def _page(title: str, body: str) -> Response:
    page = PAGE.format(title=html.escape(visible(title)), style=STYLE, body=body)
    return Response(page, headers={"Content-Security-Policy": page_policy(STYLE)}, media_type=KINDS[".html"])


def _version(store: Store, name: str) -> Version:
    if not is_name(name):
        raise NotThereError(f"there is no model '{name[:100]}'; GET /models lists them")
    return versions.find(store, name)


def _file(store: Store, model: str, file: str) -> bytes:
    version = _version(store, model)
    if file not in versions.files_of(store, version):
        raise NotThereError(f"model '{version}' has no file '{file[:100]}'; GET /download/{model}/ lists them")
    return store.get(version.prefix + file)


def _netron(version: Version) -> str:
    """Return Netron's page with the graph to open.

    Version 0.0.0 reports no usage; without a date Netron does not look for a newer version.
    """
    page = _netron_files()["index.html"].read_text(encoding="utf-8")
    values = {"type": "Python", "version": "0.0.0", "file": versions.GRAPH, "name": str(version)}
    tags = "".join(f'<meta name="{name}" content="{html.escape(value)}">\n' for name, value in values.items())
    return VERSION_TAG.sub(lambda match: tags, page, count=1)


@functools.cache
def _netron_files() -> Mapping[str, Path]:
    """Return the files of the package netron that a browser needs, by name."""
    spec = importlib.util.find_spec("netron")
    assert spec is not None
    assert spec.origin is not None
    return {path.name: path for path in Path(spec.origin).parent.iterdir() if path.suffix in KINDS}
