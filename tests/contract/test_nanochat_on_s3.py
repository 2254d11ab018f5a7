"""A checkpoint goes to a bucket and comes back unchanged, with few requests."""

from pathlib import Path

import pytest
import torch

from nanosft.errors import DataError
from nanosft.nanochat import load_checkpoint, save_checkpoint, save_tokenizer
from tests.s3_proxy import S3Proxy

GOLDEN = Path(__file__).parents[1] / "golden" / "nanochat"


def test_a_checkpoint_in_a_bucket_is_the_one_that_was_saved(
    bucket: str, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = load_checkpoint(str(GOLDEN / "g5"))
    save_tokenizer(f"{bucket}/base", original.tokenizer)
    save_checkpoint(f"{bucket}/base", original.model, original.meta, tag="d4", step=7, source="base")
    written = save_checkpoint(
        f"{bucket}/run", original.model, original.meta, tag="d4", step=12, tokenizer_from=f"{bucket}/base"
    )
    assert [item.key.rpartition("/")[2] for item in written] == [
        "tokenizer.pkl",
        "token_bytes.pt",
        "model_000012.pt",
        "meta_000012.json",
    ]
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    loaded = load_checkpoint(f"{bucket}/run")
    assert (loaded.source, loaded.step, loaded.uri) == ("chat", 12, f"{bucket}/run")
    for key, tensor in original.model.state_dict().items():
        assert torch.equal(tensor, loaded.model.state_dict()[key])
    # The directory, its checkpoints; the ETag, is there a tokenizer; manifest, meta, manifest, tokenizer, model.
    assert proxy.count() == {"GET list-type": 2, "HEAD": 2, "GET": 5}
    with pytest.raises(DataError, match=r"nothing is there"):
        load_checkpoint(f"{bucket}/nowhere")
