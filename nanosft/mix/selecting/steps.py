"""What a recipe asks of the steps: each source's validation rows, and how much of it is taken. Pure."""

from collections.abc import Mapping

from nanosft.errors import ConfigError
from nanosft.mix.recipe import MAX_EPOCHS, Recipe
from nanosft.mix.selecting.apportion import Demand, apportion


def plan_validation(recipe: Recipe, kept: Mapping[int, int]) -> dict[int, int]:
    """For each source the number of validation rows, of those it has left.

    Raises:
        ConfigError: They leave a source none for training.
    """
    wanted = {}
    for index, source in enumerate(recipe.sources):
        share = recipe.split.val_share if source.val_share is None else source.val_share
        num = kept.get(index, 0)
        wanted[index] = source.val_rows if source.val_rows is not None else round(share * num)
        if num and wanted[index] >= num:
            own = "val_rows" if source.val_rows is not None else "val_share" if source.val_share is not None else None
            key = f"sources[{index}].{own}" if own else "split.val_share"
            raise ConfigError(
                f"{key}: {source.name!r} has {num} rows left, so {wanted[index]} for validation leave none for training"
            )
    return wanted


def apportion_sources(recipe: Recipe, available: Mapping[int, int]) -> list[int]:
    """The amount of each source, in the unit of the mixture.

    Args:
        recipe: The recipe.
        available: What one epoch of each source's train rows is; sources without any are missing.

    Raises:
        ConfigError: No mixture of these sources is what was asked for, or nothing is left; the message says why.
    """
    amounts = apportion(
        [
            Demand(
                name=source.name,
                available=available.get(index, 0),
                ratio=source.ratio,
                epochs=source.epochs,
                rest=source.rest,
                synthetic=source.synthetic,
            )
            for index, source in enumerate(recipe.sources)
        ],
        synthetic_share=recipe.synthetic_share,
        total=recipe.total,
        max_epochs=recipe.max_epochs,
    )
    if not any(amounts):
        raise ConfigError("the mixture is empty: no source has a train row left; look at --dry-run with fewer filters")
    for index, (source, amount) in enumerate(zip(recipe.sources, amounts, strict=True)):
        if amount > MAX_EPOCHS * available.get(index, 0):
            raise ConfigError(
                f"source {source.name!r} would be repeated {amount // available[index]:,} times: {MAX_EPOCHS:,} passes "
                "are the most; lower the total"
            )
    return amounts
