"""Seeded inputs of every target work or end in a clear error; hypothesis shrinks what does not."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz.engines import INPUT_BYTES, seeded_inputs
from benchmarks.fuzz.targets import TARGETS

#: How many inputs fit into a test; the benchmark tries 10 000. All together take about a minute.
COUNTS = dict.fromkeys(TARGETS, 300) | {
    "model-json": 100,
    "model-folder": 150,
    "store": 200,
    "training": 150,
    "command-lines": 150,
}


@pytest.mark.parametrize("name", TARGETS)
def test_no_seeded_input_does_harm(name, scratch):
    target = TARGETS[name](scratch)
    found = {
        data.hex(): str(finding)
        for data in seeded_inputs(COUNTS[name], 0)
        if (finding := target.check(data))
    }
    assert not found


@pytest.mark.parametrize("name", ["regions", "nifti", "training"])
def test_no_input_that_hypothesis_thinks_of_does_harm(name, scratch):
    target = TARGETS[name](scratch)

    @settings(
        max_examples=150,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.binary(max_size=INPUT_BYTES))
    def check(data):
        assert target.check(data) is None

    check()


@pytest.mark.parametrize("name", TARGETS)
def test_most_inputs_of_a_target_differ_and_some_are_used(name, scratch):
    """Else a target that refuses everything at its first line would look safe."""
    from napari_msgan.errors import MsganError

    target, used, refused = TARGETS[name](scratch), 0, set()
    use = target.use

    def watched(choices, folder):
        nonlocal used
        try:
            use(choices, folder)
            used += 1
        except MsganError as error:
            refused.add(str(error))
            raise

    target.use = watched
    for data in seeded_inputs(60, 0):
        target.check(data)
    assert used
    assert len(refused) > 3 or name == "command-lines"  # there it is the exit code that says it
