import errno
import io
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import napari_msgan
from napari_msgan.cli import main
from napari_msgan.cli._main import _is_reader_gone, _plain_warnings
from napari_msgan.cli._tables import quoted
from napari_msgan.errors import MsganError
from tests.cli.helpers import command

COMMANDS = (
    "models",
    "sketch",
    "generate",
    "refine",
    "info",
    "export",
    "train",
    "import-megan",
    "demo",
)

HEAVY = {"napari", "numpy", "scipy", "torch", "zarr"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command_has_an_example(capsys, name):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"Example:\n  napari-msgan {name}" in capsys.readouterr().out


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    listed = capsys.readouterr().out
    assert all(re.search(rf"^    {name}\s", listed, re.MULTILINE) for name in COMMANDS)


def test_version_is_that_of_the_package(process):
    ended = process("--version")
    assert (ended.code, ended.out) == (0, f"napari-msgan {napari_msgan.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ((), "COMMAND"),
        (("paint",), "invalid choice: 'paint'"),
        (("generate",), "IN, OUT, --model"),
        (("generate", "a.png", "b.ome.zarr"), "--model"),
        (("refine", "a.ome.zarr"), "--region"),
        (("verify",), "STORE"),
        (("generate", "a.png", "b.ome.zarr", "--model", "m", "--scale", "-1"), "of 0 or more"),
        (("generate", "a.png", "b.ome.zarr", "--model", "m", "--workers", "0"), "of 1 or more"),
        (("generate", "a.png", "b.ome.zarr", "--model", "m", "--seed", "x"), "'x' is not a whole"),
        (("generate", "a.png", "b.ome.zarr", "--model", "m", "--device", "tpu"), "'tpu'"),
        (("generate", "a.png", "b.ome.zarr", "--model", "m", "--precision", "fp8"), "'fp8'"),
        (("generate", "a.png", "b.ome.zarr", "--model", "m", "--colour"), "--colour"),
        (("export", "a.ome.zarr", "b.tif", "--grid", "mine"), "'mine'"),
        (("info", "a.ome.zarr", "b.ome.zarr"), "unrecognized arguments: b.ome.zarr"),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, tuple) else "",
)
def test_bad_arguments_end_with_2_and_one_line(cli, arguments, advice):
    cli(*arguments).check_refused(advice)


def test_error_of_a_real_process_is_one_line_and_exit_code_2(process, model, tmp_path):
    ended = process("generate", tmp_path / "no.png", tmp_path / "a.ome.zarr", "--model", model)
    ended.check_refused("no.png does not exist")


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("models",), ("info", "{store}"), ("export", "{store}", "{out}")],
    ids=lambda arguments: arguments[0],
)
def test_commands_that_compute_nothing_do_not_import_torch(arguments, store, tmp_path):
    filled = [a.format(store=store, out=tmp_path / "out.tif") for a in arguments]
    modules = modules_after(filled)
    assert "napari_msgan.cli" in modules
    assert "torch" not in modules


@pytest.mark.parametrize("argument", ["--help", "models"])
def test_what_answers_at_once_imports_nothing_heavy(argument):
    assert not HEAVY & set(modules_after([argument]))


def test_command_that_reads_a_store_imports_zarr(store):
    assert {"numpy", "zarr"} <= HEAVY & set(modules_after(["info", str(store)]))


def test_command_that_computes_imports_torch(store):
    assert "torch" in modules_after(["refine", str(store), "--region", "0:8,0:8"])


def test_no_command_for_the_window_imports_the_compiler_of_torch(tmp_path, model, image, store):
    """It imports Triton, where that is installed, which crashes beside a window drawn by Mesa."""
    commands = [
        ["generate", str(image), str(tmp_path / "new.ome.zarr"), "--model", str(model)],
        ["refine", str(store), "--region", "0:8,0:8"],
        ["export", str(store), str(tmp_path / "new.tif")],
        ["verify", str(store)],
    ]
    for arguments in commands:
        modules = modules_after(arguments)
        assert "torch" in modules or arguments[0] == "export"
        assert not {"torch._dynamo", "triton"} & set(modules), arguments


