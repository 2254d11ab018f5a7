"""What changes the parameters, and how fast.

`hyperparameters` are the run's, resolved from settings and base; `schedule` scales the learning rates at each step;
`optimizer` updates; `warm_start` takes over the momenta that pretraining left.
"""

from nanosft.train.optim.hyperparameters import HyperParameters
from nanosft.train.optim.optimizer import Group, MuonAdamW, OptimizerConfig, group_parameters
from nanosft.train.optim.schedule import Schedule, muon_momentum
from nanosft.train.optim.warm_start import load_moments

__all__ = [
    "Group",
    "HyperParameters",
    "MuonAdamW",
    "OptimizerConfig",
    "Schedule",
    "group_parameters",
    "load_moments",
    "muon_momentum",
]
