from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from oodserve.bundle import (
    CALIBRATION,
    GOLDEN,
    MANIFEST,
    Bundle,
    Golden,
    Manifest,
    attach_calibration,
    calibration_id,
    list_models,
    list_versions,
    open_bundle,
    read_calibration,
    write_version,
)
from oodserve.errors import BundleError, CalibrationError, NotCalibrated
from tests.tiny import CONFIG_PBTXT, TinyBundle, make_bundle, make_graph, make_manifest


def test_a_version_reads_back_as_it_was_written(tiny_bundle: TinyBundle) -> None:
    bundle = open_bundle(tiny_bundle.path)
    assert (bundle.name, bundle.version) == ("tiny", 1)
    assert bundle.manifest == Manifest.model_validate_json((bundle.path / MANIFEST).read_bytes())
    assert bundle.manifest.scores == ("energy", "msp", "max_logit")
    golden = bundle.read_golden()
    assert golden.images.dtype == np.uint8
    assert set(golden.outputs) == {"logits", "energy", "msp", "max_logit"}


def test_the_model_folder_stands_for_its_newest_version(tmp_path: Path) -> None:
    for seed in range(11):
        made = make_bundle(tmp_path / "models", seed=seed, calibrated=False)
    assert list_versions(tmp_path / "models" / "tiny") == list(range(1, 12))
    assert open_bundle(tmp_path / "models" / "tiny").path == made.path  # 11, not 9


def test_nothing_but_versions_and_config_is_left_in_the_repository(tiny_models: TinyBundle) -> None:
    make_bundle(tiny_models.repository, seed=1)
    left = sorted(path.name for path in (tiny_models.repository / "tiny").iterdir())
    assert left == ["1", "2", "config.pbtxt"]
    files = {path.name for path in tiny_models.path.iterdir()}
    assert files == {"model.onnx", MANIFEST, GOLDEN, CALIBRATION}
    beside = [path.name for path in tiny_models.repository.parent.iterdir()]
    assert beside == ["models"]


def test_a_changed_model_file_is_refused(tiny_models: TinyBundle) -> None:
    model = tiny_models.path / "model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    with pytest.raises(BundleError, match=r"has sha256 .* corrupt or half-written"):
        open_bundle(tiny_models.path).read_model()


@pytest.mark.parametrize("file", ["model.onnx", MANIFEST, GOLDEN])
def test_a_missing_file_is_a_half_written_bundle(tiny_models: TinyBundle, file: str) -> None:
    (tiny_models.path / file).unlink()
    with pytest.raises(BundleError, match=rf"half-written: `{file}` is missing"):
        open_bundle(tiny_models.path)


def test_a_manifest_with_faults_names_them(tiny_models: TinyBundle) -> None:
    path = tiny_models.path / MANIFEST
    document = json.loads(path.read_text())
    del document["input"]["preprocessing"]
    document["surprise"] = 1
    path.write_text(json.dumps(document))
    with pytest.raises(
        BundleError, match=r"missing key `input.preprocessing`; unknown key `surprise`"
    ):
        open_bundle(tiny_models.path)


def test_a_truncated_manifest_is_refused(tiny_models: TinyBundle) -> None:
    path = tiny_models.path / MANIFEST
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BundleError, match="is not a valid manifest"):
        open_bundle(tiny_models.path)


def test_a_newer_format_is_refused_by_its_number(tiny_models: TinyBundle) -> None:
    path = tiny_models.path / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 2}))
    with pytest.raises(BundleError, match="format version 2; this oodserve reads up to 1"):
        open_bundle(tiny_models.path)


def test_golden_must_hold_every_output(tiny_models: TinyBundle) -> None:
    np.savez(tiny_models.path / GOLDEN, image=np.zeros((1, 16, 16, 3), np.uint8))
    with pytest.raises(BundleError, match="does not hold at least one input `image` and exactly"):
        open_bundle(tiny_models.path).read_golden()


