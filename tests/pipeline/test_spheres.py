"""The sphere tree as text, DOT and picture: what is in it is what the events say."""

import json
import re
import xml.etree.ElementTree as ElementTree

import pytest

from crystalline.errors import EXIT_FAILED, EXIT_OK, EXIT_SYSTEM, EXIT_USAGE
from crystalline.lattice.sphere_tree import SphereTree
from crystalline.pipeline import spheres
from crystalline.pipeline.status import Standing

SVG = "{http://www.w3.org/2000/svg}"
WORKERS = [
    {"number": 0, "pid": 11, "places": [0, 1, 2, 5, 7, 8, 11], "positions": 700, "steals": 3, "busy": 8.0,
     "update": 1.0, "idle": 0.75, "sync": 0.25, "loss": 4.25, "memory": 3e8, "errors": 0},
    {"number": 1, "pid": 12, "places": [3, 4, 6, 9], "positions": 500, "steals": 0, "busy": 1.0, "update": 0.0,
     "idle": 3.0, "sync": 0.0, "memory": 2e8, "errors": 2},
]  # fmt: skip


@pytest.fixture
def worked(made_up):
    made_up.settle()
    made_up.add("training.started", step=0, steps=100)
    made_up.steps(1, 7)
    made_up.add("training.spheres", step=7, spheres=WORKERS, memory=4e8)
    return made_up


def described(run, positions=None):
    standing = Standing(run.root)
    standing.catch_up()
    return spheres.describe(standing, positions)


def test_the_tree_by_itself():
    found = spheres.describe(None)
    tree = SphereTree()
    assert (found["run"], found["spheres"], found["levels"]) == (None, [], 1)
    assert [tuple(place["centre"]) for place in found["positions"]] == [tree.centre((n,)) for n in range(12)]
    assert [place["touches"] for place in found["positions"]] == [tree.contacts(n) for n in range(12)]
    assert len(spheres.describe(None, 144)["positions"]) == 144
    with pytest.raises(ValueError, match="power of 12"):
        spheres.describe(None, 13)


def test_who_did_which_position(worked):
    found = described(worked)
    assert (found["state"], found["step"], found["steps"]) == ("stopped", 7, 100)
    done = {place["number"]: place["sphere"] for place in found["positions"]}
    assert done == dict.fromkeys(WORKERS[0]["places"], 0) | dict.fromkeys(WORKERS[1]["places"], 1) | {10: None}
    assert [worker["share"] for worker in found["spheres"]] == [0.9, 0.25]


def test_a_run_has_the_positions_of_its_recipe(made_up):
    made_up.settle(**{"training.positions": 144})
    assert len(described(made_up)["positions"]) == 144


def test_text(worked):
    text = spheres.text(described(worked))
    assert text.split("\n") == [
        f"{worked.root}: stopped, step 7 of 100",
        "Node Zero hands out the 12 positions of a step and computes none of them",
        "├─ sphere 0   90% busy  700 positions  3 taken over  300 MB  pid 11",
        "│    busy 8.0 s, update 1.0 s, idle 0.8 s, sync 0.2 s, loss 4.250",
        "│    in the last step: 0-2 5 7-8 11",
        "└─ sphere 1   25% busy  500 positions  2 errors  200 MB  pid 12",
        "     busy 1.0 s, update 0.0 s, idle 3.0 s, sync 0.0 s",
        "     in the last step: 3-4 6 9",
    ]


@pytest.mark.parametrize("positions", [12, 144])
def test_text_of_the_tree_by_itself_fits_a_terminal(positions):
    lines = spheres.text(spheres.describe(None, positions)).split("\n")
    assert len(lines) == 13
    assert all(len(line) <= 80 for line in lines)


def test_events_of_older_versions_are_enough(made_up):
    made_up.settle()
    made_up.steps(1, 2)
    made_up.add(
        "training.spheres", step=2, spheres=[{"number": 0, "positions": 9, "steals": 0, "busy": 1.0}, {"number": 1}]
    )
    found = described(made_up)
    assert "└─ sphere 1" in spheres.text(found)
    assert "node_zero -> position_0 [style=dotted]" in spheres.dot(found)
    ElementTree.fromstring(spheres.svg(found))


def test_a_run_without_workers_says_so(made_up):
    assert "no worker has been recorded" in spheres.text(described(made_up))


# --- DOT ------------------------------------------------------------------------------------------------


def graph(dot):
    """The nodes and edges of a DOT text, by its grammar as far as it is used."""
    lines = dot.split("\n")
    assert lines[0] == "digraph spheres {"
    assert lines[-1] == "}"
    nodes, edges = set(), []
    attributes = r'(?: \[(?:\w+=(?:"(?:[^"\\]|\\.)*"|\w+)(?:, )?)+\])?'
    for line in lines[1:-1]:
        found = re.fullmatch(rf"  (?:(\w+) -> (\w+)|(\w+)){attributes};|  rankdir=LR;", line)
        assert found, line
        if found[1]:
            edges.append((found[1], found[2]))
        elif found[3] and found[3] != "node":
            nodes.add(found[3])
    return nodes, edges


