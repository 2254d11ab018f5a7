"""Commands that repeat what a manifest records: the settings that differ from their defaults. Pure."""

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any, Final

from nanosft.knowledge import SHIPPED
from nanosft.lineage import Ancestor
from nanosft.manifest import Manifest
from nanosft.quality.style import BANNED_PHRASES
from nanosft.settings.audit import AuditSettings
from nanosft.settings.base import StageSettings, option_name
from nanosft.settings.evaluate import EvalSettings
from nanosft.settings.gates import GATE_NAMES
from nanosft.settings.generate import GenerateSettings
from nanosft.settings.mix import MixSettings
from nanosft.settings.train import TrainSettings

_CLASSES: Final[Mapping[str, type[StageSettings]]] = {
    "generated": GenerateSettings,
    "generated-shard": GenerateSettings,
    "mixture": MixSettings,
    "model": TrainSettings,
    "state": TrainSettings,
    "evaluation": EvalSettings,
    "audited": AuditSettings,
}
_RECIPE_FILE: Final = "recipe.toml"
_MIX_OPTIONS: Final = frozenset(MixSettings.model_fields)
_SOURCE_KEY: Final = re.compile(r"sources\[(\d+)\]\.(.+)")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def repeat_command(ancestor: Ancestor) -> str | None:
    """The command that makes this set or model again; None of what no command made."""
    manifest = ancestor.manifest
    if manifest is None or manifest.kind not in _CLASSES:
        return None
    values = _generate_settings(manifest) if manifest.kind.startswith("generated") else dict(manifest.settings)
    out = ancestor.uri.rpartition("/")[0] if manifest.kind == "audited" else ancestor.uri
    recipe = {"recipe": _RECIPE_FILE} if manifest.kind == "mixture" else {}
    return command_line(_CLASSES[manifest.kind], {**values, **recipe, "out": out})


def command_line(cls: type[StageSettings], values: Mapping[str, Any]) -> str:
    """`nanosft …` with those values that are fields and not defaults, the required ones first."""
    names = sorted(cls.model_fields, key=lambda name: (not cls.model_fields[name].is_required(), name != "out"))
    words = ["nanosft", *cls.command.split()]
    for name in names:
        field = cls.model_fields[name]
        value = values.get(name)
        default = field.get_default(call_default_factory=True)
        if value is None or (not field.is_required() and _plain(value) == _plain(default)):
            continue
        option = option_name(name, field)
        if not option.startswith("--"):
            words += [shlex.quote(str(value))]
        elif isinstance(value, bool):
            words.append(option if value else f"--no-{option.removeprefix('--')}")
        else:
            for item in value if isinstance(value, list | tuple) else [value]:
                words += [option, shlex.quote(str(item))]
    return " ".join(words)


def changed_settings(manifest: Manifest) -> list[tuple[str, str]]:
    """(setting, value) of what differs from its default, as the manifest has it; of a mixture, all that is set."""
    cls = _CLASSES.get(manifest.kind)
    settings = _generate_settings(manifest) if manifest.kind.startswith("generated") else manifest.settings
    found = []
    for name, value in sorted(settings.items()):
        field = cls.model_fields.get(name) if cls is not None else None
        default = field.get_default(call_default_factory=True) if field is not None else None
        if value is not None and value not in ([], "", {}) and _plain(value) != _plain(default):
            found.append((name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    return found


def write_recipe(settings: Mapping[str, Any]) -> str:
    """A mixture's recipe as TOML, of the flat keys that its manifest has: `deduplicate.near`, `sources[0].name`."""
    kept = {key: value for key, value in settings.items() if value not in (None, []) and key not in _MIX_OPTIONS}
    top = sorted((key.count("."), key) for key in kept if not key.startswith("sources["))
    lines = [_toml_line(key, kept[key]) for _, key in top]
    sources: dict[int, list[str]] = {}
    for key in sorted(kept):
        if match := _SOURCE_KEY.fullmatch(key):
            sources.setdefault(int(match[1]), []).append(_toml_line(match[2], kept[key]))
    for number in sorted(sources):
        lines += ["", "[[sources]]", *sources[number]]
    return "\n".join(lines).strip() + "\n"


def _toml_line(key: str, value: object) -> str:
    words = [word if _BARE_KEY.fullmatch(word) else json.dumps(word) for word in key.split(".")]
    return f"{'.'.join(words)} = {json.dumps(value, ensure_ascii=False)}"


def _generate_settings(manifest: Manifest) -> dict[str, Any]:
    """A plan's settings as `nanosft generate` takes them: gates apart, knowledge and dimensions by their URI."""
    settings = dict(manifest.settings)
    gates = settings.pop("gates", None)
    by_hash = {parent.sha256: parent.uri for parent in manifest.parents if parent.uri != SHIPPED}
    settings["knowledge"] = by_hash.get(str(settings.get("knowledge")))
    settings["dimensions"] = by_hash.get(str(settings.get("dimensions")))
    settings["examples"] = by_hash.get(str(settings.get("examples")))
    if settings.get("provider") != "openrouter":
        settings.pop("model", None)
    if isinstance(gates, dict):
        settings |= {
            "skip_gates": [name for name in GATE_NAMES if gates.get(name) is False],
            "strict_grounding": gates.get("strict_grounding"),
            "ascii": gates.get("ascii_policy"),
            "min_chars": gates.get("min_chars"),
            "max_chars": gates.get("max_chars"),
            "banned_phrases": [text for text in gates.get("banned_phrases", ()) if text not in BANNED_PHRASES],
            "near_duplicate_threshold": gates.get("near_threshold"),
        }
    return settings


def _plain(value: object) -> object:
    """A value as JSON has it, so that a tuple equals a list."""
    return list(value) if isinstance(value, tuple) else value