def modules_after(arguments):
    code = (
        "import json, sys\n"
        "from napari_msgan.cli import main\n"
        "try:\n    code = main(sys.argv[1:])\n"
        "except SystemExit as ended:\n    code = ended.code\n"
        "print(json.dumps(sorted(sys.modules)))\n"
        "sys.exit(code)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout.splitlines()[-1])


def test_warning_is_one_plain_line(capsys):
    with _plain_warnings():
        warnings.warn("the image is larger", stacklevel=1)
        warnings.warn("for programmers", DeprecationWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: the image is larger\n"


def test_warnings_are_as_before_after_a_command():
    with _plain_warnings():
        pass
    with pytest.warns(UserWarning, match="again"):
        warnings.warn("again", stacklevel=1)


def test_reader_that_goes_away_early_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    run = subprocess.run(command("models"), stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (run.returncode, run.stderr) == (0, b"")


def test_reader_that_goes_away_is_told_from_other_errors_on_windows_too(monkeypatch):
    invalid = OSError(errno.EINVAL, "Invalid argument")

    class Pipe(io.RawIOBase):
        def writable(self):
            return True

        is_gone = True

        def write(self, text):
            if self.is_gone:
                raise invalid
            return len(text)

    errors = (
        invalid,
        OSError(errno.EINVAL, "Invalid argument", "a:b?.png"),
        OSError(errno.ENOENT, "No such file"),
    )
    assert _is_reader_gone(BrokenPipeError())
    assert not _is_reader_gone(invalid)
    seen, pipe = [], Pipe()
    with monkeypatch.context() as patched:
        patched.setattr(os, "name", "nt")
        seen.append([_is_reader_gone(error) for error in errors])  # of a disk, while all is read
        patched.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(pipe)))
        print("what nobody reads")
        with pytest.raises(OSError, match="Invalid"):
            sys.stdout.flush()
        seen.append([_is_reader_gone(error) for error in errors])
        pipe.is_gone = False  # or closing it would fail
    assert seen == [[False] * 3, [True, False, False]]


@pytest.mark.parametrize(
    ("path", "on_windows", "elsewhere"),
    [
        ("chest.ome.zarr", "chest.ome.zarr", "chest.ome.zarr"),
        (r"C:\data\a.ome.zarr", r"C:\data\a.ome.zarr", r"'C:\data\a.ome.zarr'"),
        ("my scan (1).ome.zarr", '"my scan (1).ome.zarr"', "'my scan (1).ome.zarr'"),
    ],
)
def test_paths_of_commands_are_quoted_as_the_prompt_takes_them(
    monkeypatch, path, on_windows, elsewhere
):
    with monkeypatch.context() as patched:
        patched.setattr(os, "name", "nt")
        seen = quoted(path)
    assert seen == on_windows
    assert quoted(path) == elsewhere


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(13, "Permission denied", "/data/a"), "/data/a: Permission denied"),
        (PermissionError("denied"), "denied"),
        (
            MemoryError(),
            "there is not enough memory. Use fewer --workers, or a smaller image; to train, a "
            "smaller batch in the settings, and above scale 0 a smaller patch_shape",
        ),
    ],
    ids=["file name", "no file name", "memory"],
)
def test_trouble_of_the_machine_is_one_line(cli, monkeypatch, error, text):
    def fail():
        raise error

    monkeypatch.setattr("napari_msgan.cli._models.list_models", fail)
    ended = cli("models")
    ended.check_refused(text)
    assert ended.err == f"error: {text}\n"


def _more_than_there_is():
    torch.empty(2**45)


def _gpu_is_full():
    raise torch.OutOfMemoryError


def _mistake():
    raise RuntimeError("of ours")


@pytest.mark.parametrize(
    ("fail", "told"),
    [
        (_more_than_there_is, "there is not enough memory. Use fewer --workers"),
        (_gpu_is_full, "of the GPU is used up"),
        (_mistake, None),
    ],
)
def test_torch_without_memory_is_one_line(cli, monkeypatch, fail, told):

    monkeypatch.setattr("napari_msgan.cli._models.list_models", fail)
    if told:
        cli("models").check_refused(told)
    else:
        with pytest.raises(RuntimeError):  # any other is a mistake of ours
            cli("models")


def test_full_disk_is_one_line_that_says_what_to_do(cli, monkeypatch):
    def fail():
        raise OSError(28, "No space left on device", "/data/a")

    monkeypatch.setattr("napari_msgan.cli._models.list_models", fail)
    ended = cli("models")
    ended.check_refused("/data/a cannot be written: the disk is full (")
    assert ended.err.endswith("Make room, then do the same again.\n")


@pytest.mark.parametrize("named", ["/data/a", None])
def test_full_disk_is_that_of_the_file_or_else_of_out(cli, image, monkeypatch, tmp_path, named):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device", named)

    monkeypatch.setattr("napari_msgan.cli._jobs.make_sketch", fail)
    out = tmp_path / "sketch.tif"
    cli("sketch", image, out, "-q").check_refused(f"{named or out} cannot be written: the disk is")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no file there that is always full")
def test_printing_into_a_full_file_names_no_folder():
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            command("models"), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 2
    assert ended.stderr == ("error: the output cannot be written: the disk of its file is full\n")


def test_mistake_of_ours_is_not_hidden(cli, monkeypatch):
    def fail():
        raise ZeroDivisionError

    monkeypatch.setattr("napari_msgan.cli._models.list_models", fail)
    with pytest.raises(ZeroDivisionError):
        cli("models")


def test_notes_of_an_error_are_on_its_line(cli, monkeypatch):
    def fail():
        error = MsganError("the tile failed")
        error.add_note("while generating tile 0:4")
        raise error

    monkeypatch.setattr("napari_msgan.cli._models.list_models", fail)
    assert cli("models").err == "error: the tile failed; while generating tile 0:4\n"
