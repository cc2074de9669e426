"""Fixtures that all tests share: a tiny real bundle, and the real server as a process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.server_process import ServerProcess, running_server
from tests.tiny import TinyBundle, make_bundle

MakeBundle = Callable[..., TinyBundle]
StartServer = Callable[..., ServerProcess]


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    """A calibrated tiny model named `tiny`, alone in its repository; shared, not to be changed."""
    return make_bundle(tmp_path_factory.mktemp("tiny") / "models")


@pytest.fixture
def tiny_models(tmp_path: Path) -> TinyBundle:
    """A calibrated tiny model in a repository of this test's own, to be changed at will."""
    return make_bundle(tmp_path / "models")


@pytest.fixture
def bundle_maker(tmp_path: Path) -> MakeBundle:
    """Write further bundles: `bundle_maker(name=..., seed=..., calibrated=...)`.

    As `tests.tiny.make_bundle`, in this test's own repository `tmp_path / "models"`.
    """

    def make(name: str = "tiny", **options: object) -> TinyBundle:
        return make_bundle(tmp_path / "models", name, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture
def server_process() -> Iterator[StartServer]:
    """Start the real server: `server_process(models_dir, *flags)`; ended with the test.

    For one server per module use `tests.server_process.running_server` in a module fixture.
    """
    with contextlib.ExitStack() as stack:

        def start(models: Path, *arguments: str, **options: object) -> ServerProcess:
            context: AbstractContextManager[ServerProcess] = running_server(
                models,
                *arguments,
                **options,  # type: ignore[arg-type]
            )
            return stack.enter_context(context)

        yield start
