"""A conversation is one text that the model goes on with, and it is not lost."""

import pytest

from crystalline.errors import EXIT_USAGE, UserError
from crystalline.model.sampling import Sampling
from crystalline.pipeline.conversation import Conversation
from crystalline.run_folder import RunFolder


class Speaker:
    """Stands in for a model: says given pieces and remembers what it was asked."""

    def __init__(self, *pieces):
        self.pieces, self.asked = pieces, []

    def stream(self, prompt, how, max_tokens, stop, result):
        self.asked.append((prompt, how, max_tokens, stop))
        yield from self.pieces


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", "")


def test_turns_become_paragraphs_of_one_text(folder):
    talk = Conversation.open(folder, "default")
    model = Speaker("\n", "\nGood ", "\n", "day.")
    how = Sampling(seed=5)
    answer = "".join(talk.answer(model, " Hello ", how, 9))
    assert answer == "Good \nday."
    talk.add(" Hello ", answer)
    list(talk.answer(model, "And?", how))
    assert [asked[0] for asked in model.asked] == ["Hello\n", "Hello\n\nGood \nday.\n\nAnd?\n"]
    assert [asked[1].seed for asked in model.asked] == [5, 6]
    assert model.asked[0][2:] == (9, ["\n\n"])


def test_it_is_there_again_whatever_was_said(folder):
    turns = [("größe 字", "a\nb"), ("\u2028 \x85 \x0b \r", '"\\ '), ("", "")]
    talk = Conversation.open(folder, "ideas")
    for turn in turns:
        talk.add(*turn)
    assert Conversation.open(folder, "ideas").turns == turns
    assert Conversation.open(folder, "other").turns == []


def test_undo_and_clear_are_kept(folder):
    talk = Conversation.open(folder, "default")
    assert talk.undo() is False
    talk.add("a", "b")
    talk.add("c", "d")
    assert talk.undo() is True
    assert Conversation.open(folder, "default").turns == [("a", "b")]
    talk.clear()
    assert Conversation.open(folder, "default").turns == []


@pytest.mark.parametrize("harm", [b'{"user": "c", "mo', b"\xff\xfe", b"[]", b'{"user": 1}'])
def test_a_damaged_line_costs_only_its_turn(folder, harm):
    talk = Conversation.open(folder, "default")
    talk.add("a", "b")
    talk.path.write_bytes(harm + b"\n" + talk.path.read_bytes() + harm)
    assert Conversation.open(folder, "default").turns == [("a", "b")]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a b", "x" * 101, "a\n", ".hidden"])
def test_names_stay_inside_the_folder(folder, name):
    with pytest.raises(UserError) as caught:
        Conversation.open(folder, name)
    assert caught.value.exit_code == EXIT_USAGE


def test_a_real_model_answers(tiny_run):
    from crystalline.model.generation import load

    model = load(tiny_run)
    talk = Conversation.open(RunFolder(tiny_run), "never-written")
    pieces = list(talk.answer(model, "def", model.sampling(seed=1), 12))
    answer = "".join(pieces)
    assert answer
    assert not answer.startswith("\n")
    assert "\n\n" not in answer
    assert not (tiny_run / "chats").exists()
