"""Run lm-evaluation-harness on one task over /v1/completions; `tests.harness` starts this in the harness's environment.

    python inside.py URL DIRECTORY

The task's texts are token ids in decimal, since the harness knows no tokenizer of ours: its own code makes the
requests, reads the log-likelihoods and takes the likeliest choice. DIRECTORY holds docs.jsonl and gets found.json.
"""

import json
import sys
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate  # type: ignore[import-not-found]
from lm_eval.models.openai_completions import LocalCompletionsAPI  # type: ignore[import-not-found]
from lm_eval.tasks import TaskManager  # type: ignore[import-not-found]

TASK = """
task: letters
dataset_path: json
dataset_kwargs: {{data_files: {{test: {docs}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{context}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""


class Ids(LocalCompletionsAPI):  # type: ignore[misc]
    """The harness's own client, of texts that are ids."""

    def __init__(self, **options: Any) -> None:
        super().__init__(tokenizer_backend=None, **options)
        self.tokenizer = self
        self.tokenized_requests = True

    def tok_encode(self, string: str, *_: Any, **__: Any) -> list[int]:
        return [int(item) for item in string.split()]


def main() -> None:
    url, directory = sys.argv[1], Path(sys.argv[2])
    (directory / "letters.yaml").write_text(TASK.format(docs=directory / "docs.jsonl"))
    model = Ids(base_url=f"{url}/completions", model="model", num_concurrent=8, max_retries=1)
    found = simple_evaluate(
        model=model,
        tasks=["letters"],
        task_manager=TaskManager(include_path=str(directory), include_defaults=False),
        bootstrap_iters=0,
    )
    samples = sorted(found["samples"]["letters"], key=lambda sample: sample["doc_id"])
    choices = [[float(answer[0][0]) for answer in sample["resps"]] for sample in samples]
    accuracy = found["results"]["letters"]["acc,none"]
    (directory / "found.json").write_text(json.dumps({"accuracy": accuracy, "loglikelihoods": choices}))


if __name__ == "__main__":
    main()
