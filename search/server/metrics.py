"""Figures for Prometheus, under the names that text-embeddings-inference has for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

_SECONDS = tuple(0.0001 * 2**step for step in range(20))
_POWERS = tuple(float(2**step) for step in range(17))


class Counters(Collector):
    """Numbers that only grow, by name and one label.

    The library's own counter ends every name in `_total`, which text-embeddings-inference does not.
    """

    _NAMES = (
        ("te_request_count", "method", "requests that asked for vectors"),
        ("te_request_success", "method", "requests that got them"),
        ("te_request_failure", "err", "requests that did not, by error"),
        ("te_embed_count", "", "texts read"),
        ("te_embed_success", "", "texts that got a vector"),
    )

    def __init__(self) -> None:
        self.values: Counter[tuple[str, str]] = Counter()

    def add(self, name: str, label: str = "", amount: int = 1) -> None:
        """Count `amount` more."""
        self.values[name, label] += amount

    def collect(self) -> Iterator[Metric]:
        """What the registry asks for."""
        for name, label, says in self._NAMES:
            metric = Metric(name, says, "unknown")
            for (counted, value), amount in list(self.values.items()):
                if counted == name:
                    metric.add_sample(name, {label: value} if label else {}, float(amount))
            yield metric


class Metrics:
    """What one server counts."""

    def __init__(self) -> None:
        self.registry, self.counters = CollectorRegistry(), Counters()
        self.registry.register(self.counters)
        self.waiting = Gauge("te_queue_size", "texts that wait for the encoder", registry=self.registry)
        self._total = self._histogram("te_request_duration", "seconds from request to answer", _SECONDS)
        self._tokenized = self._histogram("te_request_tokenization_duration", "seconds to tokenise", _SECONDS)
        self._waited = self._histogram("te_request_queue_duration", "seconds in the queue", _SECONDS)
        self._computed = self._histogram("te_request_inference_duration", "seconds with the encoder", _SECONDS)
        self._lengths = self._histogram("te_request_input_length", "tokens of a text", _POWERS)
        self._sizes = self._histogram("te_batch_next_size", "texts of a batch", _POWERS)
        self._tokens = self._histogram("te_batch_next_tokens", "tokens of a batch", _POWERS)

    def batch(self, texts: int, tokens: int) -> None:
        """Note what the encoder is given at once."""
        if texts:
            self._sizes.observe(texts)
            self._tokens.observe(tokens)

    def lengths(self, tokens: list[int]) -> None:
        """Note the texts of one request."""
        self.counters.add("te_embed_count", amount=len(tokens))
        for count in tokens:
            self._lengths.observe(count)

    def answered(self, texts: int, total: float, tokenized: float, waited: float, computed: float) -> None:
        """Note an answer and the seconds that went into it."""
        self.counters.add("te_embed_success", amount=texts)
        for histogram, seconds in (
            (self._total, total),
            (self._tokenized, tokenized),
            (self._waited, waited),
            (self._computed, computed),
        ):
            histogram.observe(seconds)

    def text(self) -> bytes:
        """All of it, in the text format of Prometheus."""
        return generate_latest(self.registry)

    def _histogram(self, name: str, says: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, says, buckets=buckets, registry=self.registry)
