"""WebVision 1.0: web images by search query, without those of chosen ImageNet classes.

An image is removed by the query that found it, and a query belongs to one synset. What an image
shows may be something else: of the classes that are removed, some images stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from oodserve.errors import DataError
from train.data.formats.imagenet_groups import DEFAULT, GROUPS
from train.data.formats.tree import (
    Format,
    ImageFile,
    Incomplete,
    Item,
    Option,
    Tree,
    integer,
    relative_name,
    rows,
)

_SYNSETS = 1000
_SOURCES = ("google", "flickr")


def read_webvision(root: Path, options: Mapping[str, str]) -> Tree:
    """Read the images whose query belongs to no removed synset.

    Synsets are counted from 1 in the order of ``synsets.txt``, queries are folders ``q0001``. The
    removed synsets are stored with the tree.

    Raises
    ------
    DataError
        A group, synset or source is unknown, or the files do not fit together.
    Incomplete
        A file is missing.
    """
    info = root / "info"
    synsets = [cells[0].split()[0] for cells in rows(info / "synsets.txt", 1)]
    removed = removed_synsets(options["remove"], synsets, info / "synsets.txt")
    sources = [name.strip() for name in options["sources"].split(",")]
    unknown = [name for name in sources if name not in _SOURCES]
    if unknown:
        raise DataError(f"the source `{unknown[0]}` is unknown; known: {', '.join(_SOURCES)}")
    kept = _kept_queries(info / "queries_synsets_map.txt", synsets, removed)
    items = tuple(item for source in sources for item in _images(root, source, kept))
    facts = {
        "removed": options["remove"],
        "removed_synsets": sorted(removed),
        "kept_queries": sum(kept.values()),
        "removed_queries": len(kept) - sum(kept.values()),
    }
    return Tree(flat=items, facts=facts)


def removed_synsets(text: str, synsets: list[str], path: Path) -> set[str]:
    """Return the synsets that a filter removes.

    Parameters
    ----------
    text : str
        Comma-separated: groups of `imagenet_groups.GROUPS`, ImageNet indices, synsets such as
        ``n02084071``, or ``@FILE`` with one of these a line; ``none`` for no filter.
    synsets : list of str
        Identifiers in the order of `path`. Groups and indices count in their sorted order and need
        all 1,000.
    path : Path
        Where they come from.

    Raises
    ------
    DataError
        A part is none of these, or there are not 1,000 synsets to count in.
    """
    removed: set[str] = set()
    ordered = sorted(synsets)
    for part in _parts(text):
        if part in GROUPS or part.isdecimal():
            indices = GROUPS[part] if part in GROUPS else {int(part)}
            if len(set(synsets)) != _SYNSETS:
                raise DataError(
                    f"`{path}` lists {len(set(synsets))} synsets, but `{part}` counts among the "
                    f"{_SYNSETS} of ImageNet; restore the file, or remove by synsets (n02084071)"
                )
            if not all(index < _SYNSETS for index in indices):
                raise DataError(f"there is no ImageNet class `{part}`; indices go from 0 to 999")
            removed |= {ordered[index] for index in indices}
        elif part in synsets:
            removed.add(part)
        elif part != "none":
            raise DataError(
                f"`{part}` is neither a group, an index nor a synset of `{path}`; "
                f"groups: {', '.join(GROUPS)}"
            )
    return removed


def _parts(text: str) -> Iterator[str]:
    for part in text.split(","):
        name = part.strip()
        if name.startswith("@"):
            try:
                yield from (cells[0].split()[0] for cells in rows(Path(name[1:]), 1))
            except Incomplete:
                raise DataError(
                    f"there is no file `{name[1:]}` to read classes to remove from"
                ) from None
        else:
            yield name


def _kept_queries(path: Path, synsets: list[str], removed: set[str]) -> dict[str, bool]:
    kept: dict[str, bool] = {}
    for query, number in rows(path, 2):
        place = integer(number, path)
        if not 1 <= place <= len(synsets):
            raise DataError(
                f"`{path}` gives query {query} the synset {place}, but `synsets.txt` has "
                f"{len(synsets)}; the files do not fit together"
            )
        kept[f"q{integer(query, path):04d}"] = synsets[place - 1] not in removed
    return kept


def _images(root: Path, source: str, kept: Mapping[str, bool]) -> Iterator[Item]:
    path = root / "info" / f"train_filelist_{source}.txt"
    for file, _ in rows(path, 2, last=True):
        name = relative_name(file)
        query = Path(name).parent.name
        if query not in kept:
            raise DataError(
                f"`{path}` names `{name}`, but `queries_synsets_map.txt` has no query `{query}`"
            )
        if kept[query]:
            yield ImageFile(name, root / name)


WEBVISION = Format(
    "WebVision 1.0",
    """\
    info/synsets.txt                        SYNSET NAMES
    info/queries_synsets_map.txt            QUERY SYNSET, both counted from 1
    info/train_filelist_google.txt, _flickr.txt     google/q0001/FILE.jpg LABEL
    google/q0001/FILE.jpg, flickr/q0001/FILE.jpg""",
    read_webvision,
    {
        "remove": Option(
            ",".join(DEFAULT), "groups, ImageNet indices, synsets or @FILE to leave out, or none"
        ),
        "sources": Option("google,flickr", "which of the two parts"),
    },
    flat=True,
)
