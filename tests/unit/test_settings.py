"""Settings: three sources, one order of precedence, errors that name the option."""

from typing import ClassVar

import pytest
from pydantic import Field, SecretStr

from nanosft.errors import ConfigError
from nanosft.settings import StageSettings, load_settings, unknown_variables
from nanosft.settings.audit import AuditSettings
from nanosft.settings.generate import GenerateSettings
from nanosft.settings.knowledge import KnowledgeCheckSettings
from nanosft.settings.mix import MixSettings
from nanosft.settings.train import TrainSettings


class BrewSettings(StageSettings):
    command: ClassVar[str] = "brew"

    out: str = Field(description="Where the tea goes.")
    num_cups: int = Field(default=2, ge=1, description="Cups.", json_schema_extra={"env": "POT_CUPS"})
    herbs: tuple[str, ...] = Field(default=(), description="Herbs.")
    key: SecretStr | None = Field(default=None, description="Of the pantry.", json_schema_extra={"env": "PANTRY_KEY"})


@pytest.fixture
def config(tmp_path):
    def write(text):
        path = tmp_path / "settings.toml"
        path.write_text(text)
        return str(path)

    return write


def test_the_command_line_wins_over_the_environment_that_over_the_file_that_over_the_default(config, monkeypatch):
    path = config('out = "file"\nnum_cups = 3\n')
    assert load_settings(BrewSettings, {"out": "x"}).num_cups == 2
    assert load_settings(BrewSettings, {}, config=path).num_cups == 3
    monkeypatch.setenv("NANOSFT_NUM_CUPS", "4")
    assert load_settings(BrewSettings, {}, config=path).num_cups == 4
    assert load_settings(BrewSettings, {"num_cups": 5}, config=path) == BrewSettings(out="file", num_cups=5)


def test_a_variable_with_its_own_name_is_read_after_the_nanosft_one(monkeypatch):
    monkeypatch.setenv("POT_CUPS", "7")
    assert load_settings(BrewSettings, {"out": "x"}).num_cups == 7
    monkeypatch.setenv("NANOSFT_NUM_CUPS", "4")
    assert load_settings(BrewSettings, {"out": "x"}).num_cups == 4


def test_an_empty_variable_counts_as_not_set(monkeypatch):
    monkeypatch.setenv("NANOSFT_NUM_CUPS", "")
    assert load_settings(BrewSettings, {"out": "x"}).num_cups == 2


@pytest.mark.parametrize("text", ["mint, sage", '["mint", "sage"]'])
def test_a_list_in_a_variable_has_commas_or_is_json(monkeypatch, text):
    monkeypatch.setenv("NANOSFT_HERBS", text)
    assert load_settings(BrewSettings, {"out": "x"}).herbs == ("mint", "sage")


def test_a_table_with_the_commands_name_wins_over_the_top_level_and_other_tables_are_left_alone(config):
    path = config('out = "a"\n[brew]\nout = "b"\n[train]\nanything = 1\n')
    assert load_settings(BrewSettings, {}, config=path).out == "b"


def test_a_list_in_a_variable_that_is_no_json_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setenv("NANOSFT_HERBS", '["mint"')
    with pytest.raises(ConfigError, match="NANOSFT_HERBS: not JSON"):
        load_settings(BrewSettings, {"out": "x"})


def test_a_command_of_two_words_has_a_table_in_a_table(config):
    path = config('[knowledge.check]\nuri = "a"\n[knowledge.draft]\nuri = "b"\n')
    assert load_settings(KnowledgeCheckSettings, {}, config=path).uri == "a"