def test_dot_of_a_run(worked):
    nodes, edges = graph(spheres.dot(described(worked)))
    assert nodes == {"node_zero", "sphere_0", "sphere_1", *(f"position_{n}" for n in range(12))}
    assert ("node_zero", "sphere_1") in edges
    assert sorted(a for _, a in edges if a.startswith("position")) == sorted(f"position_{n}" for n in range(12))
    assert {b for a, b in edges if a == "sphere_1"} == {f"position_{n}" for n in WORKERS[1]["places"]}


@pytest.mark.parametrize(("positions", "count"), [(12, 13), (144, 157)])
def test_dot_of_the_tree_by_itself_is_a_tree(positions, count):
    nodes, edges = graph(spheres.dot(spheres.describe(None, positions)))
    assert len(nodes) == count
    assert {b for _, b in edges} == nodes - {"node_zero"}
    assert len(edges) == count - 1, "each has one parent"
    assert {a for a, _ in edges} <= nodes


# --- the picture ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("positions", "count"), [(12, 13), (144, 157)])
def test_the_picture_is_whole_and_within_its_frame(positions, count):
    root = ElementTree.fromstring(spheres.svg(spheres.describe(None, positions)))
    circles = [
        {k: float(c.get(k)) for k in ("cx", "cy", "r")} for c in root.iter(f"{SVG}circle") if c.get("fill")[0] == "#"
    ]
    assert len(circles) == count
    for c in circles:
        assert c["r"] <= c["cx"] <= spheres.SIDE - c["r"]
        assert c["r"] <= c["cy"] <= spheres.SIDE - c["r"]
    assert root.find(f"{SVG}title").text
    assert root.find(f"{SVG}desc").text
    assert root.get("role") == "img"


def test_no_centre_hides_another():
    """Seen along (1, 1, 1) the thirteen centres are apart by more than a radius."""
    points = [spheres.project(point)[:2] for point in [(0, 0, 0), *(SphereTree().centre((n,)) for n in range(12))]]
    distances = [((a - c) ** 2 + (b - d) ** 2) ** 0.5 for i, (a, b) in enumerate(points) for c, d in points[:i]]
    assert min(distances) > 2**0.5 / 2


def test_spheres_are_coloured_by_the_busy_share_of_who_did_them(worked):
    root = ElementTree.fromstring(spheres.svg(described(worked)))
    colours = {}
    for previous, circle in zip(
        list(root.iter(f"{SVG}circle"))[::2], list(root.iter(f"{SVG}circle"))[1::2], strict=True
    ):
        colours[circle.find(f"{SVG}title").text] = previous.get("fill")
    assert colours["position 0, done by sphere 0, 90% busy"] == spheres.fill(0.9)[0] == spheres.RAMP[-1]
    assert colours["position 3, done by sphere 1, 25% busy"] == spheres.fill(0.25)[0] == spheres.RAMP[1]
    assert colours["position 10"] == spheres.UNKNOWN


def test_the_picture_needs_nothing_else_and_names_are_escaped(tmp_path):
    from made_up import MadeUpRun

    run = MadeUpRun(tmp_path / "a<b>&\"'\x07")
    picture = spheres.svg(described(run))
    ElementTree.fromstring(picture)
    assert "a&lt;b&gt;&amp;&quot;&#x27;�" in picture
    assert not re.search(r"href|url\((?!#)|<script|@import", picture)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([3], "3"), ([2, 1], "1-2"), ([0, 1, 2, 5, 7, 8], "0-2 5 7-8"), (range(144), "0-143")],
)
def test_ranges(numbers, text):
    assert spheres.ranges(numbers) == text


# --- the command ------------------------------------------------------------------------------------------


def test_the_command_draws_a_real_run(tiny_run, cllm, tmp_path):
    code, out, err = cllm("spheres", tiny_run)
    assert (code, err) == (EXIT_OK, "")
    assert out.startswith(f"{tiny_run}: done, step 6 of 6\nNode Zero hands out the 12 positions")
    told = json.loads(cllm("spheres", tiny_run, "--json")[1])
    assert all(place["sphere"] is not None for place in told["positions"]), "each position of the last step was done"
    assert sum(worker["positions"] for worker in told["spheres"]) == 6 * 12
    assert cllm("spheres", tiny_run, "--format", "svg", "--to", tmp_path / "tree.svg") == (
        EXIT_OK, f"wrote {tmp_path / 'tree.svg'}\n", ""
    )  # fmt: skip
    ElementTree.fromstring((tmp_path / "tree.svg").read_text())
    graph(cllm("spheres", tiny_run, "--format", "dot")[1].rstrip())


def test_the_command_without_a_run(cllm):
    assert cllm("spheres")[1].count("position") == 13
    assert "positions 132 to 143" in cllm("spheres", "--positions", "144")[1]


def test_what_cannot_be_drawn_is_told(tiny_run, cllm, tmp_path):
    assert cllm("spheres", tiny_run, "--positions", "144")[0] == EXIT_USAGE
    assert cllm("spheres", "--positions", "13")[0] == EXIT_USAGE
    assert cllm("spheres", tmp_path / "nothing")[0] == EXIT_FAILED
    code, _, err = cllm("spheres", "--to", tmp_path / "no" / "folder.txt")
    assert code == EXIT_SYSTEM
    assert "\n  fix: " in err
