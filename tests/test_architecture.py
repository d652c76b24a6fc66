"""Dependencies point one way: each module imports from layers with a smaller number only."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "napari_msgan"
ROOT = Path(__file__).parents[1] / PACKAGE

# From the bottom up. Modules of one layer do not import each other; those of one folder may.
LAYERS = (
    ("buffers", "errors", "holding"),
    ("steps",),
    ("durable",),
    ("folders", "geometry", "locking", "packed_sizes", "patients", "settings"),
    ("multiscales", "sketch_settings", "zarr_folder"),
    ("tiling", "volume", "config", "recording"),
    ("intensity", "labels"),
    ("noise", "resampling"),
    ("sketch", "networks", "pyramid", "io"),
    ("model", "source", "exporting", "scheduling"),
    ("computing", "creating", "megan_import"),
    ("refiner",),
    ("training", "evaluation", "scale_out", "verifying"),
    ("jobs",),
    ("estimating",),
    ("_napari",),
    ("cli",),
    ("__main__",),
)
LAYER_OF = {unit: number for number, units in enumerate(LAYERS) for unit in units}
TOP = len(LAYERS)  # `import napari_msgan`: its lazy names may be anything
GUI_PACKAGES = {"PyQt5", "PyQt6", "PySide2", "PySide6", "magicgui", "napari", "qtpy", "superqt"}
GUI_FOLDER = "_napari"
#: What PyQt5, PyQt6 and PySide6 all have under these names.
QT_MODULES = {"QtCore", "QtGui", "QtWidgets"}


@dataclass(frozen=True)
class Import:
    """One imported module, where it stands, and whether it runs only when a function is called."""

    importer: tuple[str, ...]  # parts of the path inside the package, without .py
    target: tuple[str, ...]  # parts of the full dotted name
    line: int
    is_lazy: bool

    @property
    def unit(self) -> str:
        """What has a layer: a folder, or a module at the top of the package."""
        return self.importer[0]

    @property
    def target_unit(self) -> str | None:
        """The same of the target; None for the package itself."""
        return self.target[1] if len(self.target) > 1 else None

    def __str__(self) -> str:
        return f"{PACKAGE}/{'/'.join(self.importer)}.py:{self.line} imports {'.'.join(self.target)}"


def module_parts(path: Path, root: Path) -> tuple[str, ...]:
    return path.relative_to(root).with_suffix("").parts


def is_module(parts: tuple[str, ...], root: Path) -> bool:
    path = root.joinpath(*parts)
    return path.is_dir() or path.with_suffix(".py").is_file()


def targets_of(node: ast.AST, importer: tuple[str, ...], root: Path) -> list[tuple[str, ...]]:
    """Return the full dotted names, split, of all modules that this node imports."""
    match node:
        case ast.Import(names=names):
            return [tuple(name.name.split(".")) for name in names]
        case ast.ImportFrom(module=module, names=names, level=level):
            base = (PACKAGE, *importer)[: len(importer) + 1 - level] if level else ()
            base += tuple(module.split(".")) if module else ()
            if base != (PACKAGE,):
                return [base]
            # `from napari_msgan import tiling` imports napari_msgan.tiling;
            # `__version__` is a constant, every other name could come from any layer.
            return [
                (PACKAGE, name.name) if is_module((name.name,), root) else base
                for name in names
                if name.name != "__version__"
            ]
        case ast.Call(
            func=ast.Name(id="import_module" | "__import__")
            | ast.Attribute(attr="import_module" | "__import__"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            return [tuple(name.split("."))]
    return []


def imports_of(path: Path, root: Path) -> list[Import]:
    """Return all imports of a file, those in functions and under TYPE_CHECKING too."""
    importer = module_parts(path, root)
    found: list[Import] = []

    def visit(node: ast.AST, *, is_lazy: bool) -> None:
        for target in targets_of(node, importer, root):
            found.append(Import(importer, target, node.lineno, is_lazy))  # type: ignore[attr-defined]
        is_lazy = is_lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, is_lazy=is_lazy)

    visit(ast.parse(path.read_text(encoding="utf-8"), str(path)), is_lazy=False)
    return found


def modules(root: Path) -> list[Path]:
    """Return all modules of the package but its own ``__init__``."""
    return [path for path in sorted(root.rglob("*.py")) if path != root / "__init__.py"]


def modules_without_layer(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root.parent)} has no layer: put {parts[0]!r} into LAYERS of "
        f"{Path(__file__).name}, above all that it imports"
        for path in modules(root)
        if (parts := module_parts(path, root))[0] not in LAYER_OF
    ]


def upward_imports(root: Path) -> list[str]:
    wrong = []
    for item in (item for path in modules(root) for item in imports_of(path, root)):
        if item.target[0] != PACKAGE or item.target_unit == item.unit:
            continue
        layer = LAYER_OF.get(item.unit, TOP)
        target_layer = LAYER_OF.get(item.target_unit, TOP) if item.target_unit else TOP
        if target_layer >= layer:
            wrong.append(f"{item}: layer {layer} may not see layer {target_layer}")
    return wrong


def misplaced_gui_imports(root: Path) -> list[str]:
    """Return GUI imports outside the GUI folder, and imports of that folder that are not lazy."""
    outside = [
        item
        for path in [root / "__init__.py", *modules(root)]
        for item in imports_of(path, root)
        if item.unit != GUI_FOLDER
    ]
    return [
        f"{item}: only {GUI_FOLDER}/ may" for item in outside if item.target[0] in GUI_PACKAGES
    ] + [
        f"{item}: only inside a function, so that a terminal needs no Qt"
        for item in outside
        if item.target[:2] == (PACKAGE, GUI_FOLDER) and not item.is_lazy
    ]


def qt_modules_of_one_binding(root: Path) -> list[str]:
    """Return imports from qtpy of what not every binding has."""
    return [
        f"{item}: not every binding has that, take it from {', '.join(sorted(QT_MODULES))}"
        for path in modules(root)
        for item in imports_of(path, root)
        if item.target[0] == "qtpy" and not QT_MODULES.issuperset(item.target[1:2])
    ]


def listing(problems: list[str]) -> str:
    return "\n".join(["", *problems])


def test_every_module_has_a_layer():
    assert not (problems := modules_without_layer(ROOT)), listing(problems)


def test_imports_point_to_lower_layers():
    assert not (problems := upward_imports(ROOT)), listing(problems)


def test_gui_packages_are_imported_in_the_gui_folder_only():
    assert not (problems := misplaced_gui_imports(ROOT)), listing(problems)


def test_every_qt_binding_of_napari_will_do():
    assert not (problems := qt_modules_of_one_binding(ROOT)), listing(problems)


def texts_of_the_system(root: Path) -> list[str]:
    """Return where text files are opened that do not say how their text is encoded."""
    found = []
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            mode = [a.value for a in node.args[:1] if isinstance(a, ast.Constant)]
            is_text = node.func.attr in ("read_text", "write_text") or (
                node.func.attr == "open" and mode[:1] in (["r"], ["w"], ["a"], ["x"])
            )
            if is_text and not any(key.arg == "encoding" for key in node.keywords):
                found.append(f"{path.relative_to(root)}:{node.lineno}")
    return found


def test_no_text_is_read_as_the_system_likes():
    """Windows has one encoding for each country: names of images would not be found again."""
    assert not texts_of_the_system(ROOT)


def test_text_without_an_encoding_would_be_found(tmp_path):
    root = package_with(tmp_path, {"a.py": "path.read_text()\npath.open('w')\npath.open('rb')\n"})
    assert texts_of_the_system(root) == ["a.py:1", "a.py:2"]


def test_importing_the_package_leaves_heavy_packages_out():
    code = f"import json, sys, {PACKAGE}; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(run.stdout))
    assert PACKAGE in loaded
    assert not loaded & {"torch", "zarr", "qtpy", "napari"}


# Negative controls: the checks find what they are for in a made-up package.


def package_with(tmp_path: Path, files: dict[str, str]) -> Path:
    root = tmp_path / PACKAGE
    for name, text in {"__init__.py": "", "jobs.py": "", "tiling.py": "", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("geometry.py", "from napari_msgan.jobs import x", id="from a module"),
        pytest.param("geometry.py", "import napari_msgan.jobs", id="plain"),
        pytest.param("geometry.py", "from napari_msgan import jobs", id="from the package"),
        pytest.param("geometry.py", "from napari_msgan import generate", id="lazy public name"),
        pytest.param("geometry.py", "from .jobs import x", id="relative"),
        pytest.param("geometry.py", "from . import jobs", id="relative to the package"),
        pytest.param("pyramid/store.py", "from ..jobs import x", id="relative from a folder"),
        pytest.param("geometry.py", "def f():\n    import napari_msgan.jobs", id="in a function"),
        pytest.param(
            "geometry.py",
            "if TYPE_CHECKING:\n    from napari_msgan.jobs import x",
            id="type checking",
        ),
        pytest.param("geometry.py", "import_module('napari_msgan.jobs')", id="by name"),
        pytest.param("pyramid/store.py", "import napari_msgan.io.tiff", id="folder of the layer"),
        pytest.param("tiling.py", "import napari_msgan.volume", id="module of the layer"),
        pytest.param("pyramid/__init__.py", "import napari_msgan.jobs", id="init of a folder"),
    ],
)
def test_upward_import_is_found(tmp_path, name, text):
    (problem,) = upward_imports(package_with(tmp_path, {name: text}))
    assert problem.startswith(f"{PACKAGE}/{name}:")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("jobs.py", "from napari_msgan.tiling import x", id="lower layer"),
        pytest.param("jobs.py", "from napari_msgan import tiling, __version__", id="version"),
        pytest.param("pyramid/store.py", "import napari_msgan.pyramid.view", id="same folder"),
        pytest.param("pyramid/store.py", "from .view import x", id="same folder, relative"),
        pytest.param("geometry.py", "import json, numpy.typing", id="others"),
        pytest.param("__init__.py", "from napari_msgan.jobs import x", id="init of the package"),
    ],
)
def test_downward_import_is_allowed(tmp_path, name, text):
    assert upward_imports(package_with(tmp_path, {name: text})) == []


def test_new_file_without_layer_is_found(tmp_path):
    (problem,) = modules_without_layer(package_with(tmp_path, {"helpers.py": ""}))
    assert "'helpers'" in problem


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("jobs.py", "from qtpy.QtCore import QTimer", id="Qt"),
        pytest.param("cli.py", "def demo():\n    import napari", id="lazy napari"),
        pytest.param("__init__.py", "import superqt", id="init of the package"),
        pytest.param("cli.py", "import napari_msgan._napari.panel", id="GUI folder, not lazy"),
    ],
)
def test_gui_import_outside_the_gui_folder_is_found(tmp_path, name, text):
    assert len(misplaced_gui_imports(package_with(tmp_path, {name: text}))) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("_napari/panel.py", "from qtpy.QtCore import QTimer", id="Qt"),
        pytest.param("cli.py", "def demo():\n    import napari_msgan._napari.demo", id="lazy"),
    ],
)
def test_gui_import_in_its_place_is_allowed(tmp_path, name, text):
    assert misplaced_gui_imports(package_with(tmp_path, {name: text})) == []


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        pytest.param("from qtpy.QtOpenGLWidgets import QOpenGLWidget", True, id="Qt 6"),
        pytest.param("import qtpy.QtOpenGLWidgets", True, id="plain"),
        pytest.param("from qtpy.QtWidgets import QOpenGLWidget", False, id="all"),
    ],
)
def test_module_of_one_binding_is_found(tmp_path, text, is_found):
    package = package_with(tmp_path, {"_napari/panel.py": text})
    assert len(qt_modules_of_one_binding(package)) == is_found
