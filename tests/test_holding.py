import threading

import torch

from napari_msgan.holding import Held
from napari_msgan.refiner import _torch_threads_put_back


def test_the_first_makes_a_setting_and_the_last_undoes_it():
    calls = []

    def make():
        calls.append("made")
        return lambda: calls.append("undone")

    held = Held(make)
    first, second = held.held(), held.held()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert calls == ["made"]
    second.__exit__(None, None, None)
    with held.held():
        assert calls == ["made", "undone", "made"]
    assert calls[3:] == ["undone"]


def test_jobs_that_overlap_leave_the_number_of_torch_threads():
    """Each put back what it found, which for the second was what the first had set."""

    def later():
        seen = []
        thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        return seen[0]

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first, second = _torch_threads_put_back.held(), _torch_threads_put_back.held()
        first.__enter__()
        torch.set_num_threads(1)
        second.__enter__()
        first.__exit__(None, None, None)
        second.__exit__(None, None, None)
        assert later() == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
