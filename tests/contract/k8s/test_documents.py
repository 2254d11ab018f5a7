"""compose.yaml and the READMEs: every nanosft command line in them is one of the CLI, every variable a setting."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from nanosft import __version__
from nanosft.settings import StageSettings, load_settings, unknown_variables
from nanosft.settings.base import ENV_PREFIX
from tests.cluster.pod import ENTRYPOINT, IMAGE_ENV
from tests.contract.k8s.commands import parse

ROOT = Path(__file__).parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
STAGES = ("generate", "mix", "train", "eval", "report", "chat", "serve")


@pytest.mark.parametrize("stage", STAGES)
def test_a_compose_service_runs_its_command_with_settings_that_are_accepted(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = COMPOSE["services"][stage]
    assert service["entrypoint"] == [*ENTRYPOINT, stage]
    assert service["image"] == f"nanosft-cpu:{__version__}"
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    values = {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text) for name, text in service["environment"].items()}
    assert not unknown_variables(StageSettings.__subclasses__(), values)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    (call,) = parse([stage])
    settings = load_settings(call.cls, call.options)
    given = {name for name in values if name.startswith(ENV_PREFIX)}
    assert {name.removeprefix(ENV_PREFIX).lower() for name in given} <= settings.model_fields_set


def test_compose_stages_meet_at_the_same_prefixes() -> None:
    env = {stage: COMPOSE["services"][stage]["environment"] for stage in STAGES}
    assert env["train"]["NANOSFT_DATA"] == env["mix"]["NANOSFT_OUT"]
    assert env["eval"]["NANOSFT_MODEL"] == env["report"]["NANOSFT_URIS"] == env["train"]["NANOSFT_OUT"]
    assert env["chat"]["NANOSFT_MODEL"] == env["serve"]["NANOSFT_MODEL"] == env["train"]["NANOSFT_OUT"]
    assert f'"{env["generate"]["NANOSFT_OUT"]}"' in COMPOSE["configs"]["recipe"]["content"]


def test_compose_serves_on_loopback_alone() -> None:
    assert COMPOSE["services"]["serve"]["ports"] == ["127.0.0.1:8000:8000"]


def test_command_lines_in_the_documents_are_ones_of_the_cli() -> None:
    lines = []
    for name in ("infra/README.md", "infra/compose.yaml", "k8s/README.md"):
        text = (ROOT / name).read_text().replace("\\\n", " ")
        compose = r"docker compose -f infra/compose\.yaml run --rm"
        found = re.findall(rf"^(?:#\s+)?(?:nanosft_run|{compose}) +(.*)$", text, re.MULTILINE)
        lines += [line.split("  ")[0] for line in found]
    stages = [words for line in lines if (words := shlex.split(line, comments=True)) and words[0] in STAGES]
    assert len(stages) >= 12
    for words in stages:
        assert list(parse(words))


def test_the_test_cluster_gives_containers_what_the_image_gives_them() -> None:
    entrypoint = re.search(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert entrypoint
    assert yaml.safe_load(entrypoint[1]) == ENTRYPOINT
    (runtime,) = re.findall(r"^ENV (PATH=.*?[^\\])\n[A-Z]", DOCKERFILE, re.MULTILINE | re.DOTALL)
    values = dict(item.split("=", 1) for item in runtime.replace("\\\n", " ").split())
    assert values.pop("PATH") == "/opt/venv/bin:/opt/torch/bin:$PATH"
    assert values == IMAGE_ENV


def test_versions_in_the_dockerfile_are_this_one() -> None:
    assert f"ARG VERSION={__version__}\n" in DOCKERFILE
    pinned = re.findall(r"torch==[\d.]+", DOCKERFILE)
    assert set(pinned) == set(re.findall(r"torch==[\d.]+", (ROOT / "pyproject.toml").read_text()))
