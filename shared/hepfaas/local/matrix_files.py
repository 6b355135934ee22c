"""Files of prepared events for programs that train elsewhere: Parquet, npz or HDF5, one file for each sample.

A folder of them appears whole or not at all. Files that are not tables have names that begin with '_', which programs
that read a folder of Parquet files skip.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hepfaas.errors import RequestError
from hepfaas.runs.splits import Split
from hepfaas.runs.targets import Target

Columns = Mapping[str, NDArray[Any]]
Write = Callable[[NDArray[np.float32], Columns], None]
"""Takes the features of some events, (events, features), and their other columns, (events,) each, in every call the
same."""

SPEC, ABOUT, README = "_spec.json", "_dataset.json", "_README.txt"
ROW_GROUP_BYTES = 64_000_000
ZIP_TIME = (1980, 1, 1, 0, 0, 0)
FILE, SPLIT = "file", "split"
PLURAL = {"entry": "entries", "file": "files", "label": "labels", "weight": "weights"} | {
    "training_weight": "training_weights"
}
"""Names of columns where each is an array beside the matrix."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Metadata shared by the files of all samples.

    features: name of each column of the matrix. types: of the other columns, by their names. files: addresses, which
    the column 'file' gives by number. tree: of the files, '' if their addresses name it, as in 'data.root:Signal'.
    classes: name of the class of each label. targets: of a regression, by their columns, which have (target - mean) /
    deviation.
    """

    features: tuple[str, ...]
    types: Mapping[str, np.dtype[Any]]
    files: tuple[str, ...]
    tree: str
    classes: Mapping[int, str]
    targets: Mapping[str, Target]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "features": list(self.features),
            "columns": list(self.types),
            "files": list(self.files),
            "tree": self.tree,
            "classes": {str(label): name for label, name in self.classes.items()},
            "targets": {name: target.to_json() for name, target in self.targets.items()},
        }


@contextmanager
def whole_folder(out: Path, force: bool) -> Iterator[Path]:
    """Yield an empty folder which becomes `out` at the end, or is removed after an error.

    Raises: RequestError if `out` has files, unless `force` and an earlier call wrote them all; if it cannot be written.
    """
    out = out.resolve()
    check_folder(out, force)
    part, old = (out.with_name(f".{out.name}.{state}") for state in ("part", "old"))
    try:
        for left_by_a_kill in (part, old):
            shutil.rmtree(left_by_a_kill, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        if out.exists() and any(out.iterdir()):
            check_folder(out, force)
            out.rename(old)
        part.rename(out)
    except OSError as error:
        raise RequestError(f"'{out}' cannot be written: {error.strerror or error}") from error
    finally:
        for folder in (part, old):
            shutil.rmtree(folder, ignore_errors=True)


def check_folder(out: Path, force: bool) -> None:
    """Raise RequestError if `whole_folder` would refuse to write `out`."""
    if out.exists() and not out.is_dir():
        raise RequestError(f"'{out}' is a file; --out takes a folder that is new or empty")
    present = sorted(path.name for path in out.iterdir()) if out.exists() else []
    if present and not force:
        raise RequestError(
            f"'{out}' is not empty; name another folder, or use --force to replace what `hepfaas prepare` wrote there"
        )
    ours = {SPEC, ABOUT, README, *(name_of(split, suffix) for split in Split for suffix in FORMATS)}
    if others := [name for name in present if name not in ours]:
        raise RequestError(
            f"'{out}' has '{others[0]}', which `hepfaas prepare` does not write; --force replaces only a folder that "
            "it wrote, so name another folder"
        )


def name_of(split: Split, suffix: str) -> str:
    """Return the name of the file of a sample."""
    return f"{split.label}.{_SUFFIX[suffix]}"


def open_file(folder: Path, suffix: str, *, layout: Layout, split: Split, n_events: int) -> Any:
    """Return a context in which the events of one sample are written, all in all `n_events`; it gives a `Write`."""
    return _FORMATS[suffix](folder / name_of(split, suffix), layout, split, n_events)


def distinct(names: Sequence[str], taken: Collection[str]) -> list[str]:
    """Return names of columns: printable, without '/', which HDF5 takes for a folder, and none twice. A name that is
    taken gets a number."""
    used, result = set(taken), []
    for name in names:
        plain = "".join(letter if letter.isprintable() else "_" for letter in name).replace("/", "_over_")
        number, free = 1, plain
        while free in used:
            number += 1
            free = f"{plain}_{number}"
        used.add(free)
        result.append(free)
    return result


def readme(suffix: str, layout: Layout) -> str:
    """Return the text that shows how the files are read, in Python that runs in their folder."""
    of_tree = f"[{layout.tree!a}]" if layout.tree else ""
    learned = next(iter(layout.targets), "label" if suffix == "parquet" else PLURAL["label"])
    return (
        "Events that `hepfaas prepare` has selected, scaled and split. In this folder they are read with\n\n"
        f"{_HOW[suffix].replace('$Y', repr(learned))}"
        f"    branches = uproot.open(address){of_tree}.arrays(entry_start=entry, entry_stop=entry + 1)\n\n"
        "'weight' is the physical weight of an event, 'training_weight' the one to train with.\n"
        f"{ABOUT} has the names of features, files, classes and targets; {SPEC} says how branches become features.\n"
    )


@contextmanager
def _parquet(path: Path, layout: Layout, split: Split, n_events: int) -> Iterator[Write]:
    """Write a table with a column for each feature. File and sample are dictionaries: categories in pandas."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.dictionary(pa.int32(), pa.string())
    types = {name: text if name == FILE else pa.from_numpy_dtype(kind) for name, kind in layout.types.items()}
    fields = [*types.items(), (SPLIT, text), *((name, pa.float32()) for name in layout.features)]
    schema = pa.schema(fields, metadata={"hepfaas": json.dumps(layout.to_json())})
    waiting: list[tuple[NDArray[np.float32], Columns]] = []

    def table() -> Any:
        features = np.asfortranarray(np.concatenate([block for block, _ in waiting]))
        columns = {name: np.concatenate([block[name] for _, block in waiting]) for name in layout.types}
        arrays = [pa.array(values) for name, values in columns.items() if name != FILE]
        places = list(columns)
        if FILE in columns:
            arrays.insert(places.index(FILE), pa.DictionaryArray.from_arrays(columns[FILE], list(layout.files)))
        which = pa.DictionaryArray.from_arrays(np.zeros(len(features), dtype=np.int32), [split.label])
        return pa.table([*arrays, which, *map(pa.array, features.T)], schema=schema)

    with (
        path.open("wb") as out,
        pq.ParquetWriter(out, schema, compression="zstd", use_dictionary=[FILE, SPLIT, "label"]) as writer,
    ):

        def write(features: NDArray[np.float32], columns: Columns) -> None:
            waiting.append((features, columns))
            if sum(block.nbytes for block, _ in waiting) >= ROW_GROUP_BYTES:
                writer.write_table(table())
                waiting.clear()

        yield write
        if waiting:
            writer.write_table(table())


