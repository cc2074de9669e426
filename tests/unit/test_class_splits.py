from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from oodserve.errors import DataError
from train.data.classes import (
    ClassSplit,
    choose_classes,
    class_scores,
    class_statistics,
    random_classes,
    read_ranking,
    write_ranking,
)

AIRCRAFT_HELD_OUT = {
    0: [9, 21, 36, 44, 47, 64, 67, 83, 87, 96],
    1: [1, 5, 9, 12, 16, 37, 64, 72, 75, 79],
    2: [7, 15, 22, 34, 40, 43, 49, 72, 75, 82],
}
"""Held-out classes of the published random splits, by seed."""


def numbered(count: int) -> list[str]:
    return [f"class {number}" for number in range(count)]


@pytest.mark.parametrize("seed", AIRCRAFT_HELD_OUT)
def test_the_published_random_splits_of_aircraft(seed: int) -> None:
    split = choose_classes(f"random:{seed}:90", numbered(100))
    held_out = [int(label.split()[1]) for label in split.held_out]
    assert held_out == AIRCRAFT_HELD_OUT[seed]
    assert len(split.known) == 90
    assert split.unused == ()


@pytest.mark.parametrize(
    ("pool", "count", "held_out"), [(255, 200, 55), (200, 150, 50), (196, 150, 46), (100, 90, 10)]
)
def test_counts_of_the_published_splits(pool: int, count: int, held_out: int) -> None:
    for seed in range(3):
        split = choose_classes(f"random:{seed}:{count}", numbered(pool))
        assert (len(split.known), len(split.held_out)) == (count, held_out)
        assert set(split.known) | set(split.held_out) == set(numbered(pool))
        assert list(split.known) == sorted(split.known, key=lambda name: int(name.split()[1]))


def test_the_bird_split_never_reaches_the_last_classes() -> None:
    split = choose_classes("random:0:200:255", numbered(555))
    assert split.unused == tuple(numbered(555)[255:])
    assert len(split.known) + len(split.held_out) == 255
    assert split.known == choose_classes("random:0:200", numbered(255)).known


def test_the_butterfly_split_has_a_class_that_does_not_exist() -> None:
    # Labels start at 1, but the draw is from 0 to 199: class 0 is known in all three splits.
    for seed in range(3):
        assert 0 in random_classes(200, 150, seed=seed)


def test_all_classes() -> None:
    assert choose_classes("all", ["a", "b"]) == ClassSplit(("a", "b"), (), (), "all")


def statistics() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    labels = np.arange(60) % 5
    logits = rng.normal(size=(60, 5)).astype(np.float32)
    logits[np.arange(60), labels] += labels
    return logits, labels


def test_class_scores_against_scipy() -> None:
    logits, labels = statistics()
    p = softmax(logits.astype(np.float64), axis=1)
    expected = [
        (p[labels == c].argmax(axis=1) == c).mean() - entropy(p[labels == c], axis=1).mean()
        for c in range(5)
    ]
    np.testing.assert_allclose(class_scores(logits, labels), expected, rtol=1e-12)


def test_a_class_score_by_hand() -> None:
    # Class 0: both right, p = (1/2, 1/2) once (first of equals) and (1, 0): entropy ln 2 and 0.
    # Class 1: wrong with p = (1, 0): accuracy 0, entropy 0.
    logits = np.array([[0.0, 0.0], [2000.0, 0.0], [2000.0, 0.0]])
    np.testing.assert_allclose(class_scores(logits, np.array([0, 0, 1])), [1 - np.log(2) / 2, 0])


def test_ranking_takes_the_best_and_breaks_ties_by_order(tmp_path: Path) -> None:
    path = tmp_path / "a:b.csv"
    path.write_text("class,accuracy,mean_entropy\nd,0.9,0.1\na,0.5,0\nb,1.0,0.5\nc,0.2,0.1\n")
    split = choose_classes(f"ranked:{path}:2", ["a", "b", "c", "d"])
    assert split.known == ("a", "d")
    assert split.held_out == ("b", "c")


