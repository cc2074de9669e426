"""Steps that several processes share, or that are taken in parts, are those of one whole batch."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from oodserve.errors import RecipeError
from tests.stages import CASES, WHOLE, Run, network, start, training, weights
from tests.training import write_recipe, write_tree
from train.distributed import (
    Launch,
    freeze_batch_norm,
    launched,
    norm_statistics,
    refuse_uneven,
    start_fabric,
)
from train.draw import Draw
from train.methods.method import Method, TrainingBatch
from train.methods.standard import StandardSettings
from train.recipes import load_recipe
from train.run import CARD, CHECKPOINTS, METRICS, PRETRAINED, WEIGHTS

ROOT = Path(__file__).parents[2]

# Several processes at once take their time on a machine that is busy.
pytestmark = pytest.mark.timeout(300)


def torchrun(*arguments: object) -> subprocess.Popen[str]:
    """Start two processes on this machine's CPU."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               "--nproc-per-node", "2", *map(str, arguments)]  # fmt: skip
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 0, output
    return output


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-5, atol=1e-5), name


def assert_same_steps(
    found: dict[str, Tensor], expected: dict[str, Tensor], before: dict[str, Tensor]
) -> None:
    """Compare also how far each tensor moved: a wrong gradient may be a small part of a weight."""
    assert_close(found, expected)
    moved = 0
    for name, value in before.items():
        if value.is_floating_point():
            change, error = expected[name] - value, found[name] - expected[name]
            assert float(error.norm()) <= 1e-2 * float(change.norm()) + 1e-6, name
            moved += bool(change.norm() > 1e-3)
    assert moved > 3


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with what two processes made of each case."""
    folder = tmp_path_factory.mktemp("together")
    finish(torchrun("-m", "tests.stages", folder))
    return folder


@pytest.mark.parametrize("title", CASES)
def test_two_processes_take_the_steps_of_one(title: str, together: Path, tmp_path: Path) -> None:
    before, alone = start(title, tmp_path), weights(title, tmp_path)
    assert_same_steps(load_file(together / f"{title}.safetensors"), alone, before)


@pytest.mark.parametrize("title", [title for title in CASES if title not in WHOLE])
def test_accumulating_takes_the_steps_of_the_whole_batch(title: str, tmp_path: Path) -> None:
    before, alone = start(title, tmp_path), weights(title, tmp_path)
    assert_same_steps(weights(title, tmp_path, Run(accumulate=4)), alone, before)


def test_two_processes_that_accumulate(together: Path, tmp_path: Path) -> None:
    assert_close(load_file(together / "mixup, parts.safetensors"), weights("mixup", tmp_path))


def test_batch_norm_in_training_averages_the_statistics_of_the_processes(
    together: Path, tmp_path: Path
) -> None:
    """Each process normalises by its own rows: not what one process does, but the same for both."""
    found = load_file(together / "standard, train.safetensors")
    alone = weights("standard", tmp_path, Run(batch_norm="train"))
    mean = "backbone.1.running_mean"
    # The mean of equal parts' means is the mean of all; only the first layer sees equal inputs,
    # and its weights begin to differ after the first step.
    torch.testing.assert_close(found[mean], alone[mean], rtol=0.05, atol=0.02)
    assert not torch.equal(found["head.weight"], alone["head.weight"])
    assert not torch.equal(found[mean], network().state_dict()[mean])


def test_frozen_batch_norm_keeps_its_statistics_and_learns_its_scale(tmp_path: Path) -> None:
    before, after = network().state_dict(), weights("standard", tmp_path)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(before[f"backbone.1.{name}"], after[f"backbone.1.{name}"])
    assert not torch.equal(before["backbone.1.weight"], after["backbone.1.weight"])


def test_freezing_reaches_batch_norm_alone() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(), nn.BatchNorm1d(3)).train()
    freeze_batch_norm(model)
    assert [module.training for module in model] == [False, True, False]
    assert len(norm_statistics(model)) == 4
    assert norm_statistics(nn.BatchNorm2d(2, track_running_stats=False)) == []


class Doubling(Method):
    """Compares what it computed across the batch, which a part of it cannot."""

    def objective(self, model: nn.Module, batch: TrainingBatch, draw: Draw) -> dict[str, Tensor]:
        return {"loss": model(draw.gather(2 * batch.images)).square().mean()}


def test_a_method_that_needs_the_whole_batch_cannot_accumulate(tmp_path: Path) -> None:
    work = training("standard", tmp_path, Run(accumulate=2))
    object.__setattr__(work.stage, "method", Doubling(StandardSettings()))
    with pytest.raises(RecipeError, match=r"`accumulate` = 2 divides the batch, but the method"):
        next(work.steps(0))


def test_draws_go_on_after_the_parts_of_a_step_as_after_a_whole_one(tmp_path: Path) -> None:
    states = []
    for accumulate in (1, 4):
        work = training("mixoe, cutmix per sample", tmp_path, Run(accumulate=accumulate))
        next(work.steps(0))
        states.append(work.training.rng.bit_generator.state)
    assert states[0] == states[1]


def test_steps_log_how_far_synthesised_outliers_are_from_their_images(tmp_path: Path) -> None:
    found = weights("mixoe, synthesised, permuted", tmp_path)
    mean, largest = found["term.perturbation_mean"], found["term.perturbation_max"]
    assert 0 < float(mean) < float(largest)
    assert not any("perturbation" in name for name in weights("mixoe", tmp_path))


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    refuse_uneven("finetune.batch_size", 12, processes=3, accumulate=2)
    refuse_uneven("finetune.outlier_batch_size", 0, processes=3, accumulate=2)
    message = r"`finetune\.batch_size` = 8 cannot be divided among 3 processes x 2 micro-batches; "
    with pytest.raises(RecipeError, match=message + "take a multiple of 6, such as 6"):
        refuse_uneven("finetune.batch_size", 8, processes=3, accumulate=2)
    with pytest.raises(RecipeError, match="such as 4"):
        refuse_uneven("finetune.batch_size", 2, processes=4, accumulate=1)


def test_the_launcher_says_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched() == Launch(rank=0, processes=1, local_processes=1)
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("RANK", "3"), ("WORLD_SIZE", "8"),
                        ("LOCAL_WORLD_SIZE", "4")):  # fmt: skip
        monkeypatch.setenv(name, value)
    assert launched() == Launch(rank=3, processes=8, local_processes=4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(RecipeError, match=r"4 processes were started for 2 GPUs; give torchrun"):
        start_fabric(accelerator="auto", precision="32-true")


def test_a_killed_run_of_two_processes_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Batch normalisation trains here: what each process knows by itself must survive as well."""
    path = write_recipe(tmp_path / "tiny.toml", write_tree(tmp_path / "data"))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    processes = {
        folder: torchrun("-m", "train", "fit", path, "--to", folder) for folder in (whole, killed)
    }
    end = time.monotonic() + 200
    while not (killed / CHECKPOINTS / "last.json").exists():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)
    for pid in [*_children(processes[killed].pid), processes[killed].pid]:
        os.kill(pid, signal.SIGKILL)
    processes[killed].communicate(timeout=60)
    assert not (killed / CARD).exists()
    finish(processes[whole])
    output = finish(torchrun("-m", "train", "resume", killed))
    assert output.count("finished:") == 1
    assert len(re.findall(r"finetune 2/2 ", output)) == 1
    for name in (WEIGHTS, PRETRAINED, CARD):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert len((killed / METRICS).read_text().splitlines()) == 4


def test_a_batch_that_the_parts_cannot_share_is_refused_by_the_recipe(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "tiny.toml", tmp_path)
    with pytest.raises(RecipeError, match=r"`batch_size` = 8 cannot be divided into `accumulate`"):
        load_recipe(path, ["finetune.accumulate=3"])


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
