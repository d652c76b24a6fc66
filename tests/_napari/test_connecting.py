from __future__ import annotations

from unittest.mock import Mock

from psygnal import Signal

from napari_msgan._napari.connecting import connected


class Emitter:
    first, second = Signal(int), Signal(int)


def test_what_is_connected_together_is_disconnected_together_and_once():
    emitter, seen = Emitter(), Mock()
    disconnect = connected((emitter.first, seen.first), (emitter.second, seen.second))
    emitter.first.emit(1)
    emitter.second.emit(2)
    disconnect()
    emitter.first.emit(3)
    emitter.second.emit(4)
    seen.first.assert_called_once_with(1)
    seen.second.assert_called_once_with(2)
    emitter.first.connect(seen.first)  # by somebody else
    disconnect()
    emitter.first.emit(5)
    assert seen.first.call_count == 2