def test_written_rankings_are_read_back(tmp_path: Path) -> None:
    logits, labels = statistics()
    path = tmp_path / "ranking.csv"
    write_ranking(path, list("abcde"), logits, labels)
    found = read_ranking(path)
    assert list(found) == list("abcde")
    np.testing.assert_allclose(list(found.values()), class_scores(logits, labels), rtol=1e-12)
    best = np.argsort(-class_scores(logits, labels))[:3]
    split = choose_classes(f"ranked:{path}:3", list("abcde"))
    assert split.known == tuple(sorted("abcde"[number] for number in best))
    with pytest.raises(DataError, match="2 class names for 5 logits"):
        write_ranking(path, ["a", "b"], logits, labels)


def test_a_list_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "known.txt"
    path.write_text("c\n\n a \n")
    split = choose_classes(f"list:{path}", ["a", "b", "c"])
    assert split == ClassSplit(("a", "c"), ("b",), (), f"list:{path}")


@pytest.mark.parametrize(
    "rule", ["", "half", "random", "random:0", "random:a:3", "random:0:2:3:4", "random:-1:2",
             "ranked:file.csv", "ranked::2", "list:"],
)  # fmt: skip
def test_unknown_rules(rule: str) -> None:
    with pytest.raises(DataError, match="is no rule for the known classes; expected random:SEED"):
        choose_classes(rule, ["a", "b", "c"])


@pytest.mark.parametrize("rule", ["random:0:4", "random:0:0", "random:0:1:4", "random:0:3:2",
                                  "random:4294967296:1"])  # fmt: skip
def test_impossible_counts(rule: str) -> None:
    with pytest.raises(DataError, match=r"expected 1 <= COUNT <= OF <= 3 and a seed below"):
        choose_classes(rule, ["a", "b", "c"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no file `.*` of class statistics"),
        ("class,accuracy\na,1\n", "has no column `mean_entropy`"),
        ("class,accuracy,mean_entropy\na,high,0\n", "line 2 of .* has a value that is no number"),
        ("class,accuracy,mean_entropy\na,1,nan\n", "line 2 of .* has a value that is no number"),
        ("class,accuracy,mean_entropy\na,1,0\na,1,0\n", "line 3 of .*or a class a second time"),
        ("class,accuracy,mean_entropy\na,1,0\n", "do not have the same classes; only .* `b`"),
    ],
)
def test_damaged_rankings(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "ranking.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=message):
        choose_classes(f"ranked:{path}:1", ["a", "b"])


def test_too_many_of_a_ranking(tmp_path: Path) -> None:
    path = tmp_path / "ranking.csv"
    path.write_text("class,accuracy,mean_entropy\na,1,0\nb,1,0\n")
    with pytest.raises(DataError, match="cannot take the best 3 of 2 classes"):
        choose_classes(f"ranked:{path}:3", ["a", "b"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no file `.*` of known classes"),
        ("a\nz\n", "names the class `z`, which the data set lacks"),
        ("\n", "names no class"),
    ],
)
def test_wrong_lists(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "known.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=message):
        choose_classes(f"list:{path}", ["a", "b"])


def test_statistics_that_cannot_be() -> None:
    logits, labels = statistics()
    with pytest.raises(DataError, match=r"logits of shape \(60, 5\) and labels of shape \(3,\)"):
        class_statistics(logits, labels[:3])
    with pytest.raises(DataError, match="class 4 has no test image"):
        class_statistics(logits[labels < 4], labels[labels < 4])
    with pytest.raises(DataError, match="there is a label outside of 0 to 4"):
        class_statistics(logits, labels + 1)
    with pytest.raises(DataError, match="logits that are not finite"):
        class_statistics(np.full_like(logits, np.nan), labels)
