"""Nothing that is read is run: no pickle, eval or unsafe loader anywhere in the package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "napari_msgan"
#: Modules that run what they read; of pickle only the name of its error may be used.
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
ALLOWED = {"pickle.UnpicklingError"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load"}


def dotted(node: ast.AST) -> str:
    """Return "a.b.c" of such an expression, else an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def dangers(source: str) -> list[str]:
    """Return what in a module could run data, with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [dotted(node)]
        for name in names:
            if name.split(".")[0] in MODULES and name not in ALLOWED:
                found.append(f"line {node.lineno}: {name}")
        if isinstance(node, ast.Import):
            odd = [
                a.name for a in node.names if a.name in MODULES and (a.asname or a.name != "pickle")
            ]
            found += [f"line {node.lineno}: import {name}" for name in odd]
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        options = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
        if name in CALLS or (options.get("shell") and name.startswith("subprocess.")):
            found.append(f"line {node.lineno}: {name}")
        if name == "torch.load" and options.get("weights_only") is not True:
            found.append(f"line {node.lineno}: torch.load without weights_only=True")
        if options.get("allow_pickle"):
            found.append(f"line {node.lineno}: allow_pickle")
    return found


@pytest.mark.parametrize(
    "path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_module_runs_nothing_that_it_reads(path):
    assert dangers(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.loads(data)",
        "from pickle import loads",
        "import pickle as p",
        "import dill",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "eval(text)",
        "import yaml\nyaml.load(text)",
        "import subprocess\nsubprocess.run(text, shell=True)",
    ],
)
def test_each_danger_is_found(source):
    assert dangers(source)


def test_what_is_safe_is_not_found():
    assert dangers("import pickle\ntry: pass\nexcept pickle.UnpicklingError: pass") == []
    assert dangers("import torch\ntorch.load(path, weights_only=True)") == []
    assert dangers("import numpy as np\nnp.load(path, allow_pickle=False)") == []
