"""What a checkpoint holds beside the weights, and that it is on the disk when it is named."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from PIL import Image

from oodserve.errors import DataError, RecipeError
from tests.stages import Run, network, training
from train import checkpoint
from train.compiling import compile_backbone
from train.data import contents
from train.data.contents import content_fingerprint, refuse_unreadable
from train.data.procedural import ProceduralOutliers
from train.data.sources import ImageFiles, LabelledImages
from train.divergence import Diverged
from train.run import CHECKPOINTS
from train.stage import StageWork


def scaled(folder: Path) -> StageWork:
    """Return a stage that trains by fp16's loss scaling, which torch offers on a CPU as well."""
    work = training("standard", folder)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    precision = MixedPrecision("16-mixed", device="cpu", scaler=scaler)
    work.training.fabric = Fabric(accelerator="cpu", devices=1, plugins=[precision])
    return StageWork(work.training, work.stage)


def state(work: StageWork) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in work.training.model.state_dict().items()}


def test_the_loss_scale_goes_on_where_it_was(tmp_path: Path) -> None:
    work = scaled(tmp_path)
    steps = work.steps(0)
    next(steps)
    next(steps)
    work.save()
    found = checkpoint.load(tmp_path / CHECKPOINTS)
    assert found is not None
    # Two steps without an overflow double the scale.
    assert found.facts["scaler"]["scale"] == 2048.0
    resumed = scaled(tmp_path)
    resumed.restore(found)
    assert resumed.training.fabric.strategy.precision.state_dict() == found.facts["scaler"]


def test_fp16_trains_with_objectives_in_float32(tmp_path: Path) -> None:
    work, exact = scaled(tmp_path), training("standard", tmp_path)
    for loss, expected in zip(work.steps(0), exact.steps(0), strict=True):
        assert loss == pytest.approx(expected, abs=0.02)
    assert all(value.dtype == torch.float32 for value in work.model.parameters())


def test_bf16_and_parts_train_alike(tmp_path: Path) -> None:
    for run in (Run(precision="bf16-mixed"), Run(precision="bf16-mixed", accumulate=2)):
        losses = list(training("logit_mixoe", tmp_path, run).steps(0))
        exact = list(training("logit_mixoe", tmp_path).steps(0))
        assert losses == pytest.approx(exact, abs=0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("head.weight", torch.inf), ("backbone.1.running_var", torch.inf),
     ("backbone.4.running_mean", torch.nan)],
)  # fmt: skip
def test_weights_and_statistics_that_are_not_finite_are_not_saved(
    tmp_path: Path, name: str, value: float
) -> None:
    """The last step of an epoch may ruin them, and no loss comes after it."""
    work = training("standard", tmp_path)
    next(work.steps(0))
    with torch.no_grad():
        work.training.model.state_dict()[name].view(-1)[0] = value
    with pytest.raises(
        Diverged, match=r"a weight or a statistic is no longer finite before finetune epoch 1,"
    ):
        work.save()
    assert not (tmp_path / CHECKPOINTS).exists()


def test_a_name_appears_only_after_its_contents_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = list[str]()
    rename, fsync = Path.rename, os.fsync

    def note_rename(self: Path, target: Path) -> Path:
        events.append(f"rename {target.name}")
        return rename(self, target)

    def note_fsync(descriptor: int) -> None:
        events.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    monkeypatch.setattr(Path, "rename", note_rename)
    monkeypatch.setattr(os, "fsync", note_fsync)
    found = checkpoint.Checkpoint(tensors={"a": torch.ones(2)}, facts={})
    checkpoint.save(tmp_path, found)
    assert events == [
        "fsync state-00000001.tmp", "rename state-00000001.safetensors", f"fsync {tmp_path.name}",
        "fsync last.tmp", "rename last.json", f"fsync {tmp_path.name}",
    ]  # fmt: skip
    assert checkpoint.state_file(tmp_path) == tmp_path / "state-00000001.safetensors"
    assert checkpoint.state_file(tmp_path / "none") is None


def write_images(folder: Path, count: int) -> ImageFiles:
    folder.mkdir(parents=True)
    paths = tuple(folder / f"{number}.png" for number in range(count))
    for number, path in enumerate(paths):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(path)
    return ImageFiles(paths, (0, 0, 0))


def test_a_fingerprint_follows_names_and_contents_and_not_the_place(tmp_path: Path) -> None:
    source = write_images(tmp_path / "a", 5)
    first = content_fingerprint(source)
    assert content_fingerprint(write_images(tmp_path / "b", 5)) == first
    assert content_fingerprint(write_images(tmp_path / "c", 4)) != first
    Image.new("RGB", (4, 4), (9, 0, 0)).save(source.paths[2])
    assert content_fingerprint(source) != first
    Image.new("RGB", (4, 4), (2, 0, 0)).save(source.paths[2])
    assert content_fingerprint(source) == first
    renamed = source.paths[4].rename(source.paths[4].with_name("9.png"))
    assert content_fingerprint(ImageFiles((*source.paths[:4], renamed), (0, 0, 0))) != first
    with pytest.raises(DataError, match=r"cannot read an outlier \(.*4\.png.*\); restore or remov"):
        content_fingerprint(source)


def test_of_a_large_set_the_fingerprint_reads_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_images(tmp_path / "a", 5)
    monkeypatch.setattr(contents, "READ_IN_FULL", 3)
    first = content_fingerprint(source)
    sizes = [path.stat().st_size for path in source.paths]
    data = bytearray(source.paths[1].read_bytes())
    data[-1] ^= 1
    source.paths[1].write_bytes(data)
    assert content_fingerprint(source) == first
    source.paths[2].write_bytes(bytes(sizes[2]))
    assert content_fingerprint(source) != first


def test_drawn_pictures_are_told_apart_by_what_is_drawn() -> None:
    prints = {
        content_fingerprint(ProceduralOutliers(count=count, seed=seed, size=16))
        for count, seed in ((40, 0), (40, 1), (41, 0))
    }
    assert len(prints) == 3
    again = ProceduralOutliers(count=40, seed=0, size=16)
    assert content_fingerprint(again) in prints


def test_headers_are_looked_at_and_a_missing_file_is_named(tmp_path: Path) -> None:
    source = write_images(tmp_path / "a", 3)
    images = LabelledImages("validation", source, np.zeros(3, dtype=np.int64), ("a", "b"))
    drawn = LabelledImages(
        "test", ProceduralOutliers(2, 0, 16), np.zeros(2, dtype=np.int64), ("a", "b")
    )
    refuse_unreadable([images, drawn])
    source.paths[1].unlink()
    with pytest.raises(DataError, match=rf"cannot read `{source.paths[1]}` \(.*\); restore or rem"):
        refuse_unreadable([images])


def test_a_compiled_backbone_gives_what_it_gave(tmp_path: Path) -> None:
    model, plain = network(), network()
    images = torch.randn(4, 3, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own
        try:
            compile_backbone(model)
        except RecipeError as error:
            assert "install a C++ compiler" in str(error)  # noqa: PT017
            pytest.skip(str(error))
        found = model(images)
        torch.autograd.backward(found.square().mean())
    expected = plain(images)
    torch.autograd.backward(expected.square().mean())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for name, parameter in plain.named_parameters():
        assert parameter.grad is not None
        compiled = model.get_parameter(name).grad
        assert compiled is not None
        torch.testing.assert_close(compiled, parameter.grad, rtol=1e-3, atol=1e-5)
    assert model.state_dict().keys() == plain.state_dict().keys()
