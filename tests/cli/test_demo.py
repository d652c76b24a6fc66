import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def calls(monkeypatch):
    """What the demo was asked to do; no window is opened."""
    calls = []
    module = ModuleType("napari_msgan._napari.demo")
    module.run = lambda output, *, unattended: calls.append((output, unattended))
    monkeypatch.setitem(sys.modules, "napari_msgan._napari.demo", module)
    monkeypatch.setenv("DISPLAY", ":0")
    return calls


def test_demo_is_run_with_its_folder(cli, calls, tmp_path):
    assert cli("demo").code == 0
    assert cli("demo", "--output", tmp_path, "--unattended").code == 0
    assert calls == [(Path("demo-output"), False), (tmp_path, True)]


def test_missing_qt_says_what_to_install(cli, calls, monkeypatch):
    monkeypatch.setitem(sys.modules, "napari_msgan._napari.demo", None)
    cli("demo").check_refused('pip install "napari-msgan[all]"')


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others always have a screen")
def test_missing_screen_says_how_to_have_one(cli, calls, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    cli("demo").check_refused("xvfb-run")
    assert calls == []
