"""`python -m train methods` and `python -m train scores`: what there is, with its knobs."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from rich.console import Console

from oodserve.errors import RecipeError
from train.methods.registry import METHODS
from train.methods.synthesis.settings import SynthesisSettings
from train.scorers.registry import SCORERS

SYNTHESIS = (
    "How outliers are made from each batch where `data.outliers` is `synthesised`; "
    "`ascood` has the same keys in `[method]`."
)


@dataclass(frozen=True)
class Entry:
    """A method or a score."""

    name: str
    summary: str
    source: str
    remark: str
    settings: type[BaseModel]

    def knobs(self) -> Iterator[tuple[str, str, str]]:
        """Yield name, default as TOML, and meaning of each knob."""
        for name, field in self.settings.model_fields.items():
            if name == "name":
                continue
            default = field.get_default(call_default_factory=True)
            if isinstance(default, tuple):
                default = list(default)
            shown = "none" if default is None else json.dumps(default)
            yield name, shown, " ".join((field.description or "").split())


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both commands."""
    for what, entries in (("methods", method_entries), ("scores", score_entries)):
        parser = commands.add_parser(
            what, help=f"list the {what} that there are, with their sources and knobs"
        )
        parser.add_argument(
            "name", nargs="?", metavar="NAME", help="this one alone, with all of its knobs"
        )
        parser.add_argument(
            "--markdown", action="store_true", help="print the reference page instead"
        )
        parser.set_defaults(run=_list, entries=entries, what=what)


def method_entries() -> dict[str, Entry]:
    """Return the methods by name."""
    return {
        name: Entry(
            name,
            _summary(registration.settings),
            registration.settings.source,
            "trains with outliers" if registration.settings.needs_outliers else "",
            registration.settings,
        )
        for name, registration in METHODS.items()
    }


def score_entries() -> dict[str, Entry]:
    """Return the scores by name."""
    return {
        name: Entry(
            name,
            _summary(registration.build),
            str(getattr(registration.build, "source", "")),
            "fitted on the training images" if registration.build.needs_fit else "",
            registration.settings,
        )
        for name, registration in SCORERS.items()
    }


def reference_page(what: str, entries: Mapping[str, Entry]) -> str:
    """Return the Markdown page that documents all of them."""
    table = "[method]" if what == "methods" else "[scorers.NAME]"
    lines = [
        f"# {what.capitalize()}",
        "",
        f"What `python -m train {what}` lists. The knobs are keys of a recipe's `{table}` table.",
        "This page is made from the code by:",
        "",
        f"    python -m train {what} --markdown > docs/reference/{what}.md",
    ]
    for entry in entries.values():
        facts = ". ".join(part for part in (entry.source, entry.remark.capitalize()) if part)
        lines += ["", f"## `{entry.name}`", "", _prose(entry.summary)]
        if facts:
            lines += ["", f"{facts}."]
        lines += _knob_table(entry)
    if what == "methods":
        made = Entry("[synthesis]", "", "", "", SynthesisSettings)
        lines += ["", "## `[synthesis]`", "", SYNTHESIS, *_knob_table(made)]
    return "\n".join(lines) + "\n"


def _knob_table(entry: Entry) -> list[str]:
    knobs = list(entry.knobs())
    if not knobs:
        return []
    return [
        "",
        "| key | default | meaning |",
        "|---|---|---|",
        *(
            f"| `{name}` | {default if default == 'none' else f'`{default}`'} | {_cell(meaning)} |"
            for name, default, meaning in knobs
        ),
    ]


def _list(arguments: argparse.Namespace, console: Console) -> None:
    entries: dict[str, Entry] = arguments.entries()
    if arguments.markdown:
        sys.stdout.write(reference_page(arguments.what, entries))
        return
    if arguments.name is not None and arguments.name not in entries:
        raise RecipeError(
            f"there is no `{arguments.name}` among the {arguments.what}; known: "
            f"{', '.join(entries)}"
        )
    chosen = [entries[arguments.name]] if arguments.name else list(entries.values())
    output = Console()
    for entry in chosen:
        facts = "; ".join(part for part in (entry.source, entry.remark) if part)
        output.print(f"[bold]{entry.name}[/bold]  {_plain(entry.summary)}", highlight=False)
        if facts:
            output.print(f"    {facts}", highlight=False, markup=False)
        for name, default, meaning in entry.knobs():
            tail = f"  {_plain(meaning)}" if arguments.name else ""
            output.print(f"    {name} = {default}{tail}", highlight=False, markup=False)


def _summary(described: Any) -> str:
    text = (described.__doc__ or "").strip().split("\n\n")[0]
    return " ".join(text.split())


def _plain(text: str) -> str:
    """Return a docstring's sentence for a terminal: without formulas and the marks of code."""
    return re.sub(r",?\s*:math:`[^`]*`", "", text).replace("``", "").replace("`", "")


def _prose(text: str) -> str:
    """Return a docstring's sentence as Markdown."""
    return re.sub(r":math:`([^`]*)`", r"$\1$", text).replace("``", "`")


def _cell(text: str) -> str:
    """Return a docstring's sentence as a cell of a Markdown table."""
    return _prose(text).replace("|", "\\|")
