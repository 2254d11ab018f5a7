"""More prompts than run side by side: each has its answer."""

from pathlib import Path

from nanosft.nanochat import Engine, load_checkpoint

GOLDEN = Path(__file__).parents[2] / "golden" / "nanochat" / "g5"


def test_the_prompt_after_the_first_64_was_dropped() -> None:
    checkpoint = load_checkpoint(str(GOLDEN))
    engine = Engine(checkpoint.model, checkpoint.tokenizer)
    prompts = [[checkpoint.tokenizer.bos_id, number] for number in range(67)]
    answers = engine.generate_batch(prompts, max_tokens=2, temperature=0.0)
    assert len(answers) == 67
    assert answers[64:] == engine.generate_batch(prompts[64:], max_tokens=2, temperature=0.0)
