"""The command `hepfaas`. Each subcommand imports what it needs when it runs, so that all start quickly."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hepfaas import __version__
from hepfaas.errors import RequestError, UnavailableError
from hepfaas.platform.settings import Settings
from hepfaas.platform.storage import Store
from hepfaas.platform.stores import open_store
from hepfaas.platform.terminal import PRINTED, in_columns, visible_lines
from hepfaas.runs.params import FORMATS

if TYPE_CHECKING:
    from hepfaas.client import Client

OWNER = "local"
"""Owner of everything in a store of this machine, and key prefix of it."""

DATA_FILES = ("files", "labels", "samples", "params", "preproc", "specs")
JOB_FILES = (*DATA_FILES, "model")
SAMPLE_ENTRIES = 10_000
WORKFLOW_OPTIONS = {
    "files": "list of files, or files with commas",
    "labels": "list of labels, labels with commas, or the branch that labels each event",
    "model": "Python file with model(idim); default: model.py",
    "params": "default: params.json, if it exists",
    "preproc": "preproc.json",
    "specs": "file of ranges",
    "fout": "gets the model: FILE.keras, FILE.tflite, or a folder for all files",
}
READER_OPTIONS: dict[str, tuple[Any, str]] = {
    "fout": ("", "gets the ranges of the branches, as specs-FILE.json"),
    "preproc": ("", "preproc.json"),
    "nan": (float("nan"), "feature of slots without a value; default: 0"),
    "branch": ("Events", "name of the tree; default: %(default)s"),
    "identifier": ("", "branches that are no features; default: run,event,luminosityBlock"),
    "branches": ("", "branches with commas; default: all"),
    "exclude-branches": ("", "branches with commas, or a file with one on each line"),
    "nevts": (5, "events to read, -1: all; default: %(default)s"),
    "chunk-size": (1000, "has no effect: files are read along their clusters"),
    "specs": ("", "file of ranges"),
    "redirector": ("root://cms-xrd-global.cern.ch", "prefix of logical names; default: %(default)s"),
}
"""Options of reader.py with their defaults."""

Command = Callable[[argparse.Namespace], None]


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 success, 1 change the request, 75 try later, 130 interrupted."""
    try:
        options = _parser(Settings.from_environ(os.environ)).parse_args(words)
        options.command(options)
    except RequestError as error:
        return _report_error(f"hepfaas: {visible_lines(str(error), PRINTED)}", 1)
    except UnavailableError as error:
        advice = "Nothing is lost: run the same command again to continue."
        return _report_error(f"hepfaas: {visible_lines(str(error), PRINTED)}\n{advice}", os.EX_TEMPFAIL)
    except KeyboardInterrupt:
        return _report_error("\nhepfaas: stopped; run the same command again to continue.", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone: flush to nowhere
        return 0
    except Exception:
        text = visible_lines(traceback.format_exc().strip(), PRINTED)
        return _report_error(f"hepfaas: internal error\n{PRINTED}{text}", os.EX_SOFTWARE)
    return 0


def _report_error(text: str, code: int) -> int:
    _write(sys.stderr, text)
    return code


def _write(out: TextIO, text: str) -> None:
    """Write lines for a person. All text passes here, which escapes control characters."""
    text = visible_lines(text)
    out.write(f"{in_columns(text, shutil.get_terminal_size().columns) if out.isatty() else text}\n")


def _parser(settings: Settings) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hepfaas", description="Machine learning on ROOT files and tables.")
    parser.add_argument("--version", action="version", version=f"hepfaas {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="print one JSON document")
    in_store = argparse.ArgumentParser(add_help=False)
    in_store.add_argument(
        "--store", default=settings.store, metavar="DIR|s3://BUCKET/PREFIX", help="default: %(default)s"
    )
    in_either = argparse.ArgumentParser(add_help=False, parents=[in_store])
    in_either.add_argument("--url", metavar="URL", help="address of a service, used instead of a store")
    at_service = argparse.ArgumentParser(add_help=False)
    at_service.add_argument("--url", default=settings.url, metavar="URL", help="address; default: %(default)s")
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument("folder", type=Path, metavar="FOLDER")
    for name in DATA_FILES:
        data.add_argument(f"--{name}", metavar="NAME", help=f"name of the {name} file in FOLDER")
    job = argparse.ArgumentParser(add_help=False, parents=[data])
    job.add_argument("--model", metavar="NAME", help="name of the model file in FOLDER")
    job.add_argument("--name", metavar="NAME", help="name of the model")
    job.add_argument("--tag", action="append", default=[], metavar="TAG", help="tag of the run; may be repeated")
    of_run = argparse.ArgumentParser(add_help=False)
    of_run.add_argument("run", metavar="RUN")

    of_format = argparse.ArgumentParser(add_help=False)
    of_format.add_argument("--dtype", choices=FORMATS, default="", help="format of the files; default: by their names")

    def add(
        name: str, command: Command, parents: Sequence[argparse.ArgumentParser], text: str
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=parents, help=text, description=text)
        added.set_defaults(command=command)
        return added

    inspect = add(
        "inspect", _inspect, [of_format, as_json], "show the trees and branches of files, and where they differ"
    )
    inspect.add_argument("files", nargs="+", metavar="FILE", help="path or root:// URL, also with wildcards in quotes")
    inspect.add_argument(
        "--sample",
        type=_entries,
        nargs="?",
        const=SAMPLE_ENTRIES,
        metavar="N",
        help="read the first N entries of each tree: ranges, values that are missing; default of N: %(const)s",
    )

    more = "1: rates, shapes, memory and epochs; 2: branches and ranges, too; default: that of params.json"
    verbosity: dict[str, Any] = {"type": int, "choices": (0, 1, 2), "metavar": "N", "help": more}
    processors = len(os.sched_getaffinity(0))
    train = add("train", _train, [job, in_store, as_json], "train on a folder with files.txt, labels.txt and model.py")
    train.add_argument("--dry-run", action="store_true", help="show what would be done, and store nothing")

    text = "write features, labels and weights of the events of a folder, to train elsewhere; needs no model.py"
    prepare = add("prepare", _prepare, [data, in_store, as_json], text)
    prepare.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the files")
    prepare.add_argument("--format", choices=("parquet", "npz", "hdf5"), default="parquet", help="default: %(default)s")
    prepare.add_argument("--force", action="store_true", help="replace a DIR that this command wrote")
    for command in (train, prepare):
        command.add_argument(
            "--workers", type=_count, default=processors, metavar="N", help="processes; default: %(default)s"
        )
        command.add_argument("--verbose", **verbosity)

    workflow = add("workflow", _workflow, [in_store, as_json], "train with the options of MLaaS4HEP's workflow.py")
    for option, text in WORKFLOW_OPTIONS.items():
        workflow.add_argument(
            f"--{option}", default="", metavar="PATH", help=text, required=option in ("files", "labels")
        )
    workflow.add_argument(
        "--dtype", default="", metavar="FORMAT", help="root, parquet, avro, json, csv; default: by name"
    )
    workflow.add_argument("--name", default="", metavar="NAME", help="name of the model; default: that of this folder")

    reader = add("reader", _reader, [in_store, as_json], "read events with the options of MLaaS4HEP's reader.py")
    reader.add_argument("--fin", required=True, metavar="FILE", help="path, logical name or root:// URL")
    for option, (default, text) in READER_OPTIONS.items():
        reader.add_argument(f"--{option}", default=default, type=type(default), metavar="VALUE", help=text)
    reader.add_argument("--info", action="store_true", help="show trees and branches, as `hepfaas inspect`")
    reader.add_argument("--hists", action="store_true", help="write histograms of the branches into the folder pdfs")
    for command in (workflow, reader):
        command.add_argument("--workers", type=_count, default=processors, metavar="N", help="processes")
    workflow.add_argument("--verbose", **verbosity)
    reader.add_argument("--verbose", **{**verbosity, "default": 0})

    text = "write the ranges of a model's branches in the form of MLaaS4HEP's global-specs.json"
    export = add("export-specs", _export_specs, [in_store], text)
    export.add_argument("name", metavar="RUN", help="RUN, MODEL or MODEL/VERSION")
    export.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")

    up = add("up", _up, [], "run the whole service on this machine: store, functions, broker and HTTP server")
    folder = None if "://" in settings.store else Path(settings.store) / "up"
    up.add_argument(
        "--folder", type=Path, default=folder, required=folder is None, metavar="DIR", help="default: %(default)s"
    )
    up.add_argument("--port", type=int, default=8080, metavar="N", help="port of the service; default: %(default)s")
    up.add_argument("--workers", type=_count, default=processors, metavar="N", help="processes of each function")
    up.add_argument("--token", action="store_true", help="require the token that is printed at the start")

    submit = add("submit", _submit, [job, at_service, as_json], "train on a folder at a service")
    submit.add_argument("--wait", action="store_true", help="show the progress until the run has ended")
    add("cancel", _cancel, [of_run, at_service, as_json], "end a run at a service")
    add("retry", _retry, [of_run, at_service, as_json], "start a new attempt of a failed run at a service")

    report = add("report", _report, [in_either, as_json], "show the metrics of a training, or write its report")
    report.add_argument("name", metavar="RUN", help="RUN, MODEL or MODEL/VERSION")
    report.add_argument(
        "--out", type=Path, metavar="FILE.html|DIR", help="write one page with everything; into DIR the plots, too"
    )
    compare = add("compare", _compare, [in_either, as_json], "show what differs between trainings")
    compare.add_argument("names", nargs="+", metavar="RUN", help="RUN, MODEL or MODEL/VERSION")
    compare.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write a page (.html), ROC curves (.png, .pdf) or all values (.json)",
    )
    runs = add("runs", _runs, [in_either, as_json], "list all runs, and what differs between those of one name")
    runs.add_argument("--tag", default="", metavar="TAG", help="only runs with this tag")
    tag = add("tag", _tag, [of_run, in_either, as_json], "give a run tags, or show its tags")
    tag.add_argument("tags", nargs="*", metavar="TAG")
    tag.add_argument("--remove", action="append", default=[], metavar="TAG", help="remove this tag")
    note = add("note", _note, [of_run, in_either, as_json], "add a note to a run, or show its notes")
    note.add_argument("text", nargs="?", metavar="TEXT")
    add("models", _models, [in_either, as_json], "list all published model versions")
    status = add("status", _status, [of_run, in_either, as_json], "show the state and progress of a run")
    status.add_argument("--verify", action="store_true", help="recount every event from the stored objects")
    log = add("log", _log, [of_run, in_either, as_json], "show the steps of a run, and what model.py printed")
    log.add_argument("--follow", action="store_true", help="continue until the run has ended; only with --url")

    predict = add("predict", _predict, [of_format, in_either, as_json], "compute scores of the events in files")
    predict.add_argument("model", metavar="MODEL", help="NAME or NAME/VERSION")
    predict.add_argument(
        "files", nargs="+", metavar="FILE", help="also as FILE.root:TREE; with --url, a file that the service can read"
    )
    predict.add_argument("--tree", help="of files that name none; default: the tree of the training")
    predict.add_argument("--out", type=Path, metavar="FILE", help="write scores as .root, .parquet, .csv or .json")
    predict.add_argument("--ntuple", action="store_true", help="write an RNTuple, not a TTree, into a .root file")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes; give 1 or more")
    return int(text)


def _entries(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of entries; name the files before --sample")
    return int(text)


def _store(options: argparse.Namespace) -> Store:
    return open_store(f"{options.store.rstrip('/')}/{OWNER}")


def _client(options: argparse.Namespace) -> Client:
    """Return a client of the service at --url, with the token and the group of the settings."""
    from hepfaas.client import Client

    settings = Settings.from_environ(os.environ)
    token = settings.token or (Path(settings.token_file) if settings.token_file else "")
    return Client(options.url, token, settings.group)


def _names(options: argparse.Namespace) -> dict[str, str]:
    """Return the names of a job's files and of its model that are options."""
    names = {name: getattr(options, name, None) for name in (*JOB_FILES, "name")}
    return {name: value for name, value in names.items() if value is not None}


def _print(text: str) -> None:
    _write(sys.stdout, text)


def _show(options: argparse.Namespace, values: Any, text: Callable[[Any], str]) -> None:
    """Print values as JSON with --json, else as text."""
    _print(json.dumps(values, indent=1) if options.json else text(values))


def _inspect(options: argparse.Namespace) -> None:
    from hepfaas.local.branch_differences import differences
    from hepfaas.local.inspection import check_all_read, inspected, named_files
    from hepfaas.local.tables import difference_text, inspected_text

    named, files = named_files(options.files), []
    for file in inspected(named, options.sample, options.dtype):
        files.append(file)
        if not options.json and (text := inspected_text(file, is_only=len(named) == 1)):
            _print(text)
    different = differences({file.name: file.trees for file in files if file.trees})
    if options.json:
        values = {"files": [file.to_json() for file in files], "differences": [asdict(one) for one in different]}
        _print(json.dumps(values, indent=1))
    elif different:
        _print("\n".join(["differences between the files", *map(difference_text, different)]))
    check_all_read(files)


def _train(options: argparse.Namespace) -> None:
    from hepfaas.local import train

    names, store = _names(options), _store(options)
    if options.dry_run:
        _show(options, train.outlook(options.folder, names, store), train.outlook_text)
    else:
        _show(
            options,
            train.train(options.folder, names, store, options.workers, options.tag, options.verbose),
            train.report_text,
        )


def _prepare(options: argparse.Namespace) -> None:
    from hepfaas.local.prepare import Output, prepare, report_text

    output = Output(options.out, options.format, options.force)
    names, store = _names(options), _store(options)
    _show(options, prepare(options.folder, names, store, options.workers, output, options.verbose), report_text)


def _workflow(options: argparse.Namespace) -> None:
    from hepfaas.local import train, workflow

    names = [*WORKFLOW_OPTIONS, "dtype", "name"]
    job = workflow.Workflow(**{name: getattr(options, name) for name in names})
    report = workflow.run(job, Path.cwd(), _store(options), options.workers, options.verbose)
    _show(options, report, lambda report: workflow.report_text(report, train.report_text(report)))


def _reader(options: argparse.Namespace) -> None:
    from hepfaas.local import reader

    names = [name.replace("-", "_") for name in READER_OPTIONS if name != "chunk-size"]
    wanted = reader.Reader(**{name: getattr(options, name) for name in ("fin", *names, "hists", "verbose")})
    if options.info:
        words = ["inspect", reader.location(wanted, Path.cwd()), *(["--json"] if options.json else [])]
        inspect = _parser(Settings.from_environ(os.environ)).parse_args(words)
        inspect.command(inspect)
        return
    _show(options, reader.read(wanted, Path.cwd(), _store(options), options.workers), reader.report_text)


def _export_specs(options: argparse.Namespace) -> None:
    from hepfaas.local.specs import exported

    text = json.dumps(exported(_store(options), options.name), indent=1)
    if options.out:
        options.out.write_text(f"{text}\n")
    else:
        _print(text)


def _up(options: argparse.Namespace) -> None:
    from hepfaas.local.up import Options, run

    run(Options(options.folder, options.port, options.workers, token=options.token))


def _submit(options: argparse.Namespace) -> None:
    from hepfaas.client.calls import check_completed
    from hepfaas.local.progress import lines_of
    from hepfaas.local.tables import metrics_text
    from hepfaas.orchestration.remarks import check_tags

    check_tags(options.tag)
    with _client(options) as client:
        run = client.submit(options.folder, **_names(options))
        if options.tag:
            client.tag(run, *options.tag)
        _write(sys.stderr, f"run {run} at {options.url}")
        if not options.wait:
            _show(options, {"run": run}, lambda _: f"Next: hepfaas status {run} --url {options.url}")
            return
        with lines_of(sys.stderr) as show:
            check_completed(client.wait(run, lambda status: show(status.line())))
        _show(options, client.report(run), metrics_text)


def _cancel(options: argparse.Namespace) -> None:
    with _client(options) as client:
        _show(options, client.cancel(options.run), lambda values: f"run '{options.run}' is {values['state']}")


def _retry(options: argparse.Namespace) -> None:
    with _client(options) as client:
        _show(options, client.retry(options.run), lambda values: f"run '{options.run}': attempt {values['attempt']}")


def _report(options: argparse.Namespace) -> None:
    from hepfaas.local import reports
    from hepfaas.local.tables import metrics_text

    page, plots = options.out is not None, options.out is not None and not reports.is_page(options.out)
    if options.url:
        from hepfaas.client.saved_reports import report_at

        with _client(options) as client:
            values, files = report_at(client, options.name, page=page, plots=plots)
    else:
        values, files = reports.from_store(_store(options), options.name, page=page, plots=plots)
    if options.out:
        reports.write(options.out, files)
    _show(options, values, metrics_text)
    if options.out and not options.json:
        _print(f"the report is in {options.out}")


def _compare(options: argparse.Namespace) -> None:
    from hepfaas.local import reports
    from hepfaas.views.compared import Comparison

    reports.check_comparison_name(options.out)
    if options.url:
        with _client(options) as client:
            compared = Comparison.from_json(client.compare(*options.names))
    else:
        from hepfaas.views import comparison

        compared = comparison.compare(_store(options), options.names)
    if options.out:
        options.out.write_bytes(reports.comparison_file(compared, options.out.suffix))
    _show(options, compared.to_json(), lambda _: reports.comparison_text(compared))
    if options.out and not options.json:
        _print(f"\nthe comparison is in {options.out}")


def _runs(options: argparse.Namespace) -> None:
    from hepfaas.local.tables import runs_text

    if options.url:
        with _client(options) as client:
            rows = list(client.runs(tag=options.tag))
    else:
        from hepfaas.views import overview

        rows = [row.to_json() for row in overview.runs(_store(options), options.tag)]
    empty = f"no run has the tag '{options.tag}'" if options.tag else "no run yet: hepfaas train FOLDER"
    _show(options, rows, lambda rows: runs_text(rows, empty))


def _tag(options: argparse.Namespace) -> None:
    from hepfaas.orchestration import records, remarks

    if options.url:
        with _client(options) as client:
            client.untag(options.run, *options.remove)
            tags: Sequence[str] = client.tag(options.run, *options.tags)
    else:
        store = _store(options)
        records.request_of(store, options.run)
        remarks.untag(store, options.run, options.remove)
        tags = remarks.tag(store, options.run, options.tags)
    _show(options, {"tags": list(tags)}, lambda _: ", ".join(tags) or f"run '{options.run}' has no tag")


def _note(options: argparse.Namespace) -> None:
    from hepfaas.local.tables import notes_text

    if options.url:
        with _client(options) as client:
            notes = client.notes(options.run) if options.text is None else [client.note(options.run, options.text)]
    else:
        notes = _notes_in_store(options)
    _show(options, {"notes": notes}, lambda _: notes_text(notes) or f"run '{options.run}' has no note")


def _notes_in_store(options: argparse.Namespace) -> list[dict[str, Any]]:
    import time

    from hepfaas.orchestration import records, remarks

    store = _store(options)
    records.request_of(store, options.run)
    if options.text is None:
        return [note.to_json() for note in remarks.notes_of(store, options.run)]
    return [remarks.note(store, options.run, remarks.Note(time.time(), options.text)).to_json()]


def _models(options: argparse.Namespace) -> None:
    from hepfaas.local.tables import table

    if options.url:
        with _client(options) as client:
            rows = client.models()
    else:
        from hepfaas.views import overview

        rows = [row.to_json() for row in overview.models(_store(options))]
    _show(options, rows, lambda rows: table(rows, "no model yet: hepfaas train FOLDER"))


def _status(options: argparse.Namespace) -> None:
    from hepfaas.local.tables import status_text

    if options.url:
        with _client(options) as client:
            values = dict(client.status(options.run).values)
            values |= {"ledger": client.ledger(options.run)} if options.verify else {}
    else:
        from hepfaas.views import overview

        values = overview.status(_store(options), options.run, options.verify).to_json()
    _show(options, values, status_text)
    if options.verify and not values["ledger"]["holds"]:
        findings = "; ".join(values["ledger"]["findings"])
        raise RequestError(f"the ledger of run '{options.run}' does not hold: {findings}")


def _log(options: argparse.Namespace) -> None:
    from hepfaas.local.tables import in_local_time

    if options.url:
        with _client(options) as client:
            if options.json:
                _print(json.dumps(list(client.steps(options.run, options.follow)), indent=1))
                return
            for line in client.log(options.run, options.follow):
                _print(in_local_time(line))
        return
    from hepfaas.orchestration import records
    from hepfaas.views.following import lines_of, notes_of

    store = _store(options)
    records.request_of(store, options.run)
    entries = list(records.log_of(store, options.run))
    if options.json:
        _print(json.dumps([asdict(entry) for entry in entries], indent=1))
        return
    for entry in entries:
        _print("\n".join(map(in_local_time, (*lines_of(entry), *notes_of(entry, store)))))


def _predict(options: argparse.Namespace) -> None:
    from hepfaas.local.prediction import predict, summary_text, written

    if options.ntuple and options.out is None:
        raise RequestError("--ntuple needs --out FILE.root, the file that gets the RNTuple")
    if options.url:
        from hepfaas.local.progress import lines_of

        with _client(options) as client, lines_of(sys.stderr) as show:
            scores = client.predict(
                options.model,
                options.files,
                options.tree or "",
                lambda status: show(status.line()),
                dtype=options.dtype,
            )
            summary = {"model": options.model, **written(scores, options.out, ntuple=options.ntuple)}
    else:
        kinds = {"ntuple": options.ntuple, "dtype": options.dtype}
        summary = predict(_store(options), options.model, options.files, options.tree, options.out, **kinds)
    _show(options, summary, summary_text)


if __name__ == "__main__":
    sys.exit(main())
