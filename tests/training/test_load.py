"""What other processes leave free, from made-up files of the kernel and from the real ones."""

import os
import sys

import pytest

from crystalline import processes
from crystalline.training import load
from crystalline.training.load import OtherLoad, fitting

TICK = os.sysconf("SC_CLK_TCK")
LINUX = sys.platform == "linux"


class Machine:
    """/proc of a machine with four cores, in seconds."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.time = folder, 0.0
        self.busy, self.own = [0.0] * 4, {}
        monkeypatch.setattr(processes, "allowed_cores", lambda: [0, 1, 2])

    def pass_(self, seconds, busy, **own):
        """For so long, cores are busy with these shares, and processes use these of a core."""
        self.time += seconds
        self.busy = [b + seconds * share for b, share in zip(self.busy, busy, strict=True)]
        for name, share in own.items():
            self.own[int(name[1:])] = self.own.get(int(name[1:]), 0.0) + seconds * share
        lines = ["cpu  1 2 3 4"]
        # user nice system idle iowait irq softirq steal guest
        lines += [f"cpu{i} {b * TICK / 2:.0f} 0 {b * TICK / 2:.0f} 99 7 0 0 5 3" for i, b in enumerate(self.busy)]
        (self.folder / "stat").write_text("\n".join(lines) + "\nintr 1\n")
        for pid, used in self.own.items():
            (self.folder / str(pid)).mkdir(exist_ok=True)
            fields = ["S", *["0"] * 10, f"{used * TICK:.0f}", "0", "0", "0"]
            (self.folder / str(pid) / "stat").write_text(f"{pid} (a) name) {' '.join(fields)}\n")

    def load(self):
        return OtherLoad(self.folder, lambda: self.time)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return Machine(tmp_path, monkeypatch)


def test_what_others_do_on_the_cores_that_we_may_use(machine):
    machine.pass_(100, [0.5, 0.5, 0.5, 0.5], p1=0.7, p2=0.7)
    load = machine.load()
    assert load.look([1, 2]) is None, "nothing to compare with yet"
    machine.pass_(2, [1.0, 0.8, 0.4, 1.0], p1=1.0, p2=0.5)  # the fourth core is not ours to use
    assert load.look([1, 2]) == pytest.approx(2.2 - 1.5, abs=0.02)


def test_a_burst_changes_little_and_a_lasting_load_counts_in_full(machine):
    machine.pass_(1, [0, 0, 0, 0])
    load = machine.load()
    load.look([])
    machine.pass_(1, [0, 0, 0, 0])
    assert load.look([]) == 0
    machine.pass_(1, [1, 1, 0, 0])
    assert 0.1 < load.look([]) < 0.5
    for _ in range(20):
        machine.pass_(1, [1, 1, 0, 0])
        load.look([])
    assert load.cores == pytest.approx(2.0, abs=0.05)


def test_it_is_read_at_most_once_a_second(machine):
    machine.pass_(1, [0, 0, 0, 0])
    load = machine.load()
    load.look([])
    machine.pass_(0.5, [1, 1, 1, 1])
    assert load.look([]) is None


def test_processes_of_our_own_that_come_and_go(machine):
    machine.pass_(1, [0, 0, 0, 0], p1=1.0)
    load = machine.load()
    load.look([1])
    machine.pass_(2, [1, 0.5, 0, 0], p1=1.0, p7=0.5)
    assert load.look([1, 7]) == pytest.approx(0.0, abs=0.02)
    machine.pass_(2, [0, 0.5, 0, 0], p7=0.5)
    assert load.look([7]) == pytest.approx(0.0, abs=0.02)


def test_without_such_files_the_load_average_must_do(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (3.5, 0.0, 0.0))
    assert OtherLoad(tmp_path).look([1, 2, 3]) == 1.5, "Node Zero and two busy workers"


@pytest.mark.parametrize(
    ("count", "others", "expected"),
    [
        (4, 0.0, 4),
        (4, 0.5, 4),  # between the limits nothing changes
        (4, 0.6, 3),
        (3, 0.6, 3),
        (3, 0.3, 3),
        (3, 0.2, 4),
        (4, 3.8, 1),
        (4, 40.0, 1),
        (1, 0.0, 4),
        (1, 2.0, 2),
        (12, 0.0, 4),  # cores were taken away
    ],
)
def test_how_many_fit_on_four_cores(count, others, expected):
    assert fitting(count, others, 4) == expected


def test_one_that_fits_keeps_fitting():
    for others in (x / 100 for x in range(0, 500)):
        for count in range(1, 5):
            settled = fitting(count, others, 4)
            assert fitting(settled, others, 4) == settled
            assert 1 <= settled <= 4


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_the_real_files():
    used = load.cpu_seconds(os.getpid())
    assert used == pytest.approx(sum(os.times()[:2]), abs=0.5)
    memory = load.proportional_memory(os.getpid())
    assert memory is None or 10e6 < memory < 100e9
    assert load.memory_kills() >= 0
    assert load.proportional_memory(2**22 + 1) is None
    assert load._busy_seconds(load.PROC, processes.allowed_cores()) > 0
