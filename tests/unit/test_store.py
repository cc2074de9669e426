from __future__ import annotations

import threading
from pathlib import Path

import pytest

from oodserve.bundle import calibration_id
from oodserve.calibration import Calibration
from oodserve.errors import CalibrationError
from oodserve.store import CURRENT, CalibrationStore
from tests.tiny import TinyBundle


@pytest.fixture
def calibration(tiny_bundle: TinyBundle) -> Calibration:
    assert tiny_bundle.calibration is not None
    return tiny_bundle.calibration


def test_an_empty_store_has_no_current_calibration(tmp_path: Path) -> None:
    assert CalibrationStore(tmp_path / "none").current("tiny", 1) is None


def test_each_publication_is_the_next_ordinal_and_current(
    tmp_path: Path, calibration: Calibration
) -> None:
    store = CalibrationStore(tmp_path)
    first = store.publish("tiny", 1, calibration)
    refreshed = calibration.model_copy(update={"created": "2026-02-01T00:00:00Z"})
    second = store.publish("tiny", 1, refreshed)
    assert (first.ordinal, second.ordinal) == (1, 2)
    assert first.id != second.id
    assert store.current("tiny", 1) == second
    assert store.read("tiny", 1, 1).calibration == calibration
    assert first.id == calibration_id((tmp_path / "tiny" / "1" / "000001.json").read_bytes())
    assert sorted(path.name for path in (tmp_path / "tiny" / "1").iterdir()) == [
        "000001.json",
        "000002.json",
        CURRENT,
    ]


def test_an_older_one_can_be_put_in_force_again(tmp_path: Path, calibration: Calibration) -> None:
    store = CalibrationStore(tmp_path)
    first = store.publish("tiny", 1, calibration)
    store.publish("tiny", 1, calibration.model_copy(update={"created": "2026-02-01T00:00:00Z"}))
    store.activate("tiny", 1, 1)
    assert store.current("tiny", 1) == first
    with pytest.raises(CalibrationError, match="cannot read the calibration"):
        store.activate("tiny", 1, 7)


def test_of_two_publishers_one_wins(tmp_path: Path, calibration: Calibration) -> None:
    store = CalibrationStore(tmp_path)
    outcomes: list[int | str] = []
    barrier = threading.Barrier(6)

    def publish() -> None:
        barrier.wait()
        try:
            outcomes.append(store.publish("tiny", 1, calibration).ordinal)
        except CalibrationError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=publish) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [item for item in outcomes if isinstance(item, int)]
    lost = [item for item in outcomes if isinstance(item, str)]
    assert sorted(won) == store.ordinals("tiny", 1) == list(range(1, len(won) + 1))
    assert won
    assert all("took ordinal" in text for text in lost)


def test_a_damaged_pointer_is_an_error(tmp_path: Path, calibration: Calibration) -> None:
    store = CalibrationStore(tmp_path)
    store.publish("tiny", 1, calibration)
    for content, shown in ((b"latest", "'latest'"), (b"\xff\x00", "holds"), (b"", "''")):
        (tmp_path / "tiny" / "1" / CURRENT).write_bytes(content)
        with pytest.raises(CalibrationError, match=f"{shown}.*, not the ordinal"):
            store.current("tiny", 1)


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path, calibration: Calibration) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CalibrationError, match="cannot write to the calibration store"):
        CalibrationStore(tmp_path / "file").publish("tiny", 1, calibration)
