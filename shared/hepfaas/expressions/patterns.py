"""Patterns of branch names: exact names, wildcards (`Muon_*`) and regular expressions (`/Muon_(pt|eta)/`). Pure.

Patterns and names come from users. RE2 matches a regular expression in linear time, the `re` module would need
exponential time for some.
"""

from __future__ import annotations

import difflib
import fnmatch
import functools
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from hepfaas.errors import RequestError

MOST_LENGTH = 1_000
"""Maximum length of a wildcard or regular expression, in characters."""

MOST_PATTERNS = 200
"""Wildcards and regular expressions in one list; exact names are not limited."""

MOST_WORK = 200_000_000
"""Size of a pattern times the characters of all names: at most about a second."""

_MEMORY = 2**18
"""Maximum size of a compiled regular expression, in bytes."""

_EXPRESSION = re.compile(r"/(.*)/(i?)", re.DOTALL)

T = TypeVar("T")


def is_pattern(text: str) -> bool:
    """Return whether a text is a wildcard or a regular expression, unless a branch has this name."""
    return bool(_EXPRESSION.fullmatch(text)) or any(sign in text for sign in "*?[")


def check_patterns(patterns: Sequence[str], place: str) -> None:
    """Check patterns before any name is known. Raises: RequestError naming `place`."""
    used = [pattern for pattern in patterns if is_pattern(pattern)]
    if len(used) > MOST_PATTERNS:
        raise RequestError(
            f"{place} has {len(used):,} wildcards and regular expressions; at most {MOST_PATTERNS} are allowed"
        )
    for pattern in used:
        try:
            _compiled(pattern)
        except RequestError as error:
            raise RequestError(f"{place}: {error}") from error


def matching(pattern: str, names: Sequence[str]) -> list[str]:
    """Return the names that a pattern matches as a whole, in their order. A name that equals the pattern is the only
    match. Raises: RequestError if the pattern is not valid, or matching takes too long."""
    if pattern in names:
        return [pattern]
    if not is_pattern(pattern):
        return []
    size, matches = _compiled(pattern)
    if size * sum(map(len, names)) > MOST_WORK:
        raise RequestError(
            f"pattern '{pattern[:100]}' is too complex for {len(names):,} names of branches; use a shorter one"
        )
    return [name for name in names if matches(name)]


def values_by_name(rules: Sequence[tuple[str, T]], names: Sequence[str], place: str) -> dict[str, T]:
    """Return the value of each name that a pattern matches: that of the rule with the exact name, else that of the
    first rule that matches.

    Raises: RequestError if a rule matches no name, or only names that rules before it match.
    """
    exact = set(names)
    values = {pattern: value for pattern, value in rules if pattern in exact}
    for pattern, value in rules:
        if pattern in exact:
            continue
        matches = matching(pattern, names)
        if not matches:
            raise RequestError(f"{place}: '{pattern[:100]}' matches no branch; {closest(pattern, names)}")
        new = [name for name in matches if name not in values]
        if not new and pattern != "*":
            raise RequestError(
                f"{place}: '{pattern[:100]}' has no effect, since other entries match all its branches "
                f"('{matches[0]}', …); the first pattern that matches counts, so put it before them"
            )
        values |= dict.fromkeys(new, value)
    return values


def closest(name: str, names: Sequence[str]) -> str:
    """Return a hint for a message: the names that are closest to one that does not exist, else the first names."""
    folded = {other.lower(): other for other in names if len(other) <= 200}
    close = [folded[match] for match in difflib.get_close_matches(name.lower()[:200], folded, 3, 0.6)]
    return f"closest: {', '.join(close)}" if close else f"it has: {', '.join(list(names)[:10])}"


@functools.lru_cache(maxsize=MOST_PATTERNS)
def _compiled(pattern: str) -> tuple[int, Callable[[str], bool]]:
    """Return the size of a wildcard or an expression, and whether it matches a name. Raises: RequestError."""
    if len(pattern) > MOST_LENGTH:
        raise RequestError(f"'{pattern[:50]}…' has {len(pattern):,} characters; a pattern has at most {MOST_LENGTH:,}")
    expression = _EXPRESSION.fullmatch(pattern)
    if not expression:
        wildcard = re.compile(fnmatch.translate(pattern))  # a wildcard never needs exponential time
        return len(pattern), lambda name: wildcard.fullmatch(name) is not None
    import re2  # workers without an expression save its memory

    options = re2.Options()
    options.max_mem = _MEMORY
    options.log_errors = False
    options.never_capture = True
    options.dot_nl = True
    options.case_sensitive = not expression[2]
    try:
        compiled = re2.compile(_bytes(expression[1]), options)
    except re2.error as error:
        reason = error.args[0].decode("utf-8", "replace") if error.args else "not valid"
        raise RequestError(f"'{pattern[:100]}' is not a regular expression of RE2: {reason}") from error
    return compiled.programsize, lambda name: compiled.fullmatch(_bytes(name)) is not None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
