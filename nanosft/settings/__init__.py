"""One frozen settings class per command; the command line, the environment and `--config` all fill the same fields."""

from nanosft.settings.base import StageSettings, load_settings, unknown_variables

__all__ = ["StageSettings", "load_settings", "unknown_variables"]
