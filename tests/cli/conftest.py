from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Protocol

import pytest
import tifffile

from napari_msgan.cli import main
from napari_msgan.model import MODELS_VARIABLE
from tests.cli.helpers import Ended, command, picture
from tests.models import write_model


class Cli(Protocol):
    def __call__(self, *arguments: str | Path) -> Ended: ...


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command in this process."""

    def run(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def process() -> Cli:
    """Run a command as a user does, in a process of its own."""

    def run(*arguments: str | Path) -> Ended:
        ended = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return run


@pytest.fixture(autouse=True)
def own_models(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the models of whoever runs the tests out of them."""
    folder = tmp_path_factory.mktemp("user-models")
    monkeypatch.setenv(MODELS_VARIABLE, str(folder))
    return folder


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the tests need and never change."""
    folder = tmp_path_factory.mktemp("originals")
    write_model(folder / "small")
    write_model(folder / "other", name="other", seed=1)
    write_model(folder / "solid", name="solid", ndim=3, n_scales=2, tile=16, chunk=8)
    tifffile.imwrite(folder / "image.tif", picture((90, 110), seed=0))
    tifffile.imwrite(folder / "another.tif", picture((90, 110), seed=1))
    return folder


@pytest.fixture
def model(originals: Path) -> Path:
    return originals / "small"


@pytest.fixture
def image(originals: Path) -> Path:
    return originals / "image.tif"


@pytest.fixture(scope="session")
def finished(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the image with every tile."""
    out = tmp_path_factory.mktemp("finished") / "all.ome.zarr"
    arguments = ("generate", originals / "image.tif", out, "--model", originals / "small", "-q")
    assert main([str(a) for a in arguments]) == 0
    return out


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished store."""
    return Path(shutil.copytree(finished, tmp_path / "copy.ome.zarr"))
