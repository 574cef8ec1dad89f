"""The held-out score of a finished run, against a computation that shares nothing with it but the network."""

import json
import math
import shutil

import numpy as np
import pytest
import torch

from crystalline.errors import EXIT_DAMAGED, UserError
from crystalline.evaluation.held_out import held_out_score
from crystalline.model import checkpoints, store
from crystalline.run_folder import RunFolder
from crystalline.tokens.tokenizer import Tokenizer


@pytest.fixture
def folder(tiny_run):
    return RunFolder.open(tiny_run)


def slowly(run, checkpoint):
    """(nats per token, tokens, bytes): token by token, each from all those before it in its window."""
    index = json.loads((run.shards / "index.json").read_text())
    assert index["dtype"] == "uint16"
    tokens = [int(t) for t in np.fromfile(run.shards / "held_out-00000.bin", "<u2")]
    model, tokenizer = store.read_model(checkpoint), Tokenizer.load(checkpoint)
    context, nats = model.shape.context, 0.0
    with torch.no_grad():
        for place in range(1, len(tokens)):
            start = (place - 1) // context * context
            logits = model(torch.tensor([tokens[start:place]]))[0, -1].double()
            nats -= float(logits.log_softmax(0)[tokens[place]])
    text = tokenizer.decode_bytes(tokens)
    return nats / (len(tokens) - 1), len(tokens) - 1, len(text)


def test_it_is_what_a_slow_computation_says(folder):
    checkpoint = checkpoints.newest_whole(folder)
    result = held_out_score(folder, checkpoint)
    cross_entropy, tokens, size = slowly(folder, checkpoint)
    assert result == {
        "checkpoint": "step-00000006",
        "step": 6,
        "cross_entropy": pytest.approx(cross_entropy, rel=1e-5),
        "tokens": tokens,
        "bytes": size,
        "perplexity": pytest.approx(math.exp(cross_entropy), rel=1e-4),
        "bits_per_byte": pytest.approx(cross_entropy * tokens / size / math.log(2), rel=1e-5),
    }


def test_held_out_text_is_measured_and_no_other(folder, tmp_path):
    """With other training text the result is the same; with other held-out text it is not."""
    checkpoint = checkpoints.newest_whole(folder)
    before = held_out_score(folder, checkpoint)
    changed = RunFolder(shutil.copytree(folder.root, tmp_path / "run"))

    def reverse(name):
        file = changed.shards / name
        file.write_bytes(np.fromfile(file, "<u2")[::-1].tobytes())

    reverse("train-00000.bin")
    assert held_out_score(changed, checkpoint) == before
    reverse("held_out-00000.bin")
    assert held_out_score(changed, checkpoint)["cross_entropy"] > before["cross_entropy"] + 0.01


def test_later_checkpoints_of_this_run_are_better(folder):
    newest, oldest = (checkpoints.checkpoint_folders(folder)[i] for i in (0, -1))
    first, last = held_out_score(folder, oldest), held_out_score(folder, newest)
    assert first["step"] < last["step"]
    assert last["bits_per_byte"] < first["bits_per_byte"]


def test_another_vocabulary_is_refused(folder, tmp_path):
    """Shards of a larger vocabulary, beside a checkpoint that knows fewer tokens."""
    changed = RunFolder(shutil.copytree(folder.root, tmp_path / "run"))
    file = changed.shards / "held_out-00000.bin"
    tokens = np.fromfile(file, "<u2")
    tokens[5] = 60_000
    file.write_bytes(tokens.tobytes())
    with pytest.raises(UserError, match="another tokenizer") as caught:
        held_out_score(changed, checkpoints.newest_whole(folder))
    assert caught.value.exit_code == EXIT_DAMAGED
    assert str(changed.shards) in caught.value.fix


def test_another_tokenizer_of_the_same_size_is_refused(folder, tmp_path):
    """No token is out of range, but they mean other text: the number would be nonsense."""
    changed = RunFolder(shutil.copytree(folder.root, tmp_path / "run"))
    index = json.loads((changed.shards / "index.json").read_text())
    index["tokenizer"] = "0" * 64
    (changed.shards / "index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="another tokenizer") as caught:
        held_out_score(changed, checkpoints.newest_whole(folder))
    assert caught.value.exit_code == EXIT_DAMAGED
