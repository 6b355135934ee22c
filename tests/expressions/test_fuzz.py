"""Any text gives a value or a RequestError: no other exception, no import, no compiled code, no file.

The texts are built from the grammar, then damaged. `HEPFAAS_CHAOS=all` makes 100,000 of them.
"""

import contextlib
import itertools
import os
import random
import sys
import threading

import awkward as ak
import numpy as np
import pytest
from hepfaas.errors import RequestError
from hepfaas.expressions.expression import parse
from hepfaas.expressions.functions import FUNCTIONS

TEXTS = 100_000 if os.environ.get("HEPFAAS_CHAOS") == "all" else 4_000
SEED = int(os.environ.get("HEPFAAS_CHAOS_SEED", "20261130"))
MUONS = [[31.5, 22.0, -4.0], [], [7.25], [90.0, np.nan], [15.0, 15.0, 15.0]]
ARRAYS = {
    "MET_pt": np.array([12.5, np.nan, 0.0, -3.0, np.inf], np.float32),
    "MET_phi": np.array([0.1, 3.0, -3.0, 0.0, 1.0], np.float32),
    "run": np.array([1, 0, 7, 2**31, 3], np.uint32),
    "event": np.array([2**63 + 1, 0, 5, 2**64 - 1, 1], np.uint64),
    "charge": np.array([-1, 0, 1, -128, 127], np.int8),
    "HLT_Mu": np.array([True, False, True, True, False]),
    **{f"Muon_{part}": ak.Array(MUONS) for part in ("pt", "eta", "phi", "mass", "mva")},
    "Muon_id": ak.Array([[1, -2, 255], [], [0], [3, 4], [1, 1, 1]]),
    "Muon_tight": ak.Array([[True, False, True], [], [False], [True, True], [False, False, False]]),
    "Jet.pt": ak.Array([[1.0], [2.0, 3.0], [], [], [4.0]]),
    "Jet.eta": ak.Array([[1.0], [2.0, 3.0], [], [], [4.0]]),
    "Jet.phi": ak.Array([[1.0], [2.0, 3.0], [], [], [4.0]]),
}
OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "<", "<=", ">", ">=", "==", "!=", "and", "or", "&&", "||", "&", "|"]
OPERATORS += ["<<", ">>"]
JUNK = [
    "lambda",
    "for",
    "in",
    "is",
    "not",
    "if",
    "else",
    "import",
    "__class__",
    ".",
    "::",
    "1e",
    "0x1F",
    "1_0",
    "1j",
    "9**9**9",
    ":=",
    "->",
    "...",
    "*x",
    "**y",
    "a=1",
    "f'{run}'",
    '"text"',
    "'a'",
    "__import__('os')",
    "().__class__.__bases__",
    "branch(",
    "get('run')",
    "branch('Jet.pt')",
    "18446744073709551615",
    "1e308",
    "1e400",
    "-0.0",
    "Jet",
]
JUNK += [*"()[],.:;=^?!~'\"\\{}@#$`_ \n\t\0é∞", "(" * 70, "-" * 70, "1+" * 900, "[0]" * 70, "2**" * 40, "not " * 70]
JUNK += ["9" * 400, "x" * 4100, "1 if 1 else " * 70]


def built(generator: random.Random, depth: int) -> str:
    """Return a random expression of the grammar. Types are not regarded, so many of them do not fit."""

    def part() -> str:
        return built(generator, depth - 1)

    kind = generator.random() if depth else 0.0
    if kind < 0.3:
        return generator.choice([*ARRAYS, "Muon", "MET", "Jet", "0", "1", "-1", "2.5", "1e3", "pi", "nan", "True"])
    if kind < 0.55:
        return f"{part()} {generator.choice(OPERATORS)} {part()}"
    if kind < 0.65:
        return f"({part()})"
    if kind < 0.72:
        return f"{generator.choice(['-', '+', '~', '!', 'not '])}{part()}"
    if kind < 0.82:
        return f"{part()}[{part()}]"
    if kind < 0.86:
        return f"{part()} if {part()} else {part()}"
    return (
        f"{generator.choice(list(FUNCTIONS))}({', '.join(part() for _ in range(generator.choice([1, 1, 2, 2, 3, 4])))})"
    )


def damaged(generator: random.Random, text: str) -> str:
    """Return the text with a few changes at random places."""
    for _ in range(generator.choice([0, 0, 0, 1, 2, 5])):
        start = generator.randint(0, len(text))
        junk = generator.choice([*JUNK, *FUNCTIONS, *OPERATORS, chr(generator.randrange(1, 0x3000))])
        text = text[:start] + generator.choice(["", junk]) + text[start + generator.choice([0, 0, 1, 3]) :]
    return text


KINDS_OF_VECTORS = ["Muon[0]", "Jet[0]", "MET", "Muon[0] + Muon[0]", "Jet[0] + Jet[0]", "MET + MET"]
QUANTITIES = ["pt", "eta", "phi", "mass", "energy", "px", "py", "pz", "rapidity"]


def use_every_function_of_vector() -> None:
    """Import the parts of `vector`: it imports each of them at first use."""
    of_one = [f"{name}({one})" for name in QUANTITIES for one in KINDS_OF_VECTORS]
    pairs = itertools.product(["deltaR", "deltaPhi", "deltaEta", "mt"], KINDS_OF_VECTORS, KINDS_OF_VECTORS)
    for text in of_one + [f"{name}({one}, {two})" for name, one, two in pairs]:
        with contextlib.suppress(RequestError):  # MET has no mass
            parse(text, "here").evaluate(ARRAYS)


WATCHED = {"import", "compile", "exec", "open", "os.system", "subprocess.Popen", "object.__getattr__", "marshal.loads"}
seen: list[tuple[str, object]] = []
watching = False


def _watch(event: str, arguments: object) -> None:
    if watching and event in WATCHED and threading.current_thread() is threading.main_thread():
        seen.append((event, arguments))


sys.addaudithook(_watch)


@pytest.mark.timeout(3_000)
def test_any_text_gives_a_value_or_a_clear_error_and_runs_no_code() -> None:
    global watching
    use_every_function_of_vector()
    generator = random.Random(SEED)
    values = errors = 0
    for _ in range(TEXTS):
        text = damaged(generator, built(generator, generator.randint(1, 5)))
        watching = True
        try:
            expression = parse(text, "here")
            read = expression.branches(ARRAYS)
            result = expression.evaluate({name: ARRAYS[name] for name in read}, 5)
        except RequestError as error:
            message = str(error)
        except Exception as error:
            pytest.fail(f"{text!r}: {error!r}")
        else:
            message = ""
        watching = False
        assert not seen, (text, seen)
        values, errors = (values, errors + 1) if message else (values + 1, errors)
        assert len(message) < 700, text
        assert message.startswith("here: ") if message else len(result) == 5, text
        assert message.isprintable(), text
    assert values > TEXTS / 20
    assert errors > TEXTS / 20


def test_the_watch_sees_an_import_and_compiled_code() -> None:
    global watching
    watching = True
    eval("1 + 1")
    watching = False
    assert {event for event, _ in seen} >= {"compile", "exec"}
    seen.clear()
