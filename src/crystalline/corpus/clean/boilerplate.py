"""Lines that are no part of a text: cookie notices, "read more", navigation, and the licence of Project Gutenberg."""

from __future__ import annotations

import re
from collections.abc import Callable

LONGEST_LINE = 300  # characters; a longer line is a paragraph that speaks of such things

# Whole lines, without case and without signs at their ends.
_LINES = frozenset(
    line
    for lines in (
        # English
        "read more|continue reading|read the full story|read full article|learn more|see more|show more",
        "load more",
        "view all|see all|more info|click here|skip to content|skip to main content|skip to navigation",
        "back to top",
        "jump to navigation|jump to search|toggle navigation|main menu|menu|navigation|home|contact us",
        "about us",
        "privacy policy|terms of use|terms of service|terms and conditions|cookie policy|cookie settings",
        "sitemap",
        "accept all|accept all cookies|accept cookies|reject all|manage cookies|manage preferences|got it",
        "subscribe",
        "subscribe to our newsletter|sign up for our newsletter|sign up|sign in|log in|login|register",
        "my account",
        "share|share this|share this article|share on facebook|share on twitter|share on linkedin|tweet",
        "pin it",
        "follow us|follow us on twitter|like us on facebook|print this page|email this page|advertisement",
        "advertisements|sponsored|related posts|related articles|you may also like|recommended for you",
        "leave a comment",
        "leave a reply|post a comment|no comments|add to cart|add to wishlist|search|next page|previous page",
        "next",
        "previous|older posts|newer posts|all rights reserved|powered by wordpress|loading|please wait",
        # German
        "weiterlesen|mehr lesen|mehr erfahren|mehr anzeigen|alle anzeigen|zum inhalt springen",
        "zum hauptinhalt springen",
        "nach oben|zurück nach oben|hauptmenü|menü|startseite|kontakt|impressum|datenschutz",
        "datenschutzerklärung|agb",
        "alle akzeptieren|alle cookies akzeptieren|cookies akzeptieren|cookie-einstellungen|ablehnen|anmelden",
        "registrieren|newsletter abonnieren|teilen|auf facebook teilen|auf twitter teilen|drucken|anzeige",
        "werbung",
        "das könnte sie auch interessieren|ähnliche artikel|kommentar schreiben|in den warenkorb|suche",
        "nächste seite",
        "vorherige seite|alle rechte vorbehalten|wird geladen",
        # French
        "lire la suite|en savoir plus|voir plus|afficher plus|voir tout|aller au contenu|retour en haut",
        "accueil",
        "mentions légales|politique de confidentialité|tout accepter|accepter les cookies|tout refuser",
        "se connecter",
        "s'inscrire|partager|partager sur facebook|imprimer|publicité|articles similaires",
        "laisser un commentaire",
        "ajouter au panier|rechercher|page suivante|page précédente|tous droits réservés|chargement",
        # Spanish
        "leer más|seguir leyendo|ver más|mostrar más|ver todo|saltar al contenido|volver arriba|inicio",
        "aviso legal",
        "política de privacidad|aceptar todo|aceptar cookies|rechazar todo|iniciar sesión|registrarse",
        "compartir",
        "compartir en facebook|imprimir|publicidad|artículos relacionados|deja un comentario",
        "añadir al carrito|buscar",
        "página siguiente|página anterior|todos los derechos reservados|cargando",
        # Italian, Dutch, Finnish
        "leggi tutto|continua a leggere|scopri di più|mostra altro|vai al contenuto|torna su",
        "informativa sulla privacy",
        "accetta tutti|accedi|registrati|condividi|pubblicità|tutti i diritti riservati",
        "lees meer|lees verder|meer weergeven|ga naar inhoud|naar boven|privacybeleid|alles accepteren",
        "inloggen|delen",
        "lue lisää|näytä lisää|siirry sisältöön|takaisin ylös|tietosuojaseloste|hyväksy kaikki",
        "kirjaudu sisään|jaa",
    )
    for line in lines.split("|")
)
# What a line has in it that asks for cookies, JavaScript or consent. C4 (Raffel et al. 2020) drops lines with
# "javascript", "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies";
# here a line must also be short, and the word javascript alone is not enough: there are pages about it.
_PHRASES = (
    "uses cookies", "use of cookies", "use cookies", "our cookie policy", "cookie consent", "our privacy policy",
    "terms of use and", "enable javascript", "javascript is disabled", "javascript is required", "javascript to run",
    "your browser does not support", "verwendet cookies", "verwenden cookies", "nutzt cookies", "nutzen cookies",
    "einsatz von cookies", "aktivieren sie javascript", "javascript aktivieren", "utilise des cookies",
    "utilisons des cookies", "activer javascript", "utiliza cookies", "utilizamos cookies", "usa cookies",
    "habilitar javascript", "activar javascript", "utilizza cookie", "utilizziamo i cookie", "gebruikt cookies",
    "gebruiken cookies", "käyttää evästeitä", "käytämme evästeitä",
)  # fmt: skip
# One of these is in each of them, so that most texts are done with at once. Long ones are found quicker.
_HINTS = tuple(
    hint.encode()
    for hint in (
        "cookie", "evästei", "javascript", "your browser does not support", "our privacy policy", "terms of use and",
    )
)  # fmt: skip
_LONGEST_WHOLE = 60
_ENDS = " \t.,:;!?…»«>›→*|•·-–—[](){}✕×+"

