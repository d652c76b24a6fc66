"""When a scale has learnt all it can."""

from __future__ import annotations

from dataclasses import dataclass

#: A validation loss counts as better if it is lower by at least this share.
_BETTER = 0.001


@dataclass
class Plateau:
    """Watches a validation loss; `patience` is the number of steps allowed without a better one."""

    patience: int
    best: float = float("inf")
    best_step: int = 0

    def is_reached(self, step: int, loss: float) -> bool:
        """Record a loss and return whether it has failed to improve for too long."""
        if loss < self.best * (1 - _BETTER):
            self.best, self.best_step = loss, step
        return step - self.best_step >= self.patience
