"""Compare lm-evaluation-harness over `nanosft serve` with `nanosft eval --tasks-dir`, on the same problems.

    python -m tests.harness --python .venv-harness/bin/python --model ../shared/nanochat_base

Compared are the accuracy, the letter of each problem, and how far the letters lie apart: nanosft takes the highest
logit right after the prompt, the harness the highest log-likelihood, and for choices of one token after the same prompt
the two differ by a constant. The prompts are given as token ids, because special tokens in a text stay text.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

from nanosft.conversation import Message
from nanosft.evaluate.answering import next_logits
from nanosft.evaluate.tasks import Problem, read_tasks
from nanosft.nanochat import Tokenizer, load_checkpoint

NUM_PROBLEMS: Final = 100
_NANOSFT: Final = [sys.executable, "-m", "nanosft"]
_CALM: Final = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def make_problems(seed: int = 0) -> list[dict[str, Any]]:
    """Sums with four choices, of which one is right."""
    draw = random.Random(seed)
    problems = []
    for _ in range(NUM_PROBLEMS):
        one, other = draw.randint(1, 50), draw.randint(1, 50)
        choices = draw.sample([one + other, one + other + 1, one + other + 10, abs(one - other) + 100], 4)
        letter = "ABCD"[choices.index(one + other)]
        question = f"What is {one} plus {other}?"
        problems.append({"question": question, "choices": [str(choice) for choice in choices], "answer": letter})
    return problems


def make_doc(tokenizer: Tokenizer, problem: Problem) -> dict[str, Any]:
    """The problem as the harness is to see it: ids as text."""
    prompt = tokenizer.render_prompt([Message("user", problem.prompt)])
    letters = [tokenizer.encode(letter) for letter in problem.letters]
    return {
        "context": " ".join(map(str, prompt)),
        "choices": [" ".join(map(str, ids)) for ids in letters],
        "answer": problem.letters.index(problem.answer),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=".venv-harness/bin/python", help="Python that has lm-eval")
    parser.add_argument("--model", default="../shared/nanochat_base")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "tasks").mkdir()
        model = str(shutil.copytree(options.model, directory / "model"))  # an evaluation notes itself beside its model
        (directory / "tasks" / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in make_problems()))
        own = evaluate(model, directory)
        theirs = evaluate_by_harness(options.python, model, directory)
    letters = [row["answer"] for row in own]
    num_equal = sum(letter == other for letter, other in zip(letters, theirs["letters"], strict=True))
    accuracy = sum(row["right"] for row in own) / len(own)
    sys.stdout.write(
        f"accuracy: nanosft eval {accuracy:.4f}, the harness over nanosft serve {theirs['accuracy']:.4f}\n"
        f"letters equal: {num_equal} of {len(own)} ({dict(Counter(letters))})\n"
        f"log-likelihoods of the letters, less the first one's: differ by {theirs['difference']:.1e} at the most\n"
    )
    if accuracy != theirs["accuracy"] or num_equal < len(own):
        sys.exit(1)


def evaluate(model: str, directory: Path) -> list[dict[str, Any]]:
    """Rows of `nanosft eval` for the task, in the order of the file."""
    little = ["--num-probes", "1", "--num-documents", "1", "--num-sampled", "0", "--max-tokens", "1"]
    out, tasks = directory / "evaluation", directory / "tasks"
    command = [*_NANOSFT, "eval", "--model", model, "--out", str(out), "--tasks-dir", str(tasks), *little]
    subprocess.run([*command, "--device", "cpu"], check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row.get("task") == "sums" and row["model"] == "model"]
    return sorted(rows, key=lambda row: row["problem"])


def evaluate_by_harness(python: str, model: str, directory: Path) -> dict[str, Any]:
    """Its accuracy, the letter of each problem, and how far its log-likelihoods are from the logits."""
    (task,) = read_tasks(str(directory / "tasks"))
    checkpoint = load_checkpoint(model)
    docs = [make_doc(checkpoint.tokenizer, problem) for problem in task.problems]
    (directory / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    serve = [*_NANOSFT, "serve", "--model", f"model={model}", "--port", "0", "--device", "cpu"]
    with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            match = re.search(r"http://127\.0\.0\.1:\d+/v1", server.stderr.readline())
            assert match is not None
            environment = {**os.environ, **_CALM, "HF_HOME": str(directory / "home")}
            environment.pop("PYTHONPATH", None)
            inside = str(Path(__file__).with_name("inside.py"))
            subprocess.run([python, inside, match[0], str(directory)], check=True, env=environment)
        finally:
            server.terminate()
    found = json.loads((directory / "found.json").read_text())
    letters = [
        problem.letters[choices.index(max(choices))]
        for problem, choices in zip(task.problems, found["loglikelihoods"], strict=True)
    ]
    prompts, ids = ([[int(item) for item in doc["context"].split()] for doc in docs], [read_ids(doc) for doc in docs])
    logits = next_logits(checkpoint.model, prompts, ids)
    difference = max(
        abs((one - ones[0]) - (other - others[0]))
        for ones, others in zip(logits, found["loglikelihoods"], strict=True)
        for one, other in zip(ones, others, strict=True)
    )
    return {"accuracy": found["accuracy"], "letters": letters, "difference": difference}


def read_ids(doc: dict[str, Any]) -> list[int]:
    return [int(choice) for choice in doc["choices"]]


if __name__ == "__main__":
    main()
