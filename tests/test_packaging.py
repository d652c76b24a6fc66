from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points, version
from importlib.resources import files
from pathlib import Path
from zipfile import ZipFile

import pytest
from npe2 import PluginManifest

import napari_msgan

ROOT = Path(__file__).parents[1]
MANIFEST = PluginManifest.from_file(ROOT / "napari_msgan" / "napari.yaml")
COMMANDS = {command.id: command.python_name for command in MANIFEST.contributions.commands}
CONTRIBUTIONS = [
    *MANIFEST.contributions.widgets,
    *MANIFEST.contributions.readers,
    *MANIFEST.contributions.writers,
    *MANIFEST.contributions.sample_data,
    *(item for items in MANIFEST.contributions.menus.values() for item in items),
]


@pytest.mark.parametrize("python_name", COMMANDS.values())
def test_command_of_the_manifest_is_a_callable(python_name):
    module, name = python_name.split(":")
    assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize("contribution", CONTRIBUTIONS, ids=lambda item: type(item).__name__)
def test_contribution_refers_to_a_declared_command(contribution):
    assert contribution.command in COMMANDS


def test_menus_of_the_manifest_accept_contributions():
    from napari._app_model.constants import MenuId

    assert set(MANIFEST.contributions.menus) <= {str(menu) for menu in MenuId.contributables()}


def test_link_at_the_top_is_the_manifest_of_the_package():
    assert (ROOT / "napari.yaml").resolve() == ROOT / "napari_msgan" / "napari.yaml"


def test_installed_plugin_is_this_one():
    assert version("napari-msgan") == napari_msgan.__version__
    assert PluginManifest.from_distribution("napari-msgan").contributions == MANIFEST.contributions
    (script,) = entry_points(group="console_scripts", name="napari-msgan")
    assert callable(script.load())


def test_resources_are_found_through_the_package():
    assert Path(str(files("napari_msgan.resources"))).samefile(ROOT / "resources")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build a source distribution from a clean copy of the project, and the wheel from that."""
    # A copy, because setuptools also packs what it finds in an old *.egg-info or build folder.
    source = tmp_path_factory.mktemp("source") / "project"
    left_out = (".*", "*.egg-info", "__pycache__", "build", "dist", "demo-output")
    shutil.copytree(ROOT, source, symlinks=True, ignore=shutil.ignore_patterns(*left_out))
    out = tmp_path_factory.mktemp("dist")
    run = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    (path,) = out.glob("*.whl")
    with ZipFile(path) as file:
        yield file


@pytest.mark.slow
def test_wheel_holds_all_modules_and_resources(wheel):
    modules = (ROOT / "napari_msgan").rglob("*.py")
    resources = [path for path in (ROOT / "resources").glob("[!_]*/**/*") if path.is_file()]
    models = [path for path in (ROOT / "resources" / "models").iterdir() if path.is_dir()]
    assert models, "no bundled model"
    expected = {
        "napari_msgan/napari.yaml",
        "napari_msgan/py.typed",
        "napari_msgan/resources/__init__.py",
        *(path.relative_to(ROOT).as_posix() for path in modules),
        *(f"napari_msgan/{path.relative_to(ROOT).as_posix()}" for path in resources),
        *(f"napari_msgan/resources/models/{path.name}/model.json" for path in models),
    }
    assert expected <= set(wheel.namelist())


@pytest.mark.slow
def test_wheel_holds_nothing_else(wheel):
    tops = {Path(name).parts[0] for name in wheel.namelist()}
    assert tops == {"napari_msgan", f"napari_msgan-{napari_msgan.__version__}.dist-info"}


@pytest.mark.slow
def test_wheel_declares_the_program_and_the_plugin(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    declared = configparser.ConfigParser()
    declared.read_string(wheel.read(name).decode())
    assert declared["console_scripts"]["napari-msgan"] == "napari_msgan.cli:main"
    assert declared["napari.manifest"]["napari-msgan"] == "napari_msgan:napari.yaml"