@pytest.mark.parametrize("content", [b"PK\x03\x04 but no archive", b"no archive", b""])
def test_golden_that_is_no_archive_is_refused(tiny_models: TinyBundle, content: bytes) -> None:
    (tiny_models.path / GOLDEN).write_bytes(content)
    with pytest.raises(BundleError, match="cannot read"):
        open_bundle(tiny_models.path).read_golden()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"default_score": "entropy"}, "`default_score` = 'entropy' is none of the scores"),
        ({"classes": ("a", "a", "b", "c")}, "class names repeat"),
        ({"classes": ("a",)}, "at least 2 items"),
        ({"outputs": ()}, "at least 2 items"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    changes: dict[str, object], text: str
) -> None:
    document = make_manifest(make_graph()).model_dump() | changes
    with pytest.raises(ValueError, match=text):
        Manifest.model_validate(document)


def test_outputs_need_one_logits_and_distinct_names() -> None:
    document = make_manifest(make_graph()).model_dump()
    with pytest.raises(ValueError, match="output names repeat"):
        Manifest.model_validate(document | {"outputs": [*document["outputs"]] * 2})
    with pytest.raises(ValueError, match="exactly one output of kind `logits`"):
        Manifest.model_validate(document | {"outputs": document["outputs"][1:]})


def test_no_bundle_no_version_and_no_number_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle at"):
        open_bundle(tmp_path / "models" / "none")
    (tmp_path / "models" / "empty").mkdir(parents=True)
    with pytest.raises(BundleError, match="holds no version"):
        open_bundle(tmp_path / "models" / "empty")
    odd = tmp_path / "models" / "odd" / "latest"
    odd.mkdir(parents=True)
    (odd / MANIFEST).write_text("{}")
    with pytest.raises(BundleError, match="the version folder must be a number"):
        open_bundle(odd)


def test_a_hash_that_is_not_the_models_is_refused_before_anything_is_written(
    tmp_path: Path, tiny_bundle: TinyBundle
) -> None:
    with pytest.raises(BundleError, match="the manifest's sha256 is not that of the model"):
        write_version(
            tmp_path / "models",
            "tiny",
            manifest=tiny_bundle.bundle.manifest,
            model=b"another",
            golden=tiny_bundle.bundle.read_golden(),
            config_pbtxt=CONFIG_PBTXT,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "7", "a b"])
def test_a_name_that_cannot_be_a_models_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="cannot name a model"):
        _write_empty(tmp_path / "models", name)
    assert list(tmp_path.iterdir()) == []


def test_a_repository_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BundleError, match="cannot make the repository"):
        _write_empty(tmp_path / "file" / "models", "tiny")


def _write_empty(repository: Path, name: str) -> None:
    model = make_graph()
    golden = Golden(images=np.zeros((1, 16, 16, 3), np.uint8), outputs={})
    manifest = make_manifest(model)
    write_version(
        repository, name, manifest=manifest, model=model, golden=golden, config_pbtxt=CONFIG_PBTXT
    )


def test_a_later_version_must_agree_with_the_config(tiny_models: TinyBundle) -> None:
    with pytest.raises(BundleError, match="describes another input or other outputs"):
        write_version(
            tiny_models.repository,
            "tiny",
            manifest=tiny_models.bundle.manifest,
            model=tiny_models.bundle.read_model(),
            golden=tiny_models.bundle.read_golden(),
            config_pbtxt=CONFIG_PBTXT.replace("16", "32"),
        )
    assert list_versions(tiny_models.repository / "tiny") == [1]


