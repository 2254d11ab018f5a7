"""More prompts than run side by side: each has its answer."""

from pathlib import Path

import pytest

from nanosft.distributed import World
from nanosft.evaluate.answering import _share
from nanosft.nanochat import Engine, load_checkpoint

GOLDEN = Path(__file__).parents[2] / "golden" / "nanochat" / "g5"


def test_the_prompt_after_the_first_64_was_dropped() -> None:
    checkpoint = load_checkpoint(str(GOLDEN))
    engine = Engine(checkpoint.model, checkpoint.tokenizer)
    prompts = [[checkpoint.tokenizer.bos_id, number] for number in range(67)]
    answers = engine.generate_batch(prompts, max_tokens=2, temperature=0.0)
    assert len(answers) == 67
    assert answers[64:] == engine.generate_batch(prompts[64:], max_tokens=2, temperature=0.0)


@pytest.mark.parametrize("num_blocks", [0, 1, 5, 6])
def test_ranks_take_turns_at_blocks_and_all_have_all_of_it(num_blocks: int) -> None:
    blocks = [[10 * num, 10 * num + 1][: 1 + num % 2] for num in range(num_blocks)]
    shares = [[[-item for item in block] for block in blocks[rank::3]] for rank in range(3)]

    class Meeting(World):
        """One of three ranks; the others have done their part."""

        def run_on_all_ranks(self, work):
            return work()

        def gather(self, value, **_):
            assert value == shares[self.rank]
            return shares

    for rank in range(3):
        found = _share(blocks, lambda block: [-item for item in block], "answer", Meeting(rank, 3))
        assert found == [-item for block in blocks for item in block]
