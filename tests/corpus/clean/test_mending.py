"""Mojibake is undone; text that looks well is left alone, in many languages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalline.corpus.clean.mending import mended, normal

WELL = [
    "Größe, Bäume und Flüsse; naïve café — “quoted” … 20 °C ± 1 €",
    "NÃO É NECESSÁRIO. ATENÇÃO: SÃO PAULO",
    "Această îmbunătățire, și ăsta, ÎN ROMÂNIA. Ăla",
    "Здравствуйте! Сегодня хорошая погода. Ñandú, Ärger, Ångström, Ðuro",
    "Γειά σου Κόσμε. Πώς είσαι; √2 ≈ 1,414",
    "日本語のテキスト。한국어 문장입니다. 中文句子。",
    "Žluťoučký kůň úpěl ďábelské ódy. Ĺubica",
    "İstanbul'da ÇÖĞÜŞ. Tiếng Việt có dấu: ĐƯỜNG PHỐ HÀ NỘI",
]


@pytest.mark.parametrize("text", WELL)
def test_text_that_is_well_stays(text):
    assert mended(text) == text


@pytest.mark.parametrize("wrong", ["cp1252", "latin-1"])
@pytest.mark.parametrize(
    "text",
    [
        "für größere Bäume und Flüsse gibt es Müller",
        "l'été dernier, ça coûtait déjà 5 €",
        "“quoted” – and it’s a dash",
        "señor, mañana, ¿qué tal?",
        "Hyvää päivää, äiti!",
    ],
)
def test_utf8_that_was_read_as_something_else_is_mended(text, wrong):
    harmed = text.encode().decode(wrong, "ignore" if wrong == "cp1252" else "strict")
    if harmed.encode(wrong, "ignore") != text.encode():
        pytest.skip("this encoding has lost characters")
    assert mended(f"A fine line: naïve.\n{harmed}\nand more") == f"A fine line: naïve.\n{text}\nand more"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_normal_text_stays_normal_and_mending_never_fails(text):
    plain = normal(text)
    assert normal(plain) == plain
    mended(plain)


@given(st.text("abc äöü\n.,", max_size=200))
def test_ordinary_letters_are_never_touched(text):
    assert mended(text) == text
