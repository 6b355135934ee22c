"""The command `hepfaas`: what a person types. Each command imports what it needs when it runs."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hepfaas import __version__
from hepfaas.errors import RequestError, UnavailableError
from hepfaas.platform.settings import Settings
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.platform.terminal import PRINTED, in_columns, visible_lines

if TYPE_CHECKING:
    from hepfaas.client import Client

OWNER = "local"
"""First part of every key in the store of a laptop: there is one owner."""


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code: 0 done, 1 the request must change, 75 try later, 130 interrupted."""
    try:
        given = _parser(Settings.from_environ(os.environ)).parse_args(words)
        given.command(given)
    except RequestError as error:
        return _said(f"hepfaas: {visible_lines(str(error), PRINTED)}", 1)
    except UnavailableError as error:
        text = f"hepfaas: {visible_lines(str(error), PRINTED)}\nNothing is lost: the same command goes on from here."
        return _said(text, os.EX_TEMPFAIL)
    except KeyboardInterrupt:
        return _said("\nhepfaas: stopped; the same command goes on from here.", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what reads us has gone: flush to nowhere
        return 0
    except Exception:
        text = visible_lines(traceback.format_exc().strip(), PRINTED)
        return _said(f"hepfaas: a fault of ours\n{PRINTED}{text}", os.EX_SOFTWARE)
    return 0


def _said(text: str, code: int) -> int:
    _write(sys.stderr, text)
    return code


def _write(out: TextIO, text: str) -> None:
    """Write lines for a person: the one place that a command's text passes, so that no control character gets out."""
    text = visible_lines(text)
    out.write(f"{in_columns(text, shutil.get_terminal_size().columns) if out.isatty() else text}\n")


def _parser(settings: Settings) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hepfaas", description="Machine learning on ROOT files.")
    parser.add_argument("--version", action="version", version=f"hepfaas {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--store", default=settings.store, metavar="DIR|s3://BUCKET/PREFIX", help="default: %(default)s"
    )
    common.add_argument("--json", action="store_true", help="one JSON document on standard output")

    inspect = commands.add_parser("inspect", help="trees and branches of a ROOT file")
    inspect.add_argument("file", metavar="FILE", help="path or root:// URL")
    inspect.add_argument("--json", action="store_true", help="one JSON document on standard output")
    inspect.set_defaults(command=_inspect)

    train = commands.add_parser("train", parents=[common], help="train on a folder: files.txt, labels.txt, model.py")
    train.add_argument("folder", type=Path, metavar="FOLDER")
    processors = len(os.sched_getaffinity(0))
    train.add_argument(
        "--workers", type=_count, default=processors, metavar="N", help="processes; default: %(default)s"
    )
    train.add_argument("--dry-run", action="store_true", help="say what there is to do, and do nothing")
    for name in ("files", "labels", "model", "params", "name"):
        what = "name of the model" if name == "name" else f"name of the {name} file in FOLDER"
        train.add_argument(f"--{name}", metavar="NAME", help=what)
    train.set_defaults(command=_train)

    up = commands.add_parser("up", help="the whole service on this machine: store, functions, broker, front door")
    usual = None if "://" in settings.store else Path(settings.store) / "up"
    up.add_argument(
        "--folder", type=Path, default=usual, required=usual is None, metavar="DIR", help="default: %(default)s"
    )
    up.add_argument("--port", type=int, default=8080, metavar="N", help="of the front door; default: %(default)s")
    up.add_argument("--workers", type=_count, default=processors, metavar="N", help="processes of each function")
    up.add_argument("--token", action="store_true", help="answer only who has the token that is printed at the start")
    up.set_defaults(command=_up)

    remote = argparse.ArgumentParser(add_help=False)
    remote.add_argument("--url", default=settings.url, metavar="URL", help="of a service; default: %(default)s")
    submit = commands.add_parser("submit", parents=[remote], help="train on a folder at a service")
    submit.add_argument("folder", type=Path, metavar="FOLDER")
    submit.add_argument("--wait", action="store_true", help="show how far it is, until it has ended")
    submit.add_argument("--json", action="store_true", help="one JSON document on standard output")
    for name in ("files", "labels", "model", "params", "name"):
        what = "name of the model" if name == "name" else f"name of the {name} file in FOLDER"
        submit.add_argument(f"--{name}", metavar="NAME", help=what)
    submit.set_defaults(command=_submit)
    for name, help_text, command in (
        ("cancel", "end a run at a service", _cancel),
        ("retry", "a new attempt of a run that failed at a service", _retry),
        ("report", "metrics of a run at a service, and its pictures", _report),
    ):
        one = commands.add_parser(name, parents=[remote], help=help_text)
        one.add_argument("run", metavar="RUN")
        one.add_argument("--json", action="store_true", help="one JSON document on standard output")
        if name == "report":
            one.add_argument("--out", type=Path, metavar="DIR", help="put the pictures there")
        one.set_defaults(command=command)

    for name, help_text, command in (
        ("runs", "all runs", _runs),
        ("models", "all published model versions", _models),
    ):
        listing = commands.add_parser(name, parents=[common], help=help_text)
        listing.add_argument("--url", metavar="URL", help="of a service, instead of a store")
        listing.set_defaults(command=command)
    status = commands.add_parser("status", parents=[common], help="how far a run is")
    status.add_argument("run", metavar="RUN")
    status.add_argument("--url", metavar="URL", help="of a service, instead of a store")
    status.add_argument("--verify", action="store_true", help="recount every event from what is stored")
    status.set_defaults(command=_status)
    log = commands.add_parser("log", parents=[common], help="what was done, and what model.py printed")
    log.add_argument("run", metavar="RUN")
    log.add_argument("--url", metavar="URL", help="of a service, instead of a store")
    log.add_argument("--follow", action="store_true", help="go on until the run has ended; at a service")
    log.set_defaults(command=_log)

    predict = commands.add_parser("predict", parents=[common], help="scores of raw events")
    predict.add_argument("model", metavar="MODEL", help="NAME or NAME/VERSION")
    predict.add_argument("files", nargs="+", metavar="FILE")
    predict.add_argument("--tree", help="default: the tree that the model was trained on")
    predict.add_argument("--out", type=Path, metavar="FILE", help="write .root, .parquet, .csv or .json")
    predict.add_argument("--url", metavar="URL", help="of a service that reads the files, instead of a store")
    predict.set_defaults(command=_predict)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes; give 1 or more")
    return int(text)


def _store(given: argparse.Namespace) -> Store:
    return open_store(f"{given.store.rstrip('/')}/{OWNER}")


def _client(given: argparse.Namespace) -> Client:
    """The service that a command names, asked as the settings say."""
    from hepfaas.client import Client

    settings = Settings.from_environ(os.environ)
    token = settings.token or (Path(settings.token_file) if settings.token_file else "")
    return Client(given.url, token, settings.group)


def _print(text: str) -> None:
    _write(sys.stdout, text)


def _document(values: Any) -> None:
    _print(json.dumps(values, indent=1))


def _inspect(given: argparse.Namespace) -> None:
    from dataclasses import asdict

    from hepfaas.datasets.summary import trees_of
    from hepfaas.local.tables import described

    found = trees_of(given.file)
    if given.json:
        _document([asdict(tree) for tree in found])
    else:
        _print("\n\n".join(map(described, found)) or f"'{given.file}' has no TTree")


def _train(given: argparse.Namespace) -> None:
    from hepfaas.local import train

    named = {name: getattr(given, name) for name in ("files", "labels", "model", "params", "name")}
    names = {name: value for name, value in named.items() if value is not None}
    store = _store(given)
    if given.dry_run:
        outlook = train.outlook(given.folder, names, store)
        _document(outlook) if given.json else _print(train.outlook_text(outlook))
        return
    report = train.train(given.folder, names, store, given.workers)
    _document(report) if given.json else _print(train.report_text(report))


def _up(given: argparse.Namespace) -> None:
    from hepfaas.local.up import Options, run

    run(Options(given.folder, given.port, given.workers, token=given.token))


def _submit(given: argparse.Namespace) -> None:
    from hepfaas.local.progress import lines_of

    names = {name: getattr(given, name) for name in ("files", "labels", "model", "params", "name")}
    with _client(given) as client:
        run = client.submit(given.folder, **{name: value for name, value in names.items() if value})
        sys.stderr.write(f"run {run} at {given.url}\n")
        if not given.wait:
            _document({"run": run}) if given.json else _print(f"Next: hepfaas status {run} --url {given.url}")
            return
        with lines_of(sys.stderr) as say:
            ended = client.wait(run, lambda status: say(status.line()))
        if ended.state != "completed":
            raise RequestError(f"run '{run}' {ended.state}{': ' + ended.error if ended.error else ''}")
        _show_report(client.report(run), given.json)


def _cancel(given: argparse.Namespace) -> None:
    with _client(given) as client:
        found = client.cancel(given.run)
    _document(found) if given.json else _print(f"run '{given.run}' is {found['state']}")


def _retry(given: argparse.Namespace) -> None:
    with _client(given) as client:
        found = client.retry(given.run)
    _document(found) if given.json else _print(f"run '{given.run}': attempt {found['attempt']}")


def _report(given: argparse.Namespace) -> None:
    with _client(given) as client:
        found = client.report(given.run)
        if given.out:
            given.out.mkdir(parents=True, exist_ok=True)
            for name, path in found["pictures"].items():
                (given.out / name).write_bytes(client.fetch(path))
    _show_report(found, given.json)
    if given.out and not given.json:
        _print(f"pictures are in {given.out}")


def _show_report(found: dict[str, Any], as_json: bool) -> None:
    from hepfaas.local.tables import metrics_table

    if as_json:
        _document(found)
        return
    _print(f"{metrics_table(found['metrics'])}\n\nmodel {found['model']} (best epoch {found['best_epoch']})")


def _runs(given: argparse.Namespace) -> None:
    from hepfaas.local import tables

    if given.url:
        with _client(given) as client:
            rows = list(client.runs())
    else:
        from hepfaas.views import overview

        rows = [row.to_json() for row in overview.runs(_store(given))]
    _document(rows) if given.json else _print(tables.table(rows, "no run yet: hepfaas train FOLDER"))


def _models(given: argparse.Namespace) -> None:
    from hepfaas.local import tables

    if given.url:
        with _client(given) as client:
            rows = client.models()
    else:
        from hepfaas.views import overview

        rows = [row.to_json() for row in overview.models(_store(given))]
    _document(rows) if given.json else _print(tables.table(rows, "no model yet: hepfaas train FOLDER"))


def _status(given: argparse.Namespace) -> None:
    from hepfaas.local import tables

    if given.url:
        with _client(given) as client:
            found = dict(client.status(given.run).values)
            found |= {"ledger": client.ledger(given.run)} if given.verify else {}
    else:
        from hepfaas.views import overview

        found = overview.status(_store(given), given.run, given.verify).to_json()
    _document(found) if given.json else _print(tables.facts(found))
    if given.verify and not found["ledger"]["holds"]:
        raise RequestError(f"the ledger of run '{given.run}' does not hold: {'; '.join(found['ledger']['findings'])}")


def _log(given: argparse.Namespace) -> None:
    from dataclasses import asdict

    from hepfaas.orchestration import records
    from hepfaas.views.following import lines_of

    if given.url:
        with _client(given) as client:
            if given.json:
                _document(list(client.steps(given.run, given.follow)))
                return
            for line in client.log(given.run, given.follow):
                _print(line)
        return
    store = _store(given)
    records.request_of(store, given.run)
    entries = list(records.log_of(store, given.run))
    if given.json:
        _document([asdict(entry) for entry in entries])
        return
    for entry in entries:
        _print("\n".join(lines_of(entry)))


def _predict(given: argparse.Namespace) -> None:
    from hepfaas.local.prediction import predict, summary_text

    if given.url:
        summary = _predicted_at(given)
        _document(summary) if given.json else _print(summary_text(summary))
        return
    summary = predict(_store(given), given.model, given.files, given.tree, given.out)
    _document(summary) if given.json else _print(summary_text(summary))


def _predicted_at(given: argparse.Namespace) -> dict[str, Any]:
    from hepfaas.local.prediction import written
    from hepfaas.local.progress import lines_of

    with _client(given) as client, lines_of(sys.stderr) as say:
        scores = client.predict(given.model, given.files, given.tree or "", lambda status: say(status.line()))
        return {"model": given.model, **written(scores, given.out)}


if __name__ == "__main__":
    sys.exit(main())