def test_constructing_settings_reads_no_environment(monkeypatch):
    monkeypatch.setenv("NANOSFT_NUM_CUPS", "9")
    assert BrewSettings(out="x").num_cups == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--out is missing: give it, or set NANOSFT_OUT"),
        ({"out": "x", "num_cups": 0}, "--num-cups: Input should be greater than or equal to 1"),
        ({"out": "x", "num_cups": "many"}, "--num-cups: Input should be a valid integer"),
    ],
)
def test_an_error_names_the_option(options, message):
    with pytest.raises(ConfigError, match=message):
        load_settings(BrewSettings, options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_cup = 1", "'num_cup' is no setting of `nanosft brew`; did you mean 'num_cups'"),
        ("[brew]\nhrbs = []", "'hrbs' is no setting of `nanosft brew`; did you mean 'herbs'"),
        ("brew = 3", r"'brew' must be a table: write \[brew\]"),
        ("[brwe]\nnum_cups = 1", r"\[brwe\] is no command; did you mean \[brew\]"),
        ("out =", "not TOML"),
    ],
)
def test_an_error_in_a_file_names_the_file_and_the_key(config, text, message):
    path = config(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(BrewSettings, {"out": "x"}, config=path)
    assert path in str(caught.value)


def test_a_missing_file_is_a_config_error():
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read"):
        load_settings(BrewSettings, {}, config="nowhere.toml")


def test_an_unknown_variable_is_reported_with_the_nearest_name():
    assert unknown_variables([BrewSettings], {"NANOSFT_NUM_CUP": "1", "NANOSFT_OUT": "x", "PATH": ""}) == [
        "NANOSFT_NUM_CUP is no setting of nanosft; did you mean NANOSFT_NUM_CUPS?"
    ]


def test_a_secret_is_shown_nowhere(monkeypatch):
    monkeypatch.setenv("PANTRY_KEY", "sesame")
    settings = load_settings(BrewSettings, {"out": "x"})
    assert settings.key is not None
    assert settings.key.get_secret_value() == "sesame"
    assert "sesame" not in repr(settings) + str(settings.model_dump()) + settings.model_dump_json()


def test_what_decides_what_comes_out_is_said_at_the_field():
    class PotSettings(StageSettings):
        herbs: tuple[str, ...] = Field(default=("mint",), description="Herbs.")
        out: str = Field(default="cup", description="Where.", json_schema_extra={"content": False})

    assert PotSettings(out="jug").content() == PotSettings().content() == {"herbs": ["mint"]}


CONTENT = {
    AuditSettings: """
        ascii banned_phrases format judge_model judge_share knowledge maker max_chars max_context_tokens min_chars
        min_score name near_duplicate_threshold seed skip_gates strict_grounding tokenizer uri""",
    GenerateSettings: """
        ascii banned_phrases dimensions examples fallback_models judge_model judge_share knowledge languages max_chars
        max_context_tokens max_messages max_tokens min_chars min_score model near_duplicate_threshold num num_examples
        provider seed skip_gates strict_grounding temperature tokenizer tone""",
    MixSettings: "on_bad_row",
    TrainSettings: """
        attention base_source base_step base_tag dtype early_stop embedding_lr epochs eval_every eval_rows
        final_lr_frac init_lr_frac lr_shape matrix_lr max_seq_len max_steps overlong pack_window prompts
        sample_tokens scalar_lr seed softcap total_batch_size unembedding_lr warm_start warmdown_frac warmup_steps
        weight_decay""",
}


@pytest.mark.parametrize("settings", CONTENT)
def test_prefixes_begun_before_can_be_gone_on_with(settings):
    """Manifests state these settings: another one in the list ends every unfinished run.

    Those of judges, examples, languages and a bound on messages are stated only where there are some
    (tests/contract/test_generate_judge.py, test_generate_long.py and test_audit_judge.py).
    """
    assert settings.content_names() == set(CONTENT[settings].split())


@pytest.mark.parametrize(
    "options", [{"out": "https://me:hidden@host/x"}, {"out": "a", "herbs": ["mint", "s3://k:hidden@b/c"]}]
)
def test_a_password_in_a_url_is_refused_and_not_shown(options):
    with pytest.raises(ConfigError, match="holds a password") as raised:
        load_settings(BrewSettings, options)
    assert "hidden" not in str(raised.value)


def test_an_address_in_a_path_is_no_password():
    assert load_settings(BrewSettings, {"out": "s3://bucket/me@host:80/x"}).out == "s3://bucket/me@host:80/x"
