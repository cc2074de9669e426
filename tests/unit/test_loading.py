from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from oodserve.bundle import InputSpec
from oodserve.errors import DataError
from oodserve.images import Preprocessing, preprocess
from train.data.augment import build_augmentation
from train.data.loading import (
    UNLABELLED,
    WHOLE,
    Batch,
    BatchLoader,
    EndlessLoader,
    Share,
    evaluation_batches,
    normalise,
)
from train.data.procedural import ProceduralOutliers
from train.data.sources import CachedImages, LabelledImages, generator, shuffled
from train.recipes import AscoodAugment, AugmentRecipe, DigitsAugment, MixoeAugment, NoAugment

PREPROCESSING = Preprocessing(
    height=8, width=12, resize="exact", resize_height=8, resize_width=12, interpolation="bilinear"
)
SPEC = InputSpec(preprocessing=PREPROCESSING, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2))
IDENTITY = SPEC.model_copy(update={"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)})
DIGITS = DigitsAugment()


@dataclass(frozen=True)
class Plain:
    """Pictures whose grey is their index."""

    count: int

    def __len__(self) -> int:
        return self.count

    def read(self, index: int, /) -> Image.Image:
        return Image.new("RGB", (16, 16), (index, index, index))


@dataclass(frozen=True)
class Broken(Plain):
    """One of them cannot be read."""

    def read(self, index: int, /) -> Image.Image:
        if index == 3:
            raise DataError("`three.png`: the image is truncated")
        return super().read(index)


def labelled(count: int) -> LabelledImages:
    labels = np.arange(count, dtype=np.int64) % 3
    source = ProceduralOutliers(count=count, seed=0, size=16)
    return LabelledImages("train", source, labels, ("a", "b", "c"))


def batches(
    *,
    workers: int = 0,
    seed: int = 0,
    stream: str = "train",
    augment: AugmentRecipe = DIGITS,
    images: LabelledImages | None = None,
    drop_last: bool = True,
    share: Share = WHOLE,
) -> BatchLoader:
    return BatchLoader(
        images or labelled(22),
        input=SPEC,
        augmentation=build_augmentation(augment, PREPROCESSING),
        batch_size=4,
        seed=seed,
        stream=stream,
        workers=workers,
        drop_last=drop_last,
        share=share,
    )


def endless(
    source: ProceduralOutliers | Plain | None = None,
    *,
    workers: int = 0,
    batch_size: int = 4,
    share: Share = WHOLE,
) -> EndlessLoader:
    return EndlessLoader(
        ProceduralOutliers(count=10, seed=0, size=16) if source is None else source,
        input=SPEC,
        augmentation=build_augmentation(DigitsAugment(), PREPROCESSING),
        batch_size=batch_size,
        seed=0,
        stream="outliers",
        workers=workers,
        share=share,
    )


def equal(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
        for a, b in zip(first, second, strict=True)
    )


def grey(images: Tensor) -> list[int]:
    return [round(value * 255) for value in images[:, 0, 0, 0].tolist()]


class TestNormalise:
    def test_by_hand(self) -> None:
        pixels = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
        mean, std = torch.tensor([0.5, 0.1, 0.0]), torch.tensor([0.5, 0.2, 2.0])
        # Red 0 lies one std below 0.5, green 0.2 half a std above 0.1, blue 1 half a std above 0.
        expected = torch.tensor([-1.0, 0.5, 0.5]).reshape(1, 3, 1, 1)
        torch.testing.assert_close(normalise(pixels, mean=mean, std=std), expected)

    def test_channels_come_first(self) -> None:
        pixels = torch.arange(2 * 4 * 5 * 3, dtype=torch.uint8).reshape(2, 4, 5, 3)
        images = normalise(pixels, mean=torch.zeros(3), std=torch.ones(3))
        assert images.shape == (2, 3, 4, 5)
        assert images.dtype == torch.float32
        assert images.is_contiguous()
        assert images[1, 2, 3, 4] * 255 == pytest.approx(int(pixels[1, 3, 4, 2]))


class TestBatchLoader:
    def test_every_image_once_with_its_label(self) -> None:
        images = LabelledImages("train", Plain(23), np.arange(23) * 2, ("a",) * 46)
        loader = BatchLoader(
            images,
            input=IDENTITY,
            augmentation=None,
            batch_size=4,
            seed=0,
            stream="train",
            drop_last=False,
        )
        assert loader.steps_per_epoch == 6
        epoch = list(loader.epoch(0))
        assert [len(batch.labels) for batch in epoch] == [4, 4, 4, 4, 4, 3]
        seen = [index for batch in epoch for index in grey(batch.images)]
        assert sorted(seen) == list(range(23))
        assert [label for batch in epoch for label in batch.labels.tolist()] == [
            2 * i for i in seen
        ]

    def test_shapes(self) -> None:
        batch = next(batches().epoch(0))
        assert (batch.images.shape, batch.images.dtype) == ((4, 3, 8, 12), torch.float32)
        assert (batch.labels.shape, batch.labels.dtype) == ((4,), torch.int64)

    def test_an_incomplete_batch_is_dropped(self) -> None:
        loader = batches()
        assert loader.steps_per_epoch == 5
        assert len(list(loader.epoch(0))) == 5

    def test_unlabelled_pictures(self) -> None:
        loader = BatchLoader(
            Plain(4), input=SPEC, augmentation=None, batch_size=4, seed=0, stream="any"
        )
        assert next(loader.epoch(0)).labels.tolist() == [UNLABELLED] * 4

    @pytest.mark.parametrize("augment", [DigitsAugment(), AscoodAugment(), NoAugment()])
    def test_workers_do_not_change_a_bit(self, augment: AugmentRecipe) -> None:
        alone = list(batches(augment=augment).epoch(3))
        assert equal(alone, list(batches(augment=augment, workers=2).epoch(3)))

    @pytest.mark.parametrize("start_step", [1, 4, 5])
    @pytest.mark.parametrize("workers", [0, 1])
    def test_the_rest_of_an_epoch_is_its_tail(self, start_step: int, workers: int) -> None:
        whole = list(batches().epoch(2))
        assert equal(list(batches(workers=workers).epoch(2, start_step)), whole[start_step:])

    def test_an_epoch_does_not_depend_on_earlier_ones(self) -> None:
        loader = batches()
        list(loader.epoch(0))
        next(loader.epoch(1))
        assert equal(list(loader.epoch(1)), list(batches().epoch(1)))

    @pytest.mark.parametrize("augment", [DigitsAugment(), AscoodAugment(where="device")])
    def test_processes_share_each_batch_in_contiguous_slices(self, augment: AugmentRecipe) -> None:
        whole = list(batches(augment=augment).epoch(1, 2))
        parts = [
            list(batches(augment=augment, share=Share(rank, 2)).epoch(1, 2)) for rank in (0, 1)
        ]
        joined = [
            Batch(torch.cat([a.images, b.images]), torch.cat([a.labels, b.labels]))
            for a, b in zip(*parts, strict=True)
        ]
        assert equal(joined, whole)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_reading_goes_on_into_the_next_epoch(self, workers: int) -> None:
        loader = batches(workers=workers)
        for epoch in range(3):
            assert equal(list(loader.epoch(epoch)), list(batches().epoch(epoch)))
        loader.close()
        assert equal(list(loader.epoch(3)), list(batches().epoch(3)))

    @pytest.mark.parametrize(
        "augment", [AscoodAugment(where="device"), MixoeAugment(resize=20, where="device")]
    )
    def test_workers_do_not_change_what_the_device_augments(self, augment: AugmentRecipe) -> None:
        alone = list(batches(augment=augment).epoch(3))
        assert equal(alone, list(batches(augment=augment, workers=1).epoch(3)))
        assert alone[0].images.shape == (4, 3, 8, 12)

    def test_epochs_seeds_and_streams_differ(self) -> None:
        first = list(batches().epoch(0))
        for other in (batches().epoch(1), batches(seed=1).epoch(0), batches(stream="b").epoch(0)):
            assert not equal(first, list(other))

    def test_a_picture_is_augmented_anew_in_each_epoch(self) -> None:
        images = LabelledImages(
            "train", ProceduralOutliers(1, 0, 16), np.zeros(1, dtype=np.int64), ("a", "b")
        )
        loader = BatchLoader(
            images,
            input=SPEC,
            augmentation=build_augmentation(DigitsAugment(), PREPROCESSING),
            batch_size=1,
            seed=0,
            stream="train",
        )
        first, second = (next(loader.epoch(epoch)).images for epoch in (0, 1))
        assert not torch.equal(first, second)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_the_global_generators_are_left_alone(self, workers: int) -> None:
        torch_state = torch.get_rng_state()
        list(batches(workers=workers, augment=AscoodAugment()).epoch(0))
        assert torch.equal(torch.get_rng_state(), torch_state)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_picture_that_cannot_be_read_is_an_error(self, workers: int) -> None:
        images = LabelledImages("train", Broken(8), np.zeros(8, dtype=np.int64), ("a", "b"))
        with pytest.raises(DataError, match=r"^`three\.png`: the image is truncated$"):
            list(batches(images=images, workers=workers).epoch(0))

    def test_too_few_images_for_a_batch(self) -> None:
        with pytest.raises(DataError, match=r"3 images make no batch of 4; lower the batch size"):
            batches(images=labelled(3))


class TestEndlessLoader:
    def test_each_pass_has_every_picture_once(self) -> None:
        loader = EndlessLoader(
            Plain(10), input=IDENTITY, augmentation=None, batch_size=4, seed=0, stream="outliers"
        )
        seen = [index for _ in range(10) for index in grey(loader.next())]
        passes = [seen[start : start + 10] for start in range(0, 40, 10)]
        assert all(sorted(one) == list(range(10)) for one in passes)
        assert len({tuple(one) for one in passes}) == 4

    def test_a_batch_larger_than_the_source_is_full(self) -> None:
        loader = EndlessLoader(
            Plain(3), input=IDENTITY, augmentation=None, batch_size=7, seed=0, stream="outliers"
        )
        assert Counter(grey(loader.next())) in [
            Counter({one: 3, two: 2, three: 2})
            for one, two, three in ((0, 1, 2), (1, 0, 2), (2, 0, 1))
        ]

    def test_workers_do_not_change_a_bit(self) -> None:
        alone, helped = endless(), endless(workers=2)
        for _ in range(7):
            assert torch.equal(alone.next(), helped.next())

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("steps", [0, 1, 5])
    def test_restoring_continues_identically(self, steps: int, workers: int) -> None:
        loader = endless(workers=workers)
        for _ in range(steps):
            loader.next()
        state = loader.state()
        expected = [loader.next() for _ in range(6)]
        for other in (endless(workers=workers), loader):
            other.restore(state)
            assert other.state() == state
            assert all(torch.equal(other.next(), batch) for batch in expected)

    def test_another_source_is_refused(self) -> None:
        state = endless().state()
        with pytest.raises(DataError, match=r"set has 11 images, but had 10 when the checkpoint"):
            endless(Plain(11)).restore(state)

    def test_another_source_of_the_same_size_is_refused(self) -> None:
        state = endless().state()
        other = ProceduralOutliers(count=10, seed=1, size=16)
        with pytest.raises(DataError, match=r"other images than when .*, though as many; restore"):
            endless(other).restore(state)
        # An earlier version's checkpoint knows the size alone.
        endless(other).restore({"position": 4, "source_size": 10})

    def test_processes_share_each_batch_in_contiguous_slices(self) -> None:
        whole, first, second = endless(), endless(share=Share(0, 2)), endless(share=Share(1, 2))
        for _ in range(7):
            assert torch.equal(torch.cat([first.next(), second.next()]), whole.next())
        assert first.state() == second.state() == whole.state()

    def test_an_empty_source_is_refused(self) -> None:
        with pytest.raises(DataError, match=r"no outlier images to draw from; set `data\."):
            endless(Plain(0))


class TestEvaluation:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_pixels_are_those_that_are_served(self, workers: int) -> None:
        images = labelled(7)
        found = list(evaluation_batches(images, input=SPEC, batch_size=3, workers=workers))
        assert [len(batch.labels) for batch in found] == [3, 3, 1]
        assert torch.cat([batch.labels for batch in found]).tolist() == images.labels.tolist()
        pixels = np.stack([preprocess(images.source.read(i), PREPROCESSING) for i in range(7)])
        expected = (pixels / 255 - np.array(SPEC.mean)) / np.array(SPEC.std)
        got = torch.cat([batch.images for batch in found]).numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(got, expected, atol=1e-5)

    def test_nothing_yields_nothing(self) -> None:
        assert list(evaluation_batches(Plain(0), input=SPEC, batch_size=3)) == []


class TestSources:
    def test_a_cache_reads_once_within_its_budget(self) -> None:
        reads: Counter[int] = Counter()

        class Counting(Plain):
            def read(self, index: int, /) -> Image.Image:
                reads[index] += 1
                return super().read(index)

        cached = CachedImages(Counting(5), budget_bytes=2 * 3 * 16 * 16)
        for _ in range(3):
            assert [cached.read(index).getpixel((0, 0)) for index in range(5)] == [
                (index, index, index) for index in range(5)
            ]
        assert reads == {0: 1, 1: 1, 2: 3, 3: 3, 4: 3}

    def test_labels_must_fit(self) -> None:
        with pytest.raises(
            ValueError, match=r"train: `labels` is int64 \(2,\), expected int64 \(3,\)"
        ):
            LabelledImages("train", Plain(3), np.zeros(2, dtype=np.int64), ("a",))

    def test_streams_and_places_are_independent(self) -> None:
        generators = [
            generator(0, "a", 0),
            generator(0, "a", 1),
            generator(0, "b", 0),
            generator(1, "a", 0),
            generator(0, "a", 0, 1),
        ]
        draws = {int(one.integers(2**63)) for one in generators}
        assert len(draws) == 5

    def test_the_streams_of_runs_that_were_begun_earlier(self) -> None:
        # Where these differ, a run that was begun before does not resume to the same bits.
        assert list(shuffled(8, seed=0, stream="images", number=2)) == [5, 7, 4, 6, 0, 3, 1, 2]
        draws = generator(1, "images/augment", 2, 3).integers(1000, size=4)
        assert draws.tolist() == [391, 868, 607, 601]
