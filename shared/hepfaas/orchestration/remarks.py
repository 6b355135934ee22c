"""Tags and notes that people give runs. Nothing is overwritten: a change of a tag and a note are objects of their own.

runs/<run>/notes/tags/<tag>/<k>         the k-th change of a tag: the run has it after an odd number of changes
runs/<run>/notes/texts/<time>-<hash>    a note: when it was written, by whom, and its text
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from hepfaas.errors import ForbiddenError, RequestError
from hepfaas.platform.clock import utc
from hepfaas.platform.storage import Store

MOST_TAGS = 20
MOST_CHANGES = 200
"""Most changes of all tags of a run."""

MOST_NOTES = 200
MOST_CHARACTERS = 4_000
"""Maximum length of one note."""

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}")


@dataclass(frozen=True)
class Note:
    """A note on a run: when it was written (seconds since 1970), its text, and the name of its author if it is
    known."""

    time: float
    text: str
    by: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the note as JSON values, its time as ISO 8601."""
        return {"time": utc(self.time), "text": self.text, **({"by": self.by} if self.by else {})}


@dataclass(frozen=True)
class Remarks:
    """The tags of a run, sorted, the number of changes of each tag that it has or had, and the keys of its notes, the
    oldest first."""

    tags: tuple[str, ...] = ()
    changes: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()


def remarks_of(store: Store, run: str) -> Remarks:
    """Return the tags and the keys of the notes of a run, by one listing."""
    prefix = f"runs/{run}/notes/"
    changes: Counter[str] = Counter()
    notes = []
    for key in store.keys(prefix):
        kind, _, rest = key.removeprefix(prefix).partition("/")
        if kind == "tags":
            tag, _, number = rest.partition("/")
            changes[tag] = max(changes[tag], int(number))
        else:
            notes.append(key)
    tags = sorted(tag for tag, number in changes.items() if number % 2)
    return Remarks(tuple(tags), tuple(sorted(changes.items())), tuple(sorted(notes)))


def tags_of(store: Store, run: str) -> tuple[str, ...]:
    """Return the tags of a run, sorted."""
    return remarks_of(store, run).tags


def notes_of(store: Store, run: str) -> list[Note]:
    """Return the notes of a run, oldest first."""
    return [note_at(store, key) for key in remarks_of(store, run).notes]


def note_at(store: Store, key: str) -> Note:
    """Return the note under one of the keys of `remarks_of`."""
    return Note(**json.loads(store.get(key)))


def check_tags(tags: Iterable[str]) -> None:
    """Check the form of tags. Raises: RequestError."""
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise RequestError(
                f"'{tag[:60]}' cannot be a tag: use up to 50 letters, digits, '.', '_' and '-', with a letter or digit "
                "first"
            )


def tag(store: Store, run: str, tags: Iterable[str]) -> tuple[str, ...]:
    """Give a run tags and return all that it has. Raises: RequestError; ForbiddenError if it has too many."""
    wanted = dict.fromkeys(tags)
    check_tags(wanted)
    known = remarks_of(store, run)
    missing = [tag for tag in wanted if tag not in known.tags]
    if len(known.tags) + len(missing) > MOST_TAGS:
        raise ForbiddenError(
            f"run '{run}' would have more than {MOST_TAGS} tags; remove some of: {_listed(known.tags)}"
        )
    _change(store, run, missing, known)
    return tags_of(store, run)


def untag(store: Store, run: str, tags: Iterable[str]) -> tuple[str, ...]:
    """Remove tags of a run and return those that are left. Raises: RequestError if it does not have one of them."""
    wanted = dict.fromkeys(tags)
    known = remarks_of(store, run)
    for tag in wanted:
        if tag not in known.tags:
            raise RequestError(f"run '{run}' has no tag '{tag[:60]}'; it has: {_listed(known.tags)}")
    _change(store, run, wanted, known)
    return tags_of(store, run)


def note(store: Store, run: str, written: Note) -> Note:
    """Add a note to a run and return it; a note of the same author and text that the run has already is kept instead,
    so that a request may be repeated. Raises: RequestError; ForbiddenError if the run has too many."""
    text = written.text.strip()
    if not text or len(text) > MOST_CHARACTERS:
        raise RequestError(f"a note has {len(text):,} characters; it takes 1 to {MOST_CHARACTERS:,}")
    digest = hashlib.sha256(json.dumps([text, written.by]).encode()).hexdigest()[:20]
    notes = remarks_of(store, run).notes
    for key in notes:
        if key.endswith(f"-{digest}"):
            return note_at(store, key)
    if len(notes) >= MOST_NOTES:
        raise ForbiddenError(f"run '{run}' has {MOST_NOTES} notes, which is the limit")
    kept = replace(written, text=text)
    data = json.dumps(asdict(kept)).encode()
    store.create(f"runs/{run}/notes/texts/{int(written.time * 1e6):017d}-{digest}", data)
    return kept


def _change(store: Store, run: str, tags: Iterable[str], known: Remarks) -> None:
    """Store the next change of each tag. If another process has stored the same one, it has made the same change."""
    numbers = dict(known.changes)
    tags = list(tags)
    if sum(numbers.values()) + len(tags) > MOST_CHANGES:
        raise ForbiddenError(f"the tags of run '{run}' were changed {MOST_CHANGES} times, which is the limit")
    for tag in tags:
        store.create(f"runs/{run}/notes/tags/{tag}/{numbers.get(tag, 0) + 1}", b"")


def _listed(tags: Iterable[str]) -> str:
    return ", ".join(tags) or "none"
