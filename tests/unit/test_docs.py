"""The documentation says what the code does: keys, defaults, flags, errors, formats, examples."""

from __future__ import annotations

import argparse
import doctest
import json
import re
import shlex
import tomllib
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from export import cli as export_cli
from oodserve import cli as oodserve_cli
from oodserve import errors
from oodserve.commands.schema import FORMATS, json_schema
from server import settings
from server.statuses import TABLE
from train import cli as train_cli
from train.commands.listing import method_entries, reference_page, score_entries
from train.comparison.plan import Comparison, Variant
from train.recipes import Recipe, load_recipe

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
MARKDOWN = [ROOT / "README.md", ROOT / "CHANGELOG.md", *PAGES]

REQUIRED = "required"
UNPUBLISHED = {"standard"}
"""Methods that have no paper."""
TITLES = {"oodserve": "`oodserve", "train": "`python -m train", "export": "`python -m export"}
PARSERS = {
    "oodserve": oodserve_cli._parser,
    "train": train_cli._parser,
    "export": export_cli._parser,
    "server": settings._parser,
}


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _sections(page: Path) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield each heading with the cells of the table rows below it, header rows left out."""
    heading, rows = "", list[list[str]]()
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            yield heading, rows
            heading, rows = line.lstrip("# "), []
        elif line.startswith("|"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            rows.append([cell.replace("\\|", "|") for cell in cells])
    yield heading, rows


def _table(page: Path, first: str) -> list[list[str]]:
    """Return the rows of the table whose header begins with `first`."""
    tables = [rows for _, rows in _sections(page)]
    found = [row for rows in tables for row in rows]
    starts = [number for number, row in enumerate(found) if row[0] == first]
    assert len(starts) == 1, f"{page.name} has {len(starts)} tables that begin with `{first}`"
    return found[starts[0] + 2 :]


def _fences(path: Path, *languages: str) -> Iterator[tuple[int, str, str]]:
    """Yield (line number, rest of the info string, content) of a page's fenced blocks."""
    lines = path.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        opening = re.fullmatch(r"```(\w+)\s*(.*)", lines[number])
        number += 1
        if opening is None:
            continue
        start = number
        while lines[number] != "```":
            number += 1
        if opening[1] in languages:
            yield start + 1, opening[2], "\n".join(lines[start:number]) + "\n"
        number += 1


def _all_fences(language: str) -> list[Any]:
    return [
        pytest.param(path, number, info, content, id=f"{_name(path)}:{number}")
        for path in MARKDOWN
        for number, info, content in _fences(path, language)
    ]


# Recipes.


def _default(field: FieldInfo) -> str:
    """Return a field's default as the reference writes it: TOML in backticks."""
    if field.is_required():
        return REQUIRED
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if isinstance(value, tuple):
        value = list(value)
    return f"`{json.dumps(value)}`"


def _members(field: FieldInfo) -> dict[str, type[BaseModel]]:
    """Return the members of a discriminated union by their tag."""
    assert isinstance(field.discriminator, str)
    members: dict[str, type[BaseModel]] = {}
    for member in typing.get_args(field.annotation):
        (tag,) = typing.get_args(member.model_fields[field.discriminator].annotation)
        members[tag] = member
    return members


def _keys(model: type[BaseModel], *, but: str = "") -> dict[str, str]:
    return {name: _default(field) for name, field in model.model_fields.items() if name != but}


def _recipe_keys() -> dict[str, dict[str, str]]:
    """Return the keys of each table, and of each kind of table, with their defaults."""
    keys: dict[str, dict[str, str]] = {"": {}}
    for name, field in Recipe.model_fields.items():
        if name in ("method", "synthesis", "scorers"):  # pages of their own
            continue
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys[f"[{name}]"] = _keys(field.annotation)
        elif isinstance(field.discriminator, str):
            for tag, member in _members(field).items():
                title = f'[{name}] with {field.discriminator} = "{tag}"'
                keys[title] = _keys(member, but=field.discriminator)
        else:
            keys[""][name] = _default(field)
    return keys


def _documented_keys() -> dict[str, dict[str, str]]:
    documented: dict[str, dict[str, str]] = {}
    for heading, rows in _sections(DOCS / "reference" / "recipe.md"):
        titles = [heading.replace("`", "")]
        if titles[0] == "Top level":
            titles = [""]
        elif " with " not in heading:
            titles = re.findall(r"`(\[\w+\])`", heading)
        for title in titles:
            table = documented.setdefault(title, {})
            table.update({row[0].strip("`"): row[1] for row in rows[2:]})
    return documented


