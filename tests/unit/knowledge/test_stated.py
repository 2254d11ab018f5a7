"""Which facts an answer states, in other words too."""

from nanosft.knowledge import StatedFacts, parse_knowledge, read_knowledge

ZED = parse_knowledge(
    "# Zed\n## A\n- Zed has 561 million parameters.\n- The code is at https://z.io/code for everyone.\n"
    "- Zed was published on October 13, 2025.\n- Zed has no feelings and no wishes of its own.\n",
    where="k",
)


def test_a_fact_is_found_in_other_words():
    stated = StatedFacts(ZED)
    size, code, date, feelings = ZED.facts
    assert stated.find("I have 561M parameters.") == [size]
    assert stated.find("You find the code at z.io/code, like everyone.") == [code]
    assert stated.find("On October 13, 2025, I was published.") == [date]
    assert stated.find("I've no wishes and no feelings, and the code is nice.") == [feelings]
    assert stated.find("I have 20 parameters and no code at z.io/other.") == []
    assert stated.find("") == []
    assert stated.count(["I have 561 million parameters."] * 2)[size.id] == 2


def test_each_fact_states_itself():
    knowledge = read_knowledge(None)
    stated = StatedFacts(knowledge)
    assert all(fact in stated.find(fact.statement) for fact in knowledge.facts)
    assert set(stated.count([])) == {fact.id for fact in knowledge.facts}
