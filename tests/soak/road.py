"""The road from a knowledge base to exports, walked twice: on S3 with faults and kills, and undisturbed in a directory.

Both walks of a stage read the same inputs, what the disturbed walk has made before, so that each stage is compared by
itself. A stage that is not done ends the road: the next ones would have nothing to read.
"""

from collections.abc import Callable, Iterator
from typing import Final

from tests.soak.making import walk_eval, walk_export_data, walk_export_model, walk_mix, walk_report, walk_train
from tests.soak.table import Stage
from tests.soak.world import World
from tests.soak.writing import walk_batches, walk_one_by_one

_STAGES: Final[tuple[Callable[[World], Stage], ...]] = (
    walk_one_by_one,
    walk_batches,
    walk_mix,
    walk_train,
    walk_eval,
    walk_report,
    walk_export_model,
    walk_export_data,
)


def walk_road(world: World) -> Iterator[Stage]:
    """Stage by stage, until the end or one that did not come to its own."""
    for walk in _STAGES:
        stage = walk(world)
        yield stage
        if not stage.delivered:
            return