@pytest.mark.parametrize("title", _recipe_keys())
def test_each_recipe_key_is_documented_with_its_default(title: str) -> None:
    assert _documented_keys()[title] == _recipe_keys()[title]


def test_no_recipe_table_is_documented_that_does_not_exist() -> None:
    # `[augment]` has a heading of its own, above those of its kinds.
    assert set(_documented_keys()) - set(_recipe_keys()) == {"[augment]", "[method]"}


@pytest.mark.parametrize(
    ("what", "entries"), [("methods", method_entries()), ("scores", score_entries())]
)
def test_the_pages_of_methods_and_scores_are_those_of_the_code(what: str, entries: Any) -> None:
    file = DOCS / "reference" / f"{what}.md"
    assert file.read_text(encoding="utf-8") == reference_page(what, entries), (
        f"run `python -m train {what} --markdown > {_name(file)}`"
    )
    for entry in entries.values():
        assert entry.summary
        assert entry.source or entry.name in UNPUBLISHED
        assert all(meaning for _, _, meaning in entry.knobs()), entry.name


def test_each_key_of_a_comparison_is_documented() -> None:
    expected = _keys(Comparison, but="variants")
    expected |= {f"variants.{name}": default for name, default in _keys(Variant).items()}
    sections = dict(_sections(DOCS / "reference" / "recipe.md"))
    rows = sections["Comparison files"][2:]
    assert {row[0].strip("`"): row[1] for row in rows} == expected


@pytest.mark.parametrize(("path", "number", "info", "content"), _all_fences("toml"))
def test_recipes_in_the_pages_load(
    path: Path, number: int, info: str, content: str, tmp_path: Path
) -> None:
    if info == "comparison":
        comparison = Comparison.model_validate(tomllib.loads(content))
        for variant in comparison.variants:
            load_recipe(ROOT / comparison.recipe, variant.set)
        return
    file = tmp_path / "recipe.toml"
    file.write_text(content)
    load_recipe(file)


def test_each_preset_is_in_the_training_guide() -> None:
    text = (DOCS / "guides" / "training.md").read_text(encoding="utf-8")
    presets = {path.name for path in (ROOT / "train" / "presets").glob("*.toml")}
    assert presets == set(re.findall(r"^\| `(\w+\.toml)` \|", text, re.MULTILINE))


# Commands.


def _commands() -> list[Any]:
    found = []
    for program in TITLES:
        parser = PARSERS[program]()
        (actions,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        for name, command in actions.choices.items():
            found.append(
                pytest.param(f"{TITLES[program]} {name}`", command, id=f"{program} {name}")
            )
    return found


@pytest.mark.parametrize(("title", "parser"), _commands())
def test_each_command_and_flag_is_documented(title: str, parser: argparse.ArgumentParser) -> None:
    sections = dict(_sections(DOCS / "reference" / "commands.md"))
    assert title in sections, f"no section {title}"
    documented = {
        re.sub("[` ].*", "", row[0].strip("`")): row[1].strip("`") for row in sections[title][2:]
    }
    actions = {
        action.option_strings[-1] if action.option_strings else str(action.metavar): action
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction)
    }
    assert set(documented) == set(actions)
    for name, action in actions.items():
        if action.required:
            assert documented[name] == REQUIRED, name
        elif isinstance(action.default, bool):
            assert documented[name] == "off", name
        elif action.default not in (None, []):
            assert documented[name] == str(action.default), name


def test_no_command_is_documented_that_does_not_exist() -> None:
    titles = [title for title, _ in _sections(DOCS / "reference" / "commands.md")]
    commands = {parameter.values[0] for parameter in _commands()}
    known = {*commands, "", "Commands", "`python -m demo`"}
    assert set(titles) == known
    assert len(titles) == len(known)


def test_the_flags_of_oodserve_itself_are_documented() -> None:
    text = (DOCS / "reference" / "commands.md").read_text()
    for action in oodserve_cli._parser()._actions:
        if action.option_strings and not isinstance(action, argparse._HelpAction):
            assert f"| `{action.option_strings[-1]}` |" in text


