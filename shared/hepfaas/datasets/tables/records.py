"""The user's function `preprocessing(record)`, which MLaaS4HEP applied to each record of JSON and CSV files.

It runs in the confined worker that reads the file: the same confinement as for damaged files holds for the user's code.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import pyarrow as pa

from hepfaas.datasets.tables.columns import Leaf, schema_of
from hepfaas.errors import RequestError

NAME = "preprocessing"
FILE = "<preprocessing>"
"""Name of the user's module in tracebacks."""


class RecordFunction:
    """The function in some source text."""

    def __init__(self, source: str) -> None:
        """Raises: RequestError with the line if the text cannot be run or has no such function."""
        module = ModuleType("preproc")
        try:
            exec(compile(source, FILE, "exec"), module.__dict__)
        except (Exception, SystemExit) as error:
            raise RequestError(_message(error)) from error
        function = getattr(module, NAME, None)
        if not callable(function):
            raise RequestError(f"the file of 'preproc' has no function {NAME}(record)")
        self._function: Callable[[Any], Any] = function

    def table(self, records: Sequence[dict[str, Any]], first: int, leaves: Sequence[Leaf] | None) -> Any:
        """Return the table of what the function returns; of all columns, with types as in these records, if `leaves` is
        None. first: entry of the first record. Raises: RequestError naming entry and line."""
        results = [self._result(record, first + number) for number, record in enumerate(records)]
        if leaves is None:
            names = dict.fromkeys(str(name) for result in results for name in result)
            fields = [(name, None) for name in names]
        else:
            fields = [(field.name, field.type) for field in schema_of(leaves)]
        columns = {}
        for name, type_ in fields:
            try:
                columns[name] = pa.array([result.get(name) for result in results], type_)
            except (pa.ArrowException, OverflowError) as error:
                raise RequestError(f"'{name}' of {NAME}(record), entry {first:,} or one after it: {error}") from error
        return pa.table(columns) if columns else pa.table({"": pa.nulls(len(results))})

    def _result(self, record: dict[str, Any], entry: int) -> dict[str, Any]:
        try:
            result = self._function(record)
        except (Exception, SystemExit) as error:
            raise RequestError(f"entry {entry:,}: {_message(error)}") from error
        if not isinstance(result, dict):
            raise RequestError(
                f"entry {entry:,}: {NAME}(record) returned {type(result).__name__}; it returns the record, a dict"
            )
        return result


def _message(error: BaseException) -> str:
    """Return an error of the user's code with its line."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == FILE]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    place = f"line {line} of the file of 'preproc'" if line else "the file of 'preproc'"
    return f"{place}: {type(error).__name__}: {error}"
