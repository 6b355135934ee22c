"""The log and the metrics of `predict` and `predict-grpc`."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from hepfaas.serving.context import Instance
from hepfaas.serving.responses import ascii_json

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

LOG_S = 0.2
"""Lines of the log wait this long to be written together."""

MOST_HEADS = 1_000
"""Beginnings of lines in the cache: most requests are like an earlier one."""

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Log:
    """Writes a JSON line for each request to standard error. names: fields besides function, seconds and outcome."""

    def __init__(self, function: str, names: Sequence[str]) -> None:
        self._lines: list[bytes] = []
        self._head = lru_cache(MOST_HEADS)(
            lambda *values: ascii_json({"function": function, **dict(zip(names, values, strict=True))})[:-1]
        )

    def line(self, values: Iterable[Any], seconds: float, outcome: str) -> None:
        """Add a line, written a little later with others. outcome: the error, '' for a success."""
        end = b',"outcome":' + ascii_json(outcome) if outcome else b""
        self._lines.append(b'%b,"seconds":%.5f%b}\n' % (self._head(*values), seconds, end))
        if len(self._lines) == 1:
            asyncio.get_running_loop().call_later(LOG_S, self.write)

    def write(self) -> None:
        """Write the lines that wait."""
        lines, self._lines = b"".join(self._lines), []
        os.write(sys.stderr.fileno(), lines)


class Metrics:
    """Metrics for Prometheus: https://prometheus.io/docs/instrumenting/exposition_formats/.

    Requests are counted in lists of numbers; the library comes in when the metrics are read.
    """

    def __init__(self) -> None:
        self._calls: dict[tuple[str, int | str], list[float]] = {}
        self._rows: Counter[int] = Counter()
        self._instance: Instance | None = None

    @cached_property
    def registry(self) -> CollectorRegistry:
        """Registry of the library, whose import takes a tenth of a cold start."""
        from prometheus_client import CollectorRegistry

        registry = CollectorRegistry()
        registry.register(self)
        return registry

    def count(self, call: str, status: int | str, seconds: float) -> None:
        """Count a request that was answered."""
        counts = self._calls.get((call, status))
        if counts is None:
            counts = self._calls[call, status] = [0.0] * (len(SECONDS) + 2)
        counts[bisect_left(SECONDS, seconds)] += 1
        counts[-1] += seconds

    def watch(self, instance: Instance) -> None:
        """Report the batches, the queue and the loaded models of an instance too."""
        self._instance = instance
        instance.batching.computed = self._count_batch

    def text(self) -> bytes:
        """Return all metrics in version 0.0.4 of the text format."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics to the registry."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        requests = CounterMetricFamily("hepfaas_requests", "Requests answered", labels=["call", "status"])
        seconds = HistogramMetricFamily(
            "hepfaas_request_seconds", "From the first byte to the answer", labels=["call", "status"]
        )
        for (call, status), counts in list(self._calls.items()):
            labels = [call or "none", str(status)]
            requests.add_metric(labels, sum(counts[:-1]))
            seconds.add_metric(labels, _buckets(SECONDS, counts[:-1]), counts[-1])
        yield from (requests, seconds)
        rows = HistogramMetricFamily("hepfaas_batch_rows", "Rows that waited and were computed together")
        powers = range(max(self._rows, default=0) + 1)
        rows.add_metric([], _buckets([2**power for power in powers], [self._rows[power] for power in powers]), None)
        yield rows
        if self._instance:
            batching, loaded = self._instance.batching, self._instance.loaded
            yield GaugeMetricFamily("hepfaas_waiting_bytes", "Features that wait", batching.waiting_bytes)
            yield GaugeMetricFamily("hepfaas_waiting_seconds", "What these will take", batching.waiting_s)
            yield GaugeMetricFamily("hepfaas_model_loads", "Versions loaded since the start", loaded.loads)
            yield GaugeMetricFamily("hepfaas_model_bytes", "Graphs in memory", loaded.size_bytes)

    def _count_batch(self, rows: int) -> None:
        """Count a batch that was computed."""
        self._rows[(rows - 1).bit_length()] += 1


def _buckets(bounds: Sequence[float], counts: Sequence[float]) -> list[tuple[str, float]]:
    """Return cumulative counts up to each bound, and of all."""
    ends = [*(str(bound) for bound in bounds), "+Inf"]
    return list(zip(ends, itertools.accumulate([*counts, *[0.0] * (len(ends) - len(counts))]), strict=True))
