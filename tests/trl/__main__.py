"""TRL's SFTTrainer on an exported model and data set, with the loss on the assistant's tokens alone: ten steps.

python -m venv /tmp/trl && /tmp/trl/bin/pip install torch==2.13.0 trl==1.16.0
/tmp/trl/bin/python tests/trl MODEL_FOLDER DATA_FOLDER

Nothing of nanosft is imported, and TRL is in no lock: an export is for those who have neither.
"""

import sys
import tempfile

import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

NUM_STEPS = 10


def main() -> None:
    """Train, show the losses, and fail unless the last three are below the first three."""
    model_folder, data_folder = sys.argv[1:]
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(model_folder, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(model_folder, trust_remote_code=True)
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            max_steps=NUM_STEPS,
            per_device_train_batch_size=4,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            logging_steps=1,
            max_length=512,
            assistant_only_loss=True,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            seed=0,
        )
        rows = load_dataset(data_folder, split="train").select_columns(["messages"])
        trainer = SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    sys.stdout.write(f"losses {losses}\n")
    assert len(losses) == NUM_STEPS
    assert sum(losses[-3:]) < sum(losses[:3]), "the loss does not fall"
    assert not any(name.partition(".")[0] == "nanosft" for name in sys.modules)


if __name__ == "__main__":
    main()
