"""Schedules: what the learning rates and Muon's momentum are multiplied by at a global step. Pure functions."""

import math
from dataclasses import dataclass
from typing import Literal

Shape = Literal["linear", "cosine", "constant"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Warm-up, constant, warm-down: a function of the global step alone, the same on every rank.

    Attributes:
        init_lr_frac: Scale of all learning rates at the constant part.
        warmup_steps: Steps over which the scale rises linearly from 1 / warmup_steps of that.
        warmdown_frac: Fraction of the run, at its end, over which it falls.
        final_lr_frac: Fraction of `init_lr_frac` that it falls to.
        shape: How it falls; "constant" does not.
    """

    init_lr_frac: float = 0.8
    warmup_steps: int = 0
    warmdown_frac: float = 0.5
    final_lr_frac: float = 0.0
    shape: Shape = "linear"

    def lr_scale(self, step: int, num_steps: int) -> float:
        """The scale at `step` of a run of `num_steps` steps.

        With the defaults: init_lr_frac x (1 if step < h else 1 - (step - h) / (num_steps - h)), h = num_steps // 2.
        """
        rise = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        start = int(num_steps * (1.0 - self.warmdown_frac))
        if self.shape == "constant" or step < start:
            return self.init_lr_frac * rise
        left = 1.0 - (step - start) / max(1, num_steps - start)
        if self.shape == "cosine":
            left = 0.5 - 0.5 * math.cos(math.pi * left)
        return self.init_lr_frac * rise * (self.final_lr_frac + (1.0 - self.final_lr_frac) * left)


def muon_momentum(step: int) -> float:
    """Muon's momentum: from 0.85 to 0.95 over the first 300 steps, then constant."""
    return 0.85 + 0.10 * min(step / 300, 1.0)
