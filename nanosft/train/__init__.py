"""Supervised finetuning of a nanochat base: `nanosft train`, `torchrun … -m nanosft train`, `nanosft launch … train …`.

`stage` reads as load, plan, assemble, train. `data` turns conversations into a plan of packed rows, known before the
first step; `batch` makes tensors of them; `step` is one train step, with `loss` and the optimizer of `optim`; `loop`
goes through the plan with what `run` holds, `evaluate` and `metrics` beside it; `state` saves what a run is resumed
from and `finish` what it ends with. `preflight` says beforehand what would not work, `launch` starts the ranks; what
they say to one another is `nanosft.distributed`.
"""
