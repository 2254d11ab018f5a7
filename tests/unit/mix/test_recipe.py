from importlib.resources import files

import pytest

from nanosft.errors import ConfigError
from nanosft.mix.recipe import Recipe, parse_recipe

BARE = """
seed = 0
synthetic_share = 0.3
[[sources]]
name = "identity"
uri = "s3://bucket/generated"
synthetic = true
[[sources]]
name = "chitchat"
uri = ["a.jsonl", "b.jsonl"]
"""


def parse(text: str) -> Recipe:
    return parse_recipe(text.encode(), where="recipe.toml")


def test_a_bare_recipe_is_all_it_takes():
    recipe = parse(BARE)
    assert [source.uri for source in recipe.sources] == [("s3://bucket/generated",), ("a.jsonl", "b.jsonl")]
    assert recipe.by == "rows"
    assert recipe.deduplicate.near == "drop"


def test_the_example_recipe_is_right_and_shows_every_key():
    text = files("nanosft.mix").joinpath("recipe.example.toml").read_text(encoding="utf-8")
    parse(text)
    names = {"sources", *Recipe.model_fields}
    for field in (*Recipe.model_fields.values(), Recipe.model_fields["sources"]):
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            names |= set(getattr(kind, "model_fields", {}))
    assert [name for name in sorted(names) if name not in text] == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 0", "seed = -1", "recipe.toml: seed: input should be greater than or equal to 0"),
        ("seed = 0", "sede = 0", "recipe.toml: sede: is no key of a recipe"),
        ("seed = 0", "seed = ", "recipe.toml: not TOML"),
        ("synthetic_share = 0.3", "synthetic_share = 30", "synthetic_share: input should be less than 1"),
        ("synthetic = true", "synthetic = false", "synthetic_share: no source is marked synthetic"),
        ('name = "chitchat"', 'name = "identity"', "2 sources are named 'identity'"),
        ('name = "chitchat"', 'name = "chit chat"', "sources[1].name"),
        ('uri = ["a.jsonl", "b.jsonl"]', "uri = []", "sources[1].uri: must name at least one URI"),
        ("synthetic = true", "synthetic = true\nratio = -1", "sources[0].ratio: input should be greater than 0"),
        (
            "synthetic = true",
            "synthetic = true\nratio = 1\nepochs = 2",
            "sources[0].epochs: cannot stand beside 'ratio'",
        ),
        (
            "synthetic = true",
            "synthetic = true\nepochs = 2",
            "sources[0].epochs: cannot stand beside 'synthetic_share'",
        ),
        ("seed = 0", 'by = "tokens"', 'tokenizer: by = "tokens" needs the URI'),
        ("seed = 0", "total_tokens = 5", 'total_tokens: needs by = "tokens"'),
        ("seed = 0", "[deduplicate]\npriority = ['x']", "deduplicate.priority: 'x' is no source"),
        ("seed = 0", "[filter]\nmax_tokens = 9", "filter.max_tokens: needs 'tokenizer'"),
        ("synthetic = true", "synthetic = true\nfilter.gates = ['no']", "sources[0].filter.gates[0]"),
        ("synthetic = true", "synthetic = true\nratio = inf", "sources[0].ratio: input should be a finite number"),
        (
            "synthetic = true",
            "synthetic = true\nepochs = 1e30",
            "sources[0].epochs: input should be less than or equal",
        ),
        ("seed = 0", f"seed = {1 << 63}", "recipe.toml: seed: "),
        ("seed = 0", f"total_rows = {10**22}", "recipe.toml: total_rows: "),
        ("seed = 0", f"shard_rows = {10**22}", "recipe.toml: shard_rows: "),
    ],
)
def test_a_wrong_recipe_names_its_key(old: str, new: str, message: str):
    text = BARE.replace(old, new, 1)
    if new.startswith("["):
        text = BARE.replace(old, "", 1).replace("synthetic_share = 0.3", f"synthetic_share = 0.3\n{new}", 1)
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert message in str(caught.value)


def test_ratios_are_the_decimals_that_are_written():
    shares = "".join(f'[[sources]]\nname="{ratio}"\nuri="x"\nratio={ratio}\n' for ratio in (0.7, 0.2, 0.1))
    with pytest.raises(ConfigError, match="must sum to less than 1, not 1"):  # as floats they sum to a bit less
        parse(shares + '[[sources]]\nname="b"\nuri="b"\nrest=true')


def test_a_wrong_source_is_no_error_of_the_list_too():
    with pytest.raises(ConfigError) as caught:
        parse('[[sources]]\nname="a"\nuri="a"\nbogus=1')
    assert str(caught.value) == "recipe.toml: sources[0].bogus: is no key of a recipe"
    with pytest.raises(ConfigError, match=r"sources: must be a list; tables of a list .* \[\[sources\]\]"):
        parse('[sources]\nname="a"\nuri="a"')


def test_ratios_beside_a_rest_must_leave_some():
    text = '[[sources]]\nname="a"\nuri="a"\nratio=1.0\n[[sources]]\nname="b"\nuri="b"\nrest=true'
    with pytest.raises(ConfigError, match="must sum to less than 1, not 1"):
        parse(text)


def test_a_source_without_a_share_beside_ratios_is_named():
    text = '[[sources]]\nname="a"\nuri="a"\nratio=1.0\n[[sources]]\nname="b"\nuri="b"'
    with pytest.raises(ConfigError, match=r"sources\[1\].ratio: is missing"):
        parse(text)


def test_priority_puts_listed_sources_first():
    text = "".join(f'[[sources]]\nname="{name}"\nuri="x"\n' for name in "abc") + '[deduplicate]\npriority=["c"]'
    assert parse(text).ranks == (1, 2, 0)