def _command_lines() -> list[Any]:
    """Return our own commands among the lines of fenced and indented blocks."""
    found = []
    for path in MARKDOWN:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            command = re.fullmatch(
                r"(?:    )?(?:python -m (?=train |export |server )|(?=oodserve ))(\S+) (.+)", line
            )
            if command is None or not (line.startswith("    ") or _is_fenced(path, number)):
                continue
            words = shlex.split(command[2], comments=True)
            words = words[: words.index(">")] if ">" in words else words
            found.append(pytest.param(path, command[1], words, id=f"{_name(path)}:{number}"))
    return found


def _is_fenced(path: Path, number: int) -> bool:
    return any(
        start <= number < start + content.count("\n")
        for start, _, content in _fences(path, "console")
    )


@pytest.mark.parametrize(("path", "program", "arguments"), _command_lines())
def test_command_lines_in_the_pages_are_understood(
    path: Path, program: str, arguments: list[str], tmp_path: Path
) -> None:
    parsed = PARSERS[program]().parse_args(arguments)
    if "overrides" in parsed:
        recipe = ROOT / parsed.recipe
        if not recipe.exists():  # the page shows it
            recipe = tmp_path / "recipe.toml"
            recipe.write_text(next(_fences(path, "toml"))[2])
        load_recipe(recipe, parsed.overrides)


# Formats and errors.


@pytest.mark.parametrize("name", FORMATS)
def test_schema_files_are_those_of_the_models(name: str) -> None:
    file = DOCS / "reference" / "schemas" / f"{name}.schema.json"
    assert file.read_text(encoding="utf-8") == json_schema(name), (
        f"run `oodserve schema {name} > {_name(file)}`"
    )


@pytest.mark.parametrize("name", FORMATS)
def test_the_schema_command_prints_the_schema(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert oodserve_cli.main(["schema", name]) == 0
    assert capsys.readouterr().out == json_schema(name)


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of a format; members of lists and mappings stand for all of them."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        for part in _documents(field.annotation):
            yield from _paths(part, f"{prefix}{name}.")


def _documents(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for argument in typing.get_args(annotation):
        yield from _documents(argument)


@pytest.mark.parametrize("name", FORMATS)
def test_each_key_of_a_format_is_documented(name: str) -> None:
    rows = _table(DOCS / "reference" / f"{name}-format.md", "key")
    assert [row[0].strip("`") for row in rows] == list(_paths(FORMATS[name]))


def _subclasses(kind: type[errors.OodserveError]) -> Iterator[type[errors.OodserveError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _subclasses(child)


def test_each_error_is_documented_with_its_parent_and_status() -> None:
    rows = _table(DOCS / "reference" / "errors.md", "error")
    documented = {row[0].strip("`"): (row[1].strip("`"), row[2]) for row in rows}
    assert documented == {
        kind.__name__: (kind.__mro__[1].__name__, str(TABLE[kind].status))
        for kind in _subclasses(errors.OodserveError)
    }
    assert all(len(row[3]) > 20 for row in rows)


# Links, code and examples.


def _anchors(path: Path) -> set[str]:
    """Return the fragments that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", MARKDOWN, ids=_name)
def test_relative_links_resolve(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    targets = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text)
    targets += re.findall(r'(?:src|href)="([^"]+)"', text)
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        file, _, fragment = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{_name(path)} links to `{target}`, which is not there"
        if fragment:
            assert fragment in _anchors(linked), f"{_name(path)} links to `{target}`: no heading"


def test_the_index_has_every_page() -> None:
    index = DOCS / "README.md"
    linked = set(re.findall(r"\(([\w/.-]+)\)", index.read_text(encoding="utf-8")))
    assert {page.relative_to(DOCS).as_posix() for page in PAGES if page != index} <= linked


@pytest.mark.parametrize(("path", "number", "info", "content"), _all_fences("python"))
def test_python_in_the_pages_compiles(path: Path, number: int, info: str, content: str) -> None:
    compile(content, f"{_name(path)}:{number}", "exec")


@pytest.mark.parametrize("path", MARKDOWN, ids=_name)
def test_examples_print_what_the_pages_say(path: Path) -> None:
    """The `>>>` examples of a page, run one after the other."""
    text = "".join(content for _, _, content in _fences(path, "pycon"))
    runner = doctest.DocTestRunner()
    runner.run(doctest.DocTestParser().get_doctest(text, {}, _name(path), str(path), 0))
    assert runner.failures == 0


def test_some_pages_have_examples() -> None:
    assert sum(1 for path in PAGES for _ in _fences(path, "pycon")) >= 4