@contextmanager
def _npz(path: Path, layout: Layout, split: Split, n_events: int) -> Iterator[Write]:
    """Write each array into a file of its own, since a zip file takes one after another, then all into one."""
    arrays = _arrays(layout)
    spools = {name: path.with_name(f"{number}.npy") for number, name in enumerate(arrays)}
    with ExitStack() as opened:
        outs = {name: opened.enter_context(spool.open("wb")) for name, spool in spools.items()}
        for name, (kind, shape) in arrays.items():
            _begin_npy(outs[name], kind, (n_events, *shape))

        def write(features: NDArray[np.float32], columns: Columns) -> None:
            outs["features"].write(np.ascontiguousarray(features).data)
            for name, values in columns.items():
                outs[PLURAL.get(name, name)].write(np.ascontiguousarray(values).data)

        yield write
    with zipfile.ZipFile(path, "w") as archive:
        for name, spool in spools.items():
            with spool.open("rb") as part, archive.open(_member(name, spool.stat().st_size), "w") as out:
                shutil.copyfileobj(part, out, 1 << 20)
            spool.unlink()
        for name, words in _names(layout).items():
            with archive.open(_member(name, 0), "w") as out:
                np.lib.format.write_array(out, np.array(words, dtype=str), allow_pickle=False)


def _member(name: str, size_bytes: int) -> zipfile.ZipInfo:
    """Return a member of an npz file, whose bytes do not depend on the time."""
    member = zipfile.ZipInfo(f"{name}.npy", ZIP_TIME)
    member.file_size = size_bytes
    return member


def _begin_npy(out: BinaryIO, kind: np.dtype[Any], shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(out, header)


@contextmanager
def _hdf5(path: Path, layout: Layout, split: Split, n_events: int) -> Iterator[Write]:
    import h5py

    with h5py.File(path, "w") as out:
        for name, (kind, shape) in _arrays(layout).items():
            out.create_dataset(name, (n_events, *shape), kind)
        for name, words in _names(layout).items():  # an attribute has no room for the names of many branches
            out.create_dataset(name, data=words, dtype=h5py.string_dtype())
        done = 0

        def write(features: NDArray[np.float32], columns: Columns) -> None:
            nonlocal done
            rows = slice(done, done + len(features))
            out["features"][rows] = features
            for name, values in columns.items():
                out[PLURAL.get(name, name)][rows] = values
            done = rows.stop

        yield write


def _arrays(layout: Layout) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Return type and shape of one event of each array."""
    others: dict[str, tuple[np.dtype[Any], tuple[int, ...]]]
    others = {PLURAL.get(name, name): (kind, ()) for name, kind in layout.types.items()}
    return {"features": (np.dtype(np.float32), (len(layout.features),)), **others}


def _names(layout: Layout) -> dict[str, Sequence[str]]:
    """Return the names that numbers in the arrays stand for."""
    return {"feature_names": layout.features, "file_names": layout.files}


RESERVED = (*PLURAL, *PLURAL.values(), SPLIT, "features", "feature_names", "file_names")
"""Names that have a meaning of their own in one of the formats."""

FORMATS = ("parquet", "npz", "hdf5")
_FORMATS = {"parquet": _parquet, "npz": _npz, "hdf5": _hdf5}
_SUFFIX = {"parquet": "parquet", "npz": "npz", "hdf5": "h5"}
_HOW = {
    "parquet": """    import json, pandas, pathlib, uproot
    training, all_events = pandas.read_parquet("training.parquet"), pandas.read_parquet(".")
    names = json.loads(pathlib.Path("_dataset.json").read_text())["features"]
    x = training[names].to_numpy()
    y, weights = training[$Y].to_numpy(), training["training_weight"].to_numpy()
    address, entry = training["file"][0], training["entry"][0]  # of the first event
""",
    "npz": """    import numpy, uproot
    training = numpy.load("training.npz")
    x, y, weights = training["features"], training[$Y], training["training_weights"]
    names = training["feature_names"].tolist()
    address, entry = training["file_names"][training["files"][0]], training["entries"][0]  # of the first event
""",
    "hdf5": """    import h5py, uproot
    training = h5py.File("training.h5")
    x, y, weights = training["features"][:], training[$Y][:], training["training_weights"][:]
    names = training["feature_names"].asstr()[:].tolist()
    address, entry = training["file_names"].asstr()[training["files"][0]], training["entries"][0]  # of the first event
""",
}
