from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from oodserve.bundle import InputSpec
from oodserve.images import Preprocessing
from train.data.folders import draw_splits
from train.data.loading import BatchLoader, EndlessLoader

SPEC = InputSpec(
    preprocessing=Preprocessing(
        height=2, width=2, resize="exact", resize_height=2, resize_width=2, interpolation="nearest"
    ),
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)
sizes = st.integers(min_value=1, max_value=30)


@dataclass(frozen=True)
class Numbered:
    """Pictures whose red is their index."""

    count: int

    def __len__(self) -> int:
        return self.count

    def read(self, index: int, /) -> Image.Image:
        return Image.new("RGB", (2, 2), (index, 0, 0))


def endless(count: int, batch_size: int) -> EndlessLoader:
    return EndlessLoader(
        Numbered(count),
        input=SPEC,
        augmentation=None,
        batch_size=batch_size,
        seed=0,
        stream="outliers",
    )


@settings(max_examples=50, deadline=None)
@given(count=sizes, first=sizes, second=sizes, steps=st.integers(min_value=0, max_value=4))
def test_the_endless_stream_does_not_depend_on_how_it_is_cut(
    count: int, first: int, second: int, steps: int
) -> None:
    whole = endless(count, 1)
    pictures = torch.cat([whole.next() for _ in range(steps * first + second)])
    loader = endless(count, first)
    for step in range(steps):
        assert torch.equal(loader.next(), pictures[step * first : (step + 1) * first])
    other = endless(count, second)
    other.restore(loader.state())
    assert torch.equal(other.next(), pictures[steps * first :])


@settings(max_examples=50, deadline=None)
@given(count=sizes, batch_size=sizes, epoch=st.integers(0, 5), data=st.data())
def test_any_rest_of_an_epoch_is_its_tail(
    count: int, batch_size: int, epoch: int, data: st.DataObject
) -> None:
    loader = BatchLoader(
        Numbered(count),
        input=SPEC,
        augmentation=None,
        batch_size=batch_size,
        seed=1,
        stream="images",
        drop_last=False,
    )
    whole = [batch.images for batch in loader.epoch(epoch)]
    assert torch.equal(torch.cat(whole)[:, 0, 0, 0].mul(255).round().sort().values,
                       torch.arange(count, dtype=torch.float32))  # fmt: skip
    start = data.draw(st.integers(0, loader.steps_per_epoch))
    rest = [batch.images for batch in loader.epoch(epoch, start)]
    assert len(rest) == len(whole) - start
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[start:], strict=True))


@given(
    count=st.integers(min_value=4, max_value=60),
    fractions=st.lists(st.floats(min_value=0, max_value=0.33), min_size=3, max_size=3),
    seed=st.integers(0, 100),
)
def test_splits_lose_and_repeat_nothing(count: int, fractions: list[float], seed: int) -> None:
    files = {"ant": [Path(f"{number}.png") for number in range(count)]}
    shares = dict(zip(("validation", "calibration", "test"), fractions, strict=True))
    drawn = draw_splits(files, shares, seed=seed)
    assert sorted(path for part in drawn.values() for path in part["ant"]) == sorted(files["ant"])
    assert set(drawn) == {"train", *(name for name, share in shares.items() if share > 0)}
