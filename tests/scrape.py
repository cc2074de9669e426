"""What a Prometheus server would see: /metrics, parsed with the client library's own parser."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Scrape:
    """All samples of one scrape, by name and labels."""

    samples: dict[tuple[str, Labels], float]

    def value(self, name: str, **labels: str | None) -> float:
        """Return one sample; its labels must be given in full."""
        return self.samples[name, _labels(labels)]

    def rise(self, before: Scrape, name: str, **labels: str | None) -> float:
        """Return by how much a counter rose since an earlier scrape."""
        return self.value(name, **labels) - before.value(name, **labels)

    def named(self, name: str) -> dict[Labels, float]:
        """Return the samples of one name by their labels."""
        return {labels: value for (found, labels), value in self.samples.items() if found == name}


def scrape(base_url: str) -> Scrape:
    """Scrape a server once; a sample that appears twice is a fault of the server."""
    answer = httpx.get(f"{base_url}/metrics")
    answer.raise_for_status()
    samples: dict[tuple[str, Labels], float] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            key = (sample.name, _labels(sample.labels))
            assert key not in samples, f"{key} appears twice"
            samples[key] = sample.value
    return Scrape(samples)


def _labels(labels: dict[str, str] | dict[str, str | None]) -> Labels:
    return frozenset((name, str(value)) for name, value in labels.items())
