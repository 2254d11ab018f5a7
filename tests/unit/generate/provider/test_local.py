import importlib.util
import sys
from typing import Any

import pytest

from nanosft.errors import ConfigError
from nanosft.generate.provider.local import narrow_schema, serve_local_model

FORMAT: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "conversation", "strict": True, "schema": {}}}


def test_without_its_packages_the_error_says_how_to_install_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)  # as if it were not installed
    with pytest.raises(ConfigError, match="pip install"), serve_local_model():
        pass
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="finds no model"), serve_local_model():
        pass


def test_the_narrowed_schema_fixes_roles_and_the_first_message():
    messages = narrow_schema(FORMAT, "Who are you?", 4)["json_schema"]["schema"]["properties"]["messages"][
        "prefixItems"
    ]
    assert [item["properties"]["role"]["const"] for item in messages] == ["user", "assistant"] * 2
    assert messages[0]["properties"]["content"] == {"const": "Who are you?"}
    assert "const" not in messages[1]["properties"]["content"]
    assert FORMAT["json_schema"]["schema"] == {}
