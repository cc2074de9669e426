"""Small copies of published data sets: the real files and layouts, tiny images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

CUB_CLASSES = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")
VARIANTS = ("707-320", "Boeing 717", "F/A-18")
BUTTERFLIES = ("001.Atrophaneura_horishanus", "002.Atrophaneura_varuna", "003.Byasa_alcinous")


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (9, 7)) -> Path:
    """Write noise as an image of this (width, height); the seed decides the pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    return path


def write_lines(path: Path, lines: Sequence[str], *, mark: bool = False) -> None:
    """Write a text file; `mark` puts a byte order mark before it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig" if mark else "utf-8")


def write_cub(root: Path) -> None:
    """Three classes with two training and two test images each; all numbers from 1."""
    folder = root / "CUB_200_2011"
    images = [f"{label}/{label[4:]}_{k:04d}.jpg" for label in CUB_CLASSES for k in range(4)]
    for number, name in enumerate(images):
        write_image(folder / "images" / name, number)
    count = range(1, len(images) + 1)
    write_lines(
        folder / "classes.txt", [f"{k} {name}" for k, name in enumerate(CUB_CLASSES, start=1)]
    )
    write_lines(folder / "images.txt", [f"{k} {images[k - 1]}" for k in count])
    write_lines(folder / "image_class_labels.txt", [f"{k} {(k - 1) // 4 + 1}" for k in count])
    write_lines(folder / "train_test_split.txt", [f"{k} {int((k - 1) % 4 < 2)}" for k in count])


def write_nabirds(root: Path) -> None:
    """Five nodes, two of which have images; images are named by identifiers."""
    folder = root / "nabirds"
    write_lines(
        folder / "classes.txt",
        ["0 Birds", "1 Ducks", "12 Ducks", "295 Common Eider (Adult male)", "1010 Oak Titmouse"],
    )
    entries = [("0295", "a-1", 295, 1), ("0295", "a-2", 295, 0), ("1010", "b-1", 1010, 1),
               ("1010", "b-2", 1010, 0), ("1010", "b-3", 1010, 0)]  # fmt: skip
    for number, (directory, name, _, _) in enumerate(entries):
        write_image(folder / "images" / directory / f"{name}.jpg", number)
    write_lines(folder / "images.txt", [f"{name} {d}/{name}.jpg" for d, name, _, _ in entries])
    write_lines(folder / "image_class_labels.txt", [f"{n} {label}" for _, n, label, _ in entries])
    write_lines(folder / "train_test_split.txt", [f"{n} {part}" for _, n, _, part in entries])


def write_aircraft(root: Path) -> None:
    """Three variants of two families and one manufacturer, an image each in each split."""
    folder = root / "fgvc-aircraft-2013b" / "data"
    write_lines(folder / "variants.txt", VARIANTS)
    write_lines(folder / "families.txt", ("Boeing", "F/A-18"))
    write_lines(folder / "manufacturers.txt", ("All of them",))
    levels = {"variant": VARIANTS, "family": ("Boeing", "Boeing", "F/A-18"),
              "manufacturer": ("All of them",) * 3}  # fmt: skip
    for place, part in enumerate(("train", "val", "test")):
        numbers = [f"{100 * place + k:07d}" for k in range(3)]
        for number in numbers:
            write_image(folder / "images" / f"{number}.jpg", int(number))
        for level, names in levels.items():
            pairs = zip(numbers, names, strict=True)
            write_lines(folder / f"images_{level}_{part}.txt", [f"{n} {name}" for n, name in pairs])


def write_cars(root: Path, *, labels: bool = True) -> None:
    """Two classes; images of both splits have the same names."""
    folder = root / "stanford_cars"
    names = np.array(["AM General Hummer SUV 2000", "Ram C/V Cargo Van"], dtype=object)
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    for split, path in (("train", folder / "devkit" / "cars_train_annos.mat"),
                        ("test", folder / "cars_test_annos_withlabels.mat")):  # fmt: skip
        fields = [("bbox_x1", object), ("fname", object)] + [("class", object)] * labels
        table = np.zeros(3, dtype=fields)
        for k in range(3):
            table["fname"][k] = f"{k + 1:05d}.jpg"
            if labels:
                table["class"][k] = k % 2 + 1
            write_image(folder / f"cars_{split}" / f"{k + 1:05d}.jpg", k)
        savemat(path, {"annotations": table})


def write_flowers(root: Path) -> None:
    """Two classes of four images each, counted from 1."""
    folder = root / "flowers-102"
    for k in range(1, 9):
        write_image(folder / "jpg" / f"image_{k:05d}.jpg", k)
    savemat(folder / "imagelabels.mat", {"labels": np.array([[2, 2, 2, 2, 1, 1, 1, 1]])})
    savemat(
        folder / "setid.mat",
        {"trnid": np.array([[1, 5]]), "valid": np.array([[2, 6]]),
         "tstid": np.array([[3, 4, 7, 8]])},
    )  # fmt: skip


def write_thudogs(root: Path) -> None:
    """Two breeds; the lists begin with a byte order mark."""
    names = ("200-n000008-Airedale/n1.jpg", "1043-n000001-Shiba_Dog/n2.jpg")
    for k, name in enumerate(names):
        write_image(root / "low-resolution" / name, k)
        write_image(root / "low-resolution" / name.replace(".jpg", "x.jpg"), 10 + k)
    lists = root / "TrainAndValList"
    write_lines(lists / "train.lst", [f".//{name}" for name in names], mark=True)
    write_lines(
        lists / "validation.lst", [f".//{name}".replace(".jpg", "x.jpg") for name in names],
        mark=True,
    )  # fmt: skip


def write_butterfly200(root: Path) -> None:
    """Three species of two genera; species are counted from 1."""
    folder = root / "Butterfly200"
    for place, part in enumerate(("train", "val", "test")):
        lines = []
        for k, species in enumerate(BUTTERFLIES, start=1):
            name = f"{species}/{place}.jpg"
            write_image(folder / "images_small" / name, 10 * place + k)
            lines.append(f"{name} {k} {1 + (k == 3)} 1 1")
        write_lines(folder / f"Butterfly200_{part}_release.txt", lines)


def write_waterbirds(root: Path) -> None:
    """Each of the four groups once in each split."""
    folder = root / "waterbird_complete95_forest2water2"
    lines = ["img_id,img_filename,y,split,place,place_filename"]
    for split in range(3):
        for y in range(2):
            for place in range(2):
                name = f"00{y}.Bird/bird_{split}{y}{place}.jpg"
                write_image(folder / name, len(lines))
                lines.append(f"{len(lines)},{name},{y},{split},{place},/p/x.jpg")
    write_lines(folder / "metadata.csv", lines)


def write_celeba(root: Path) -> None:
    """Six faces; rows are padded with spaces as the published ones are."""
    folder = root / "celeba"
    flags = ((1, -1), (-1, 1), (1, 1), (-1, -1), (1, -1), (-1, 1))
    lines = ["6", "Bald Blond_Hair Male "]
    for k, (blond, male) in enumerate(flags, start=1):
        write_image(folder / "img_align_celeba" / f"{k:06d}.jpg", k)
        lines.append(f"{k:06d}.jpg -1 {blond:2d} {male:2d}")
    write_lines(folder / "list_attr_celeba.txt", lines)
    write_lines(
        folder / "list_eval_partition.txt",
        [f"{k:06d}.jpg {(k - 1) // 2}" for k in range(1, 7)],
    )


def write_webvision(root: Path, *, synsets: int = 1000) -> list[str]:
    """One query for each synset and source, with an image for some; returns the synsets.

    ``synsets.txt`` is shuffled, so that its order is not that of ImageNet.
    """
    names = [f"n{10 * k + 1000000:08d}" for k in range(synsets)]
    order = np.random.default_rng(0).permutation(synsets)
    shuffled = [names[k] for k in order]
    info = root / "info"
    write_lines(info / "synsets.txt", [f"{name} a thing, another" for name in shuffled])
    lines, files = [], {"google": list[str](), "flickr": list[str]()}
    for k in range(synsets):
        for offset, source in enumerate(files):
            query = 1 + k + offset * synsets
            lines.append(f"{query} {k + 1}")
            if k % 10 == 0 or shuffled[k] in names[151:153]:
                name = f"{source}/q{query:04d}/x y_{k}.jpg"
                write_image(root / name, query, (2, 2))
                files[source].append(f"{name} {k}")
    write_lines(info / "queries_synsets_map.txt", lines)
    for source, listed in files.items():
        write_lines(info / f"train_filelist_{source}.txt", listed)
    return names


def write_cifar10(root: Path) -> np.ndarray:
    """Six files with two records each; returns the (12, 3073) records."""
    folder = root / "cifar-10-batches-bin"
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship"]
    write_lines(folder / "batches.meta.txt", [*names, "truck", ""])
    records = np.random.default_rng(0).integers(0, 256, (12, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(12) % 10
    files = [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]
    for k, name in enumerate(files):
        records[2 * k : 2 * k + 2].tofile(folder / f"{name}.bin")
    return records


def write_cifar100(root: Path) -> np.ndarray:
    """Two records in each file; returns the (4, 3074) records."""
    folder = root / "cifar-100-binary"
    write_lines(folder / "fine_label_names.txt", [f"fine_{k}" for k in range(100)])
    write_lines(folder / "coarse_label_names.txt", [f"coarse_{k}" for k in range(20)])
    records = np.random.default_rng(0).integers(0, 256, (4, 3074), dtype=np.uint8)
    records[:, 0], records[:, 1] = (1, 2, 1, 2), (50, 60, 50, 60)
    records[:2].tofile(folder / "train.bin")
    records[2:].tofile(folder / "test.bin")
    return records


def write_imagenet(root: Path) -> None:
    """Three synsets with two training images and one validation image each."""
    for k, synset in enumerate(("n01440764", "n01443537", "n02102040")):
        for j in range(2):
            write_image(root / "train" / synset / f"{synset}_{j}.JPEG", 10 * k + j)
        write_image(root / "val" / synset / f"ILSVRC2012_val_0000000{k}.JPEG", 50 + k)


LABELLED: dict[str, Callable[[Path], object]] = {
    "aircraft": write_aircraft,
    "butterfly200": write_butterfly200,
    "cars": write_cars,
    "celeba": write_celeba,
    "cifar10": write_cifar10,
    "cifar100": write_cifar100,
    "cub": write_cub,
    "flowers": write_flowers,
    "imagenet": write_imagenet,
    "nabirds": write_nabirds,
    "thudogs": write_thudogs,
    "waterbirds": write_waterbirds,
}
"""Writers of labelled sets by format."""
