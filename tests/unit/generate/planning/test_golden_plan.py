"""The first rows of the shipped plan, and one whole prompt, as reviewed files.

After a wanted change: `python -m tests.unit.generate.planning.test_golden_plan` writes them anew; read the difference.
"""

from pathlib import Path

from nanosft.generate.planning import read_dimensions
from nanosft.generate.planning.plan import make_plan, plan_row
from nanosft.generate.provider import make_template, write_messages
from nanosft.knowledge import read_knowledge

ROOT = Path(__file__).parents[4]
GOLDEN = ROOT / "tests" / "golden" / "plan"
_NUM_ROWS = 48


def render() -> dict[str, str]:
    plan = make_plan(read_dimensions(), read_knowledge(str(ROOT / "knowledge" / "self_knowledge.md")), seed=0)
    rows = [plan_row(plan, number) for number in range(_NUM_ROWS)]
    lines = [f"{row.row:3} | {row.cell} | {row.dynamic.id} | {row.style.id} | {row.first_message}\n" for row in rows]
    template = make_template(plan)
    more = (plan_row(plan, number) for number in range(_NUM_ROWS, 10 * _NUM_ROWS))
    row = next(row for row in (*rows, *more) if row.topic.names_itself and not row.opening.asks_at_once)
    rejections = ["the answer is cut off in mid-sentence"]
    system, user = write_messages(template, row, model="openai/gpt-5-mini", rejections=rejections)
    return {
        "rows.txt": "".join(lines),
        "prompt.txt": f"{system['content']}\n--- {template.version}, row {row.row}\n{user['content']}",
    }


def test_the_plan_is_as_reviewed():
    assert render()["rows.txt"] == (GOLDEN / "rows.txt").read_text()


def test_the_prompt_is_as_reviewed():
    assert render()["prompt.txt"] == (GOLDEN / "prompt.txt").read_text()


if __name__ == "__main__":
    for name, text in render().items():
        (GOLDEN / name).write_text(text)
