"""The crash benchmark notices a program that loses what it made, and one that does not is fine."""

import random
import sys

import pytest

from benchmarks.crash import Case, run_case

# Both take long for the first half of a file; only the second renames the whole one into place.
CARELESS = """
import pathlib, sys, time
out = pathlib.Path(sys.argv[1])
if not out.exists():
    with out.open("w", buffering=1) as file:
        print("first half", file=file)
        time.sleep(1)
        print("second half", file=file)
"""
CAREFUL = """
import pathlib, sys, time
out = pathlib.Path(sys.argv[1])
partial = out.with_name("x.partial-1")
with partial.open("w", buffering=1) as file:
    print("first half", file=file)
    time.sleep(1)
    print("second half", file=file)
partial.rename(out)
"""


class Program(Case):
    """A case whose program is a script."""

    def command(self, base, folder):
        return [sys.executable, "-c", self.arguments[0], str(folder / self.result)]


@pytest.mark.parametrize("is_careful", [False, True])
def test_a_program_that_loses_what_it_made_is_noticed(tmp_path, is_careful, capsys):
    program = Program("export", "a.txt", (CAREFUL if is_careful else CARELESS,))
    row = run_case(program, tmp_path, 3, random.Random(1))
    assert (row["survived"] == "3") == is_careful
    assert row["one changed byte is found"] == "yes"
    assert ("differs" in capsys.readouterr().err) == (not is_careful)


def test_files_that_are_left_over_are_noticed(tmp_path):
    leaving = CAREFUL.replace('"x.partial-1"', 'f"{time.time_ns()}.partial-1"')
    row = run_case(Program("export", "a.txt", (leaving,)), tmp_path, 2, random.Random(1))
    assert row["survived"] == "0"


def test_an_old_export_that_is_gone_for_a_moment_is_noticed(tmp_path, capsys):
    removing = CAREFUL.replace("partial =", "out.unlink(missing_ok=True)\npartial =")
    (tmp_path / "old-a.txt").write_text("old")
    row = run_case(Program("export", "a.txt", (removing,)), tmp_path, 2, random.Random(1))
    assert row["survived"] == "0"
    assert "neither the old nor the new" in capsys.readouterr().err
