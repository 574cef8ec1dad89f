"""A hundred losses, as they were: whatever changes a number anywhere between text and weights is seen here.

On the kind of machine that wrote the file (same processor model, vector unit, torch and compiler) every digit counts;
elsewhere products are rounded otherwise, which after 100 steps was seen as 1.4e-6 at most. When a change to the
numbers is meant, write the file anew, and say in the changelog that old runs cannot be reproduced:

    python tests/training/test_golden.py
"""

import tempfile
from pathlib import Path

import pytest
import torch
from small_runs import prepared_run, steps_of, train

from crystalline.model import library

GOLDEN = Path(__file__).parents[1] / "golden"
STEPS = 100
ELSEWHERE = 1e-4  # relative difference of a loss on another kind of machine; a change of method is larger


def fingerprint():
    """What may round otherwise. Three numbers name a processor's model; its marketing name does not."""
    wanted, found = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part"), {}
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text("utf-8", "replace").splitlines() if cpuinfo.exists() else []:
        name, _, value = line.partition(":")
        if name.strip() in wanted:
            found.setdefault(name.strip(), value.strip())
    return {
        "processor": " ".join(found.values()),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "kernels": library.identity(),
    }


def losses_and_hash(folder):
    """(losses of 100 steps, hash of the weights after them)."""
    run = prepared_run(folder)
    made = train(run, training__steps=STEPS, training__accumulation=2)
    assert made.guard.drops == 0, "a normal run loses no step"
    return [facts["loss"] for facts in steps_of(run).values()], made.parameters.hash()


def read(path):
    """(fingerprint, losses, hash) as written in a golden file."""
    lines = path.read_text().splitlines()
    facts = dict(line[2:].split(": ", 1) for line in lines if line.startswith("# "))
    return facts, [float(line) for line in lines if not line.startswith("# ")], facts.pop("weights")


def best_file():
    """The golden file of this kind of machine; of another one when there is none."""
    files = sorted(GOLDEN.glob("losses_*.txt"))
    return next((file for file in files if read(file)[0] == fingerprint()), files[0])


def test_the_losses_are_what_they_were(tmp_path):
    written_on, expected, weights = read(best_file())
    losses, hash_ = losses_and_hash(tmp_path)
    assert len(losses) == len(expected) == STEPS
    assert losses == pytest.approx(expected, rel=ELSEWHERE)
    if written_on == fingerprint():
        assert losses == expected
        assert hash_ == weights


def write():
    with tempfile.TemporaryDirectory() as folder:
        losses, weights = losses_and_hash(Path(folder))
    facts = fingerprint() | {"weights": weights}
    lines = [f"# {name}: {value}" for name, value in facts.items()] + [repr(loss) for loss in losses]
    path = GOLDEN / f"losses_{facts['capability']}.txt"
    path.write_text("\n".join(lines) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    write()
