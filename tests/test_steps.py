from __future__ import annotations

import os
import threading
import time

import pytest

from napari_msgan.steps import changed, cpu_threads, iter_in_threads, n_cores, run_to_end


def test_every_item_is_worked_on_once_and_counted():
    seen = []
    assert len(list(iter_in_threads(seen.append, range(50), 3))) == 50
    assert sorted(seen) == list(range(50))


def test_few_items_are_taken_before_others_are_done():
    taken, done = [], []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    ahead = []
    for _ in iter_in_threads(done.append, items(), 2):
        ahead.append(len(taken) - len(done))
    assert max(ahead) <= 5
    assert len(done) == 100


def test_who_stops_waits_only_for_what_is_in_progress():
    begun, taken, release = [], [], threading.Event()

    def work(item):
        begun.append(item)
        if item:
            release.wait(10)

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    start = time.monotonic()
    steps = iter_in_threads(work, items(), 2)
    next(steps)
    assert len(taken) == 5  # one is done, and two wait for each thread
    threading.Timer(0.5, release.set).start()
    steps.close()
    assert time.monotonic() - start < 5
    assert len(begun) <= 3  # the first, and one in each thread


def test_cores_are_those_that_this_process_may_use_where_the_system_tells(monkeypatch):
    allowed = {0: {1, 4, 5}}
    monkeypatch.setattr(os, "sched_getaffinity", allowed.__getitem__, raising=False)
    assert n_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")  # as on Windows and macOS
    for cores, counted in ((6, 6), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert n_cores() == counted


def test_beside_a_gpu_all_cores_do_what_the_cpu_does():
    cores = n_cores()
    assert [cpu_threads("cpu", n) for n in (1, 3, None)] == [1, 3, cores]
    assert [cpu_threads("cuda", n) for n in (1, 3, None)] == [cores] * 3


def test_error_of_an_item_reaches_the_caller():
    def work(item):
        if item == 3:
            raise ArithmeticError("item 3 broke")

    with pytest.raises(ArithmeticError, match="item 3"):
        run_to_end(iter_in_threads(work, range(10), 2))


def counting(closed):
    try:
        yield from range(5)
    finally:
        closed.append(True)


def test_who_stops_closes_the_steps_even_if_the_error_is_kept():
    closed = []

    def stop(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as kept:  # as a notebook keeps it, with all its frames
        run_to_end(counting(closed), stop)
    assert kept.value.__traceback__ is not None
    assert closed == [True]


def test_changed_steps_are_closed_with_their_consumer():
    closed = []
    inner = counting(closed)
    steps = changed(inner, str)
    assert next(steps) == "0"
    steps.close()
    assert closed == [True]  # although `inner` is still known here
    assert list(changed(counting(closed), str)) == list("01234")
