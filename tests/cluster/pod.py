"""A pod as processes: init containers one after the other, then the main container."""

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ENTRYPOINT = ["/usr/bin/tini", "--", "nanosft"]
TINI = ["/usr/bin/tini", "--"]
IMAGE_ENV = {
    "HOME": "/scratch",
    "TMPDIR": "/scratch",
    "USER": "nanosft",
    "LOGNAME": "nanosft",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
"""Variables of the image but PATH, as the Dockerfile has them."""
MARK = "TEST_POD"
"""A variable that tells a pod's processes from all others."""
_REFERENCE = re.compile(r"\$(?:\$|\(([A-Za-z_][A-Za-z0-9_]*)\))")


@dataclass
class Objects:
    """What pods refer to by name."""

    config_maps: dict[str, dict[str, str]] = field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    api_env: dict[str, str] = field(default_factory=dict)
    """Variables of pods that get their account's token."""


@dataclass
class Pod:
    """A pod and, once started, its process.

    Attributes:
        name: Unique among all pods that ever were.
        spec: The pod spec of the manifest.
        folder: Its volumes and logs.
        extra_env: What its controller adds to main containers.
        fields: What its controller gives it as labels and annotations, by the path that a fieldRef has.
        disrupted: Whether Kubernetes itself ended it (condition DisruptionTarget).
        failed_container: Name of the container that failed; empty before.
        exit_code: Of the container that failed, or 0; None while it runs.
    """

    name: str
    spec: dict[str, Any]
    folder: Path
    objects: Objects
    extra_env: dict[str, str] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    disrupted: bool = False
    failed_container: str = ""
    exit_code: int | None = None
    _waiting: list[dict[str, Any]] = field(default_factory=list)
    _container: str = ""
    _process: subprocess.Popen[bytes] | None = None
    _kill_at_s: float | None = None
    _mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(self) -> None:
        """Start the first container."""
        self.folder.mkdir(parents=True)
        self._waiting = [*self.spec.get("initContainers", []), self.spec["containers"][0]]
        self._start_next()

    def poll(self) -> None:
        """Go on to the next container when one has ended; enforce the grace period."""
        if self._process is None or self.exit_code is not None:
            return
        code = self._process.poll()
        if code is None:
            if self._kill_at_s is not None and time.monotonic() > self._kill_at_s:
                self.kill()
            return
        self._end_container()
        code = 128 - code if code < 0 else code  # as a shell, tini and Kubernetes state a signal
        if code:
            self.exit_code, self.failed_container = code, self._container
        elif self._kill_at_s is not None or not self._waiting:
            self.exit_code = 0
        else:
            self._start_next()

    def terminate(self) -> None:
        """SIGTERM to the running container, and SIGKILL to what is left after the grace period."""
        if self._process is not None and self.exit_code is None and self._kill_at_s is None:
            self._kill_at_s = time.monotonic() + self.spec.get("terminationGracePeriodSeconds", 30)
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to all processes of the running container, as when a node is lost or memory is out."""
        if self._process is not None and self.exit_code is None:
            self._end_container()

    def close(self) -> None:
        """Kill what runs, and wait for its end."""
        self.kill()
        if self._process is not None:
            self._process.wait()

    @property
    def container(self) -> str:
        """Name of the container that runs, or ran last."""
        return self._container

    def log(self, container: str | None = None) -> str:
        """What a container has written; of the main one by default."""
        path = self.folder / f"{container or self.spec['containers'][0]['name']}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _start_next(self) -> None:
        container = self._waiting.pop(0)
        self._container = container["name"]
        env, command = self._environment(container, main=not self._waiting), []
        command = [*container.get("command", ENTRYPOINT), *container.get("args", [])]
        command = [self._localize(expand(argument, env), container) for argument in command]
        if command[: len(TINI)] == TINI:  # process 1 of the image; here the runner does its work
            command = command[len(TINI) :]
        with (self.folder / f"{self._container}.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env, cwd=ROOT, start_new_session=True
            )

    def _environment(self, container: dict[str, Any], *, main: bool) -> dict[str, str]:
        values = dict(self.objects.api_env) if self.spec.get("automountServiceAccountToken") else {}
        for source in container.get("envFrom", []):
            values.update(self.objects.config_maps[source["configMapRef"]["name"]])
        for item in container.get("env", []):
            if (value := self._value(item)) is not None:
                values[item["name"]] = value
        values.update(self.extra_env if main else {})
        image = {name: value.replace("/scratch", str(self._volume("scratch"))) for name, value in IMAGE_ENV.items()}
        passed = {
            name: os.environ[name]
            for name in ("LANG", "LD_LIBRARY_PATH", "COVERAGE_PROCESS_START", "PYTHONPATH")
            if name in os.environ
        }
        localized = {name: self._localize(value, container) for name, value in values.items()}
        return {**passed, **image, MARK: self._mark, "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin", **localized}

    def _value(self, item: dict[str, Any]) -> str | None:
        if "value" in item:
            return str(item["value"])
        if "fieldRef" in item["valueFrom"]:
            return self.fields.get(item["valueFrom"]["fieldRef"]["fieldPath"], "")
        reference = item["valueFrom"]["secretKeyRef"]
        secret = self.objects.secrets.get(reference["name"], {})
        if reference["key"] not in secret and not reference.get("optional"):
            raise KeyError(f"Secret {reference['name']} has no {reference['key']}")  # CreateContainerConfigError
        return secret.get(reference["key"])

    def _localize(self, text: str, container: dict[str, Any]) -> str:
        for mount in container.get("volumeMounts", []):
            if not mount["mountPath"].startswith("/dev/"):
                pattern = rf"(?<![\w/]){re.escape(mount['mountPath'])}(?=/|$|\W)"
                text = re.sub(pattern, str(self._volume(mount["name"])), text)
        return text

    def _volume(self, name: str) -> Path:
        folder = self.folder / "volumes" / name
        if not folder.exists():
            folder.mkdir(parents=True)
            (volume,) = [item for item in self.spec["volumes"] if item["name"] == name]
            for key, text in (
                self.objects.config_maps[volume["configMap"]["name"]].items() if "configMap" in volume else ()
            ):
                (folder / key).write_text(text)
        return folder

    def _end_container(self) -> None:
        """SIGKILL to every process of the pod: torchrun's ranks are no part of its process group."""
        own = f"{MARK}={self._mark}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if own in (folder / "environ").read_bytes().split(b"\0"):
                    os.kill(int(folder.name), signal.SIGKILL)
            except OSError:  # it has ended meanwhile, or is another user's
                continue


def expand(text: str, env: Mapping[str, str]) -> str:
    """The text with `$(NAME)` replaced as Kubernetes does: unknown names stay, `$$` is a dollar."""

    def value(match: re.Match[str]) -> str:
        return "$" if match[1] is None else env.get(match[1], match[0])

    return _REFERENCE.sub(value, text)
