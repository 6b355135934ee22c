"""A step's log keeps all that a model usually prints, and of too much output the beginning and the end."""

import io
import re
import sys

from hepfaas.learner.step_log import MAX_LINE, MAX_LOG_BYTES, StepLog, lines_of, shortened
from hypothesis import given
from hypothesis import strategies as st

KERAS = "1875/1875 ━━━━━━━━━━━━━━━━━━━━ 4s 2ms/step - accuracy: 0.9132 - loss: 0.2987 - val_accuracy: 0.9512"


def test_all_is_kept_that_keras_prints_in_five_minutes_with_verbose_1() -> None:
    log = StepLog()
    lines = [f"{number} {KERAS}" for number in range(300 * 20)]
    for line in lines:
        log.append(line)
    assert log.take() == tuple(lines)
    assert log.take() == ()


def test_of_too_much_the_beginning_and_the_end_are_kept_and_what_is_left_out_is_told() -> None:
    log = StepLog()
    lines = [f"line {number:07}" for number in range(200_000)]
    for line in lines:
        log.append(line)
    kept = log.take()
    (gap,) = (place for place, line in enumerate(kept) if line.startswith("…"))
    after = len(kept) - gap - 1
    assert kept == (*lines[:gap], kept[gap], *lines[-after:])
    report = re.fullmatch(
        r"… ([\d,]+) lines \(([\d.]+) MB\) are left out here: the log of a step keeps its first and its last 1 MB …",
        kept[gap],
    )
    assert report
    assert int(report[1].replace(",", "")) == len(lines) - len(kept) + 1
    assert 0.8 * MAX_LOG_BYTES < sum(map(sys.getsizeof, kept)) < 1.01 * MAX_LOG_BYTES


def test_a_line_that_is_too_long_for_the_log_is_shortened() -> None:
    log = StepLog()
    log.append("a" * 40_000 + "b" * 40_000)
    (line,) = log.take()
    half = MAX_LINE // 2
    assert line == "a" * half + " … 70,000 characters left out … " + "b" * half
    assert shortened("c" * MAX_LINE) == "c" * MAX_LINE


@given(st.lists(st.integers(0, 3 * MAX_LINE), max_size=5), st.booleans())
def test_lines_that_are_printed_are_the_same_lines_but_the_long_ones(lengths: list[int], ended: bool) -> None:
    lines = [b"%d" % place + b"x" * length + b"\n" for place, length in enumerate(lengths)]
    if lines and not ended:
        lines[-1] = lines[-1][:-1]
    read = list(lines_of(io.BytesIO(b"".join(lines))))
    assert len(read) == len(lines)
    half = MAX_LINE // 2
    for got, line in zip(read, lines, strict=True):
        if len(line) <= MAX_LINE:
            assert got == line
        else:
            left_out = f" … {len(line) - MAX_LINE:,} bytes left out … ".encode()
            assert got == line[:half] + left_out + line[-half:]
