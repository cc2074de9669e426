"""What holds for every draw of a mixture, whatever the sizes."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.methods.mixing import (
    MixingSettings,
    Operation,
    Sharing,
    draw_mixture,
    mix_images,
    mix_rows,
    soft_targets,
)

sizes = st.tuples(st.integers(1, 4), st.just(3), st.integers(1, 9), st.integers(1, 9))
alphas = st.sampled_from([0.01, 0.3, 1.0, 10.0])
seeds = st.integers(0, 2**32 - 1)


def choose(alpha: float, operation: Operation, sharing: Sharing) -> MixingSettings:
    return MixingSettings(mix_alpha=alpha, operation=operation, lam_per=sharing)


@settings(deadline=None)
@given(
    sizes, alphas, st.sampled_from(["mixup", "cutmix"]), st.sampled_from(["batch", "sample"]), seeds
)
def test_a_mixture_has_one_coefficient_per_image_and_is_its_seeds(
    shape: tuple[int, int, int, int],
    alpha: float,
    operation: Operation,
    sharing: Sharing,
    seed: int,
) -> None:
    chosen = choose(alpha, operation, sharing)
    mixture = draw_mixture(np.random.default_rng(seed), shape, settings=chosen)
    again = draw_mixture(np.random.default_rng(seed), shape, settings=chosen)
    assert mixture.lam.shape == (shape[0],)
    assert np.array_equal(mixture.lam, again.lam)
    assert mixture.boxes == again.boxes
    assert bool(((mixture.lam >= 0) & (mixture.lam <= 1)).all())
    if sharing == "batch":
        assert len(set(mixture.lam.tolist())) == 1


@settings(deadline=None)
@given(sizes, alphas, st.sampled_from(["batch", "sample"]), seeds)
def test_cutmix_weighs_labels_by_the_pixels_that_are_left(
    shape: tuple[int, int, int, int], alpha: float, sharing: Sharing, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    mixture = draw_mixture(rng, shape, settings=choose(alpha, "cutmix", sharing))
    mixed = mix_images(torch.zeros(shape), torch.ones(shape), mixture)
    assert set(mixed.flatten().tolist()) <= {0.0, 1.0}
    pasted = mixed.mean(dim=(1, 2, 3), dtype=torch.float64).numpy()
    np.testing.assert_allclose(mixture.lam, 1 - pasted, atol=1e-12)
    # One rectangle, through all channels: as many pixels as its rows times its columns.
    for image in mixed:
        rows, columns = image[0].amax(dim=1).sum(), image[0].amax(dim=0).sum()
        assert float(image[0].sum()) == float(rows * columns)
        assert torch.equal(image[0], image[1])
        assert torch.equal(image[0], image[2])


@settings(deadline=None)
@given(sizes, alphas, st.sampled_from(["mixup", "cutmix"]), st.integers(1, 12), seeds)
def test_soft_targets_are_distributions_that_favour_the_label(
    shape: tuple[int, int, int, int], alpha: float, operation: Operation, n_classes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    mixture = draw_mixture(rng, shape, settings=choose(alpha, operation, "sample"))
    labels = torch.from_numpy(rng.integers(n_classes, size=shape[0]))
    targets = soft_targets(labels, mixture, like=torch.zeros(shape[0], n_classes))
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(shape[0]))
    assert float(targets.min()) >= 0
    assert torch.equal(targets.gather(1, labels[:, None])[:, 0], targets.amax(dim=1))


@settings(deadline=None)
@given(sizes, alphas, seeds)
def test_mixup_stays_between_its_parts_and_leaves_them_alone(
    shape: tuple[int, int, int, int], alpha: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    mixture = draw_mixture(rng, shape, settings=choose(alpha, "mixup", "sample"))
    images, outliers = (torch.from_numpy(rng.normal(size=shape)) for _ in range(2))
    parts = images.clone(), outliers.clone()
    mixed = mix_images(images, outliers, mixture)
    assert torch.equal(images, parts[0])
    assert torch.equal(outliers, parts[1])
    slack = 1e-12
    assert bool((mixed <= torch.maximum(images, outliers) + slack).all())
    assert bool((mixed >= torch.minimum(images, outliers) - slack).all())
    torch.testing.assert_close(mix_rows(images, images, mixture), images)