# A row of short names: "Home | News | Sport | Contact".
_SIGNS = "|•·»›"
_SEPARATORS = re.compile(f"[{_SIGNS}]")
_LEAST_NAMES, _LONGEST_NAME = 4, 25  # and characters

_START = re.compile(r"^.{0,10}START OF (?:THE|THIS) PROJECT GUTENBERG EBOOK[^\n]*\n?", re.M | re.I)
_END = re.compile(
    r"^(?:.{0,10}END OF (?:THE|THIS) PROJECT GUTENBERG EBOOK|End of (?:the )?Project Gutenberg's )[^\n]*", re.M | re.I
)


def without_lines(text: str, data: bytes, removed: Callable[[str], None]) -> str:
    """A web page's text without the lines that belong to the site: each that goes is given to `removed`.

    data: the text in UTF-8, in which one can look for something much faster.
    """
    asks = any(map(data.lower().__contains__, _HINTS))
    rows = sum(text.count(sign) for sign in _SIGNS if sign in text) >= _LEAST_NAMES - 1
    lines = text.split("\n")
    kept = []
    for line in lines:
        size = len(line)
        if (0 < size <= _LONGEST_WHOLE and line.lower().strip(_ENDS) in _LINES) or (
            size <= LONGEST_LINE and ((rows and _is_menu(line)) or (asks and _asks(line)))
        ):
            removed(line.strip())
        else:
            kept.append(line)
    return "\n".join(kept) if len(kept) < len(lines) else text


def _asks(line: str) -> bool:
    lowered = line.lower()
    return any(phrase in lowered for phrase in _PHRASES)


def _is_menu(line: str) -> bool:
    if "|" not in line and line.isascii():
        return False
    names = [name for part in _SEPARATORS.split(line) if (name := part.strip())]
    return (
        len(names) >= _LEAST_NAMES
        and all(len(name) <= _LONGEST_NAME for name in names)
        and all(name[0].isalpha() for name in names)
        and not line.lstrip().startswith("|")  # the row of a table
    )


class Gutenberg:
    """Takes the licence of Project Gutenberg off a book that comes in sections: all before the line that says START
    and all after the one that says END."""

    def __init__(self) -> None:
        self._ended = False

    def body(self, text: str) -> str:
        """What of this section, the next one of its book, belongs to the book itself."""
        if self._ended:
            return ""
        if "utenberg" not in text and "UTENBERG" not in text:
            return text
        if start := _START.search(text):
            text = text[start.end() :].lstrip("\n")
        if end := _END.search(text):
            text, self._ended = text[: end.start()].rstrip(), True
        return text
