"""`cllm lattice reduce, closest, shortest, spheres` as a person and as a script meet them."""

import io
import json
import time
import xml.etree.ElementTree as ElementTree

import pytest
from flint import fmpz_mat

from crystalline.errors import EXIT_FAILED, EXIT_OK, EXIT_SYSTEM, EXIT_USAGE


@pytest.fixture
def plane(tmp_path):
    (tmp_path / "plane.txt").write_text("201 37\n1648 297\n")
    return tmp_path / "plane.txt"


def test_reduce(cllm, plane):
    assert cllm("lattice", "reduce", plane) == (
        EXIT_OK,
        " 1  32\n40   1\n\n2 vectors in 2 dimensions, reduced exactly for delta 0.99\n"
        "                                before           after\n"
        "first vector                   204.377         32.0156\n"
        "longest vector                 1674.55         40.0125\n"
        "Hermite factor                 5.71475        0.895214\n"
        "orthogonality defect           267.584         1.00158\n",
        "",
    )


def test_reduce_as_json_leads_there_and_back(cllm, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("[[1 0 331] [0 1 303] [0 0 500]]\n"))
    code, out, _ = cllm("lattice", "reduce", "-", "--json", "--delta", "0.999")
    assert code == EXIT_OK
    told = json.loads(out)
    before, after, transform, inverse = (
        fmpz_mat([[int(value) for value in row] for row in rows])
        for rows in (
            [[1, 0, 331], [0, 1, 303], [0, 0, 500]],
            told["after"]["basis"],
            told["transform"],
            told["inverse"],
        )
    )
    assert transform * before == after
    assert inverse * after == before
    assert told["squared_determinant"] == "250000"
    assert float(told["after"]["hermite_factor"]) < float(told["before"]["hermite_factor"])


def test_closest_and_shortest(cllm, plane):
    code, out, _ = cllm("lattice", "closest", plane, "55.5", "-70")
    assert code == EXIT_OK
    assert out.splitlines()[0] == "38 -63"
    assert "distance       18.848076824971" in out
    assert "coefficients   -90 11" in out
    for words in (["55.5,-70"], ["-7/3", "-1e2"], ["[1/2, 3]"]):
        code, out, err = cllm("lattice", "closest", plane, *words, "--json")
        assert (code, err) == (EXIT_OK, "")
        told = json.loads(out)
        assert len(told["target"]) == 2
        assert float(told["distance"]) <= float(told["nearest_plane"]["distance"])
    _, out, _ = cllm("lattice", "shortest", plane, "--json")
    assert json.loads(out)["squared_distance"] == "1025"
    assert cllm("lattice", "shortest", plane)[1].splitlines()[0] in ("1 32", "-1 -32")
    _, out, _ = cllm("lattice", "closest", plane, "0", "0")
    assert "distance       0\n" in out


def test_huge_numbers_are_exact(cllm, tmp_path):
    big = "7" * 10_000
    (tmp_path / "big.txt").write_text(f"{big} 1\n1 0\n")
    code, out, err = cllm("lattice", "reduce", tmp_path / "big.txt")
    assert (code, err) == (EXIT_OK, "")
    _, out, _ = cllm("lattice", "reduce", tmp_path / "big.txt", "--json")
    told = json.loads(out)
    assert (
        sorted(map(sorted, told["after"]["basis"])) == [["0", "1"], ["0", "1"]] or told["squared_determinant"] == "1"
    )
    assert any(big in value.lstrip("-") for row in told["transform"] + told["inverse"] for value in row)


@pytest.mark.parametrize("name", ["12", "a2", "d4", "e8", "leech"])
def test_spheres(cllm, name):
    _, out, _ = cllm("lattice", "spheres", name, "--json")
    told = json.loads(out)
    counts = {"12": 12, "a2": 6, "d4": 24, "e8": 240, "leech": 196_560}
    assert told["touching"] == counts[name]
    assert sum(line["count"] for line in told["angles"]) == counts[name] - 1
    assert float(told["angles"][0]["degrees"]) == 60
    _, out, _ = cllm("lattice", "spheres", name)
    assert f"{counts[name]:,} spheres touch one" in out
    assert ("63.434948822922°" in out) == (name == "12")


@pytest.mark.parametrize(
    "words",
    [
        ["reduce", "FILE"],
        ["closest", "FILE", "30", "44"],
        ["shortest", "FILE"],
        *(["spheres", n] for n in ("12", "d4", "e8")),
    ],
    ids=" ".join,
)
def test_plot(cllm, plane, tmp_path, words):
    words = [plane if word == "FILE" else word for word in words]
    code, out, _ = cllm("lattice", *words, "--plot", tmp_path / "picture.svg")
    assert code == EXIT_OK
    assert out.endswith(f"wrote {tmp_path / 'picture.svg'}\n")
    assert ElementTree.parse(tmp_path / "picture.svg").getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "no number"),
        ("1 2\n3", "line 2: row 2 has length 1"),
        ("1 2\nx 4", "line 2: 'x'"),
        ("1 2\n2 4", "row 2 of 2"),
        ("1 2 3\n" * 401, "line 401"),
        (b"\xff\xfe\x00", "no text"),
    ],
)
def test_files_that_are_no_basis_are_told(cllm, tmp_path, text, hint):
    path = tmp_path / "basis.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    for words in (["reduce", path], ["closest", path, "1", "2"], ["shortest", path]):
        code, out, err = cllm("lattice", *words)
        assert (code, out) == (EXIT_FAILED, "")
        assert hint in err
        assert "fix: " in err


@pytest.mark.parametrize(
    ("words", "expected", "hint"),
    [
        (["reduce", "nowhere.txt"], EXIT_SYSTEM, "nowhere.txt"),
        (["reduce", "FILE", "--delta", "1"], EXIT_FAILED, "0.999"),
        (["reduce", "FILE", "--delta", "x"], EXIT_FAILED, "'x'"),
        (["closest", "FILE"], EXIT_USAGE, "required"),
        (["closest", "FILE", "1"], EXIT_FAILED, "length 1"),
        (["closest", "FILE", "1", "two"], EXIT_FAILED, "'two'"),
        (["spheres", "13"], EXIT_USAGE, "invalid choice"),
        (["spheres", "leech", "--plot", "x.svg"], EXIT_FAILED, "196,560"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_told_with_their_fix(cllm, plane, tmp_path, monkeypatch, words, expected, hint):
    monkeypatch.chdir(tmp_path)
    code, _, err = cllm("lattice", *[plane if word == "FILE" else word for word in words])
    assert code == expected
    assert hint in err
    assert "fix: " in err


def test_what_takes_too_long_ends_with_advice(cllm, tmp_path):
    rows = [[str((31 ** (7 * k + 90)) % 10**120)] + [str(int(i == k)) for i in range(70)] for k in range(70)]
    (tmp_path / "hard.txt").write_text("\n".join(map(" ".join, rows)))
    began = time.perf_counter()
    code, _, err = cllm("lattice", "shortest", tmp_path / "hard.txt", "--steps", "1000")
    assert code == EXIT_FAILED
    assert "1,000 steps" in err
    assert time.perf_counter() - began < 60
    code, _, err = cllm("lattice", "reduce", tmp_path / "hard.txt", "--plot", tmp_path / "x.svg")
    assert code == EXIT_FAILED
    assert "two coordinates" in err
