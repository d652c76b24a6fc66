"""The crash benchmark notices a program that loses what it made, and one that does not is fine."""

import random
import sys

import pytest

from benchmarks.crash import Case, run_case

# Both write 20 lines slowly; only the second puts the finished file into its place in one step.
CARELESS = """
import pathlib, sys, time
out = pathlib.Path(sys.argv[1])
if not out.exists():
    with out.open("w", buffering=1) as file:
        for line in range(20):
            print(line, file=file)
            time.sleep(0.02)
"""
CAREFUL = """
import pathlib, sys, time
out = pathlib.Path(sys.argv[1])
partial = out.with_name("x.partial")
with partial.open("w", buffering=1) as file:
    for line in range(20):
        print(line, file=file)
        time.sleep(0.02)
partial.rename(out)
"""


class Program(Case):
    """A case whose program is a script."""

    def command(self, base, folder):
        return [sys.executable, "-c", self.arguments[0], str(folder / self.result)]


@pytest.mark.parametrize(("script", "survived"), [(CARELESS, "0"), (CAREFUL, "3")])
def test_a_program_that_loses_what_it_made_is_noticed(tmp_path, script, survived, capsys):
    row = run_case(Program("export", "a.txt", (script,)), tmp_path, 3, random.Random(1))
    assert (row["kills"], row["survived"]) == ("3", survived)
    assert row["one changed byte is found"] == "yes"
    assert ("differs" in capsys.readouterr().err) == (survived == "0")


def test_files_that_are_left_over_are_noticed(tmp_path):
    leaving = CAREFUL.replace('"x.partial"', 'f"{time.time_ns()}.partial"')
    row = run_case(Program("export", "a.txt", (leaving,)), tmp_path, 2, random.Random(1))
    assert row["survived"] == "0"
