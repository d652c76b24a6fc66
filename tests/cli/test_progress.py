import io
import signal
import sys

import pytest

from napari_msgan.cli import _progress
from napari_msgan.cli._progress import Lines, progress_shown, stopped_between_steps


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    return now


def lines_of(clock, seconds_per_step, total):
    out = io.StringIO()
    show = Lines(out)
    for done in range(1, total + 1):
        clock[0] += seconds_per_step
        show("tiles", done, total)
    return out.getvalue().splitlines()


def test_long_job_has_a_line_every_10_s(clock):
    lines = lines_of(clock, 1.0, 1000)
    assert len(lines) == 100
    assert lines[0] == "tiles: 11 of 1000 (1 %), 10.0 s, 16 min 29 s left"
    assert lines[-1].startswith("tiles: 1000 of 1000 (100 %), 16 min")


def test_medium_job_has_a_line_every_10_percent(clock):
    lines = lines_of(clock, 0.5, 100)
    assert [line.split()[1] for line in lines] == ["10", *map(str, range(20, 101, 10))]


def test_quick_job_has_one_line(clock):
    assert lines_of(clock, 0.001, 50) == ["tiles: 50 of 50 (100 %), 0.0 s"]


def test_nearly_all_is_not_all(clock):
    assert "tiles: 999 of 1000 (99 %)" in [line.split(",")[0] for line in lines_of(clock, 10, 1000)]


def test_each_stage_ends_with_a_line(clock):
    out = io.StringIO()
    show = Lines(out)
    show("sketch", 2, 2)
    show("tiles", 1, 1, "l1 0.5")
    assert out.getvalue() == "sketch: 2 of 2 (100 %), 0.0 s\ntiles: 100 %, 0.0 s, l1 0.5\n"


def test_time_left_is_that_of_steps_done_since_the_start(clock):
    out = io.StringIO()
    show = Lines(out)
    for seconds, done in ((0, 60), (10, 60), (30, 70)):
        clock[0] += seconds
        show("tiles", done, 100)
    assert out.getvalue().splitlines() == [
        "tiles: 60 of 100 (60 %), 10.0 s",
        "tiles: 70 of 100 (70 %), 40.0 s, 2 min 0 s left",
    ]


def test_ctrl_c_is_asked_for_once_and_stops_when_pressed_again(capsys):
    before = signal.getsignal(signal.SIGINT)
    with stopped_between_steps() as is_asked:
        assert not is_asked()
        signal.raise_signal(signal.SIGINT)
        assert is_asked()
        assert "stopping after this step" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_terminal_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with progress_shown(quiet=False) as show:
        show("sketch", 1.0, 1.0)
        show("tiles", 3, 12)
        show("tiles", 12, 12, "l1 0.5")
    shown = sys.stderr.getvalue()
    assert "12 of 12 (100 %)" in shown
    assert "l1 0.5" in shown
    assert "\x1b[" in shown


def test_quiet_shows_nothing(capsys):
    with progress_shown(quiet=True) as show:
        show("tiles", 12, 12)
    assert capsys.readouterr() == ("", "")