def test_of_two_writers_of_one_version_one_wins_and_both_are_told(tiny_models: TinyBundle) -> None:
    bundle = tiny_models.bundle
    outcomes: list[Path | BundleError] = []
    barrier = threading.Barrier(4)

    def write() -> None:
        barrier.wait()
        try:
            outcomes.append(
                write_version(
                    tiny_models.repository,
                    "tiny",
                    manifest=bundle.manifest,
                    model=bundle.read_model(),
                    golden=bundle.read_golden(),
                    config_pbtxt=CONFIG_PBTXT,
                )
            )
        except BundleError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = [path for path in outcomes if isinstance(path, Path)]
    versions = list_versions(tiny_models.repository / "tiny")
    assert written
    assert len(set(written)) == len(written) == len(versions) - 1
    for error in outcomes:
        if isinstance(error, BundleError):
            assert "won the race" in str(error)
    for version in versions:
        open_bundle(tiny_models.repository / "tiny" / str(version)).read_model()


def test_the_first_calibration_is_added_once(bundle_maker: object, tmp_path: Path) -> None:
    made = make_bundle(tmp_path / "models", calibrated=False)
    with pytest.raises(NotCalibrated, match=r"make one with `oodserve calibrate .*/models/tiny/1 "):
        made.bundle.read_calibration()
    other = make_bundle(tmp_path / "others")
    assert other.calibration is not None
    identity = attach_calibration(made.bundle, other.calibration)
    assert made.bundle.read_calibration() == (other.calibration, identity)
    assert identity == calibration_id((made.path / CALIBRATION).read_bytes())
    with pytest.raises(CalibrationError, match="exists already and a bundle is never changed"):
        attach_calibration(made.bundle, other.calibration)
    assert (made.path / CALIBRATION).stat().st_nlink == 1
    assert os.access(made.path / CALIBRATION, os.R_OK)


def test_a_calibration_with_faults_names_them(tiny_models: TinyBundle) -> None:
    path = tiny_models.path / CALIBRATION
    document = json.loads(path.read_text())
    document["scores"]["energy"]["tau"] = "high"
    path.write_text(json.dumps(document))
    with pytest.raises(CalibrationError, match=r"`scores.energy.tau` = 'high'"):
        read_calibration(path)
    with pytest.raises(CalibrationError, match="cannot read the calibration"):
        read_calibration(path.parent / "none.json")


def test_models_are_the_folders_of_a_repository(tiny_models: TinyBundle) -> None:
    make_bundle(tiny_models.repository, "other")
    (tiny_models.repository / ".hidden").mkdir()
    (tiny_models.repository / "README").write_text("a file")
    assert list_models(tiny_models.repository) == ["other", "tiny"]
    with pytest.raises(BundleError, match="is not a folder"):
        list_models(tiny_models.repository / "none")


def test_the_input_digest_follows_every_preprocessing_value(tiny_bundle: TinyBundle) -> None:
    manifest = tiny_bundle.bundle.manifest
    document = manifest.model_dump()
    document["input"]["preprocessing"]["interpolation"] = "bicubic"
    assert Manifest.model_validate(document).input_sha256 != manifest.input_sha256


def test_bundle_is_a_value(tiny_bundle: TinyBundle) -> None:
    assert open_bundle(tiny_bundle.path) == tiny_bundle.bundle
    assert isinstance(tiny_bundle.bundle, Bundle)


def test_a_link_keeps_its_own_name_and_version(tiny_bundle: TinyBundle, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "digits").symlink_to(tiny_bundle.path.parent)
    bundle = open_bundle(models / "digits")
    assert (bundle.name, bundle.version, bundle.path) == ("digits", 1, models / "digits" / "1")
    (models / "other").mkdir()
    (models / "other" / "7").symlink_to(tiny_bundle.path)
    assert open_bundle(models / "other").version == 7


def test_a_place_that_cannot_be_linked_to_is_explained(
    tmp_path: Path, tiny_bundle: TinyBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_bundle(tmp_path / "models", calibrated=False)
    assert tiny_bundle.calibration is not None

    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    # Two file systems cannot be had everywhere tests run.
    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(CalibrationError, match=r"Invalid cross-device link.*same file system"):
        attach_calibration(made.bundle, tiny_bundle.calibration)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models"]
