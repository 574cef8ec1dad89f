"""Lines of a site go from web pages; the licence of Project Gutenberg goes from its books."""

import pytest

from crystalline.corpus.clean.boilerplate import Gutenberg, without_lines

STORY = "The harbour was silent that morning.\nNobody had seen the ships leave, and nobody spoke of it."


def cleaned(text):
    removed = []
    return without_lines(text, text.encode(), removed.append), removed


@pytest.mark.parametrize(
    "line",
    [
        "Read more", "READ MORE »", "Continue reading →", "Accept all cookies", "  Skip to main content  ",
        "Share this:",
        "This website uses cookies to improve your experience. Learn more", "Home | News | Sport | Weather | Contact",
        "Start › Aktuelles › Sport › Fußball › Tabelle", "Weiterlesen …", "Alle Cookies akzeptieren", "Impressum",
        "Wir verwenden Cookies, um Inhalte zu personalisieren.", "Lire la suite", "Nous utilisons des cookies.",
        "Leer más", "Lue lisää", "Please enable JavaScript to view the comments.", "Advertisement",
    ],
)  # fmt: skip
def test_lines_of_the_site_go(line):
    assert cleaned(f"{STORY}\n{line}\n{STORY}") == (f"{STORY}\n{STORY}", [line.strip()])


@pytest.mark.parametrize(
    "line",
    [
        "He had read more books than anyone in the village.",
        "Cookies are baked at 180 °C for ten minutes.", "| a | b | c | d | e |", "At home she read the news.",
        "JavaScript is a programming language that every browser understands.", "1 | 2 | 3 | 4 | 5", "",
        "The privacy of the patients was respected.", "- Bread\n- Milk\n- Cookies", "Search and rescue began.",
        "He looked to the left, to the right » and saw nobody",
        "The court ruled on the use of cookies " + "in a long judgment that went through three instances. " * 6,
    ],
)  # fmt: skip
def test_lines_of_the_text_stay(line):
    text = f"{STORY}\n{line}\n{STORY}"
    assert cleaned(text) == (text, [])


def test_a_text_whose_small_letters_are_longer():
    text = "İSTANBUL İÇİN\nRead more\n" + STORY
    assert cleaned(text)[0] == "İSTANBUL İÇİN\n" + STORY


HEADER = """The Project Gutenberg eBook of Example

This ebook is for the use of anyone anywhere at no cost.

*** START OF THE PROJECT GUTENBERG EBOOK EXAMPLE ***

"""
FOOTER = """

*** END OF THE PROJECT GUTENBERG EBOOK EXAMPLE ***

Updated editions will replace the previous one. Section 1. General Terms of Use"""


def test_the_licence_of_project_gutenberg_goes():
    assert Gutenberg().body(HEADER + STORY + FOOTER) == STORY


def test_the_licence_goes_from_a_book_in_sections():
    book = Gutenberg()
    sections = [HEADER + "Chapter 1", STORY, STORY + FOOTER, "Section 5. Information", "about the foundation"]
    assert [book.body(section) for section in sections] == ["Chapter 1", STORY, STORY, "", ""]


def test_older_forms_of_the_licence():
    text = "***START OF THIS PROJECT GUTENBERG EBOOK X***\nText.\n\nEnd of Project Gutenberg's X, by Y\nlicence"
    assert Gutenberg().body(text) == "Text."


def test_a_book_about_project_gutenberg_stays():
    text = "Project Gutenberg was founded by Michael Hart.\nThe end of Project Gutenberg was never near."
    assert Gutenberg().body(text) == text
