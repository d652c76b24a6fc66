"""When a scale has learnt what it can."""

from __future__ import annotations

from dataclasses import dataclass

#: A validation loss counts as better when it is lower by this share.
_BETTER = 0.001


@dataclass
class Plateau:
    """Watches a validation loss; `patience` is the number of steps without a better one."""

    patience: int
    best: float = float("inf")
    best_step: int = 0

    def is_reached(self, step: int, loss: float) -> bool:
        """Take note of a loss and tell whether it has not become better for too long."""
        if loss < self.best * (1 - _BETTER):
            self.best, self.best_step = loss, step
        return step - self.best_step >= self.patience
