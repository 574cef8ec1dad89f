"""Web pages whose main text is known: 24 layouts in 8 languages, made anew, and always the same, for each test.

The set is synthetic. Its layouts follow what content management systems, forums, shops, wikis and hand-written pages
of several decades produce, also those that are hard: text without paragraphs, navigation inside of the article, very
short texts, pages made of teasers. What is main text was decided for each layout before anything was measured:
headline, lead, body, lists, tables and code of the thing that one opens the page for; posts of a forum; questions and
answers. Dates, authors and captions may be there or not. Menus, teasers of other pages, advertisements, comments
below an article, cookie and newsletter boxes and footers are not main text.
"""

import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from page_texts import LANGUAGES, Texts

CODE = "def count(flowers, minutes=10):\n    seen = 0\n    for flower in flowers:\n        seen += flower.visits(minutes)\n    return seen"
LEGAL = 6  # paragraphs of terms


@dataclass
class Page:
    """name: layout and language. main: what should be found; optional: what may be."""

    name: str
    html: str
    main: str
    optional: str


class Maker:
    """Pieces of one page; says of each text what it is."""

    def __init__(self, texts: Texts, random_: random.Random) -> None:
        self.texts, self.random = texts, random_
        self.main_texts: list[str] = []
        self.optional_texts: list[str] = []
        self.left = random_.sample(texts.paragraphs, len(texts.paragraphs))
        self.title = random_.choice(texts.titles)

    def main(self, text: str) -> str:
        self.main_texts.append(text)
        return escape(text)

    def maybe(self, text: str) -> str:
        self.optional_texts.append(text)
        return escape(text)

    def paragraph(self) -> str:
        return self.main(self.left.pop())

    def paragraphs(self, number: int, tag: str = "p", attributes: str = "") -> str:
        return "\n".join(f"<{tag}{attributes}>{self.paragraph()}</{tag}>" for _ in range(number))

    def headline(self, tag: str = "h1", attributes: str = "") -> str:
        return f"<{tag}{attributes}>{self.main(self.title)}</{tag}>"

    def heading(self, tag: str = "h2") -> str:
        return f"<{tag}>{self.main(self.random.choice(self.texts.headings))}</{tag}>"

    def list(self, tag: str = "ul", number: int = 4) -> str:
        return f"<{tag}>" + "".join(f"<li>{self.main(item)}</li>" for item in self.texts.items[:number]) + f"</{tag}>"

    def table(self, attributes: str = "") -> str:
        rows = [self.texts.headings[:3]] + [
            [self.random.choice(self.texts.items), str(self.random.randrange(9999)), f"{self.random.random():.2f}"]
            for _ in range(4)
        ]
        return f"<table{attributes}>" + "".join(
            "<tr>" + "".join(f"<{'th' if row is rows[0] else 'td'}>{self.main(cell)}</{'th' if row is rows[0] else 'td'}>"
            for cell in row) + "</tr>" for row in rows
        ) + "</table>"  # fmt: skip

    def figure(self) -> str:
        return (
            f'<figure><img src="/i/{self.random.randrange(999)}.jpg" alt=""><figcaption>'
            f"{self.maybe(self.random.choice(self.texts.captions))}</figcaption></figure>"
        )

    def byline(self, tag: str = "p") -> str:
        by = self.texts.small[8]
        return (
            f'<{tag} class="byline">{self.maybe(by)} {self.maybe("Maria Laine")}, <time datetime="2024-03-0'
            f'{self.random.randrange(1, 9)}">{self.maybe("2024")}</time></{tag}>'
        )

    # --- what is no main text ---

    def menu(self, tag: str = "nav", class_: str = "menu") -> str:
        links = "".join(f'<li><a href="/{n}">{escape(text)}</a></li>' for n, text in enumerate(self.texts.menu))
        return f'<{tag} class="{class_}"><ul>{links}</ul></{tag}>'

    def links(self, separator: str = " | ") -> str:
        return separator.join(f'<a href="/{n}.html">{escape(text)}</a>' for n, text in enumerate(self.texts.menu))

    def related(self, tag: str = "aside", class_: str = "related") -> str:
        entries = "".join(
            f'<li><a href="/r/{n}">{escape(text)}</a></li>' for n, text in enumerate(self.texts.related)
        )
        return f'<{tag} class="{class_}"><h3>{escape(self.texts.small[6])}</h3><ul>{entries}</ul></{tag}>'

    def comments(self, tag: str = "section", attributes: str = 'id="comments" class="comments"') -> str:
        entries = "".join(
            f'<div class="comment"><b>user{n}</b> <span class="date">12:0{n}</span><p>{escape(text)}</p>'
            f'<a href="#reply">{escape(self.texts.small[2])}</a></div>' for n, text in enumerate(self.texts.comments)
        )  # fmt: skip
        return f"<{tag} {attributes}><h3>{escape(self.texts.small[5])}</h3>{entries}</{tag}>"

    def cookies(self, class_: str = "cookie-banner") -> str:
        return f'<div class="{class_}"><p>{escape(self.texts.cookies)}</p><button>OK</button></div>'

    def newsletter(self, class_: str = "newsletter-signup") -> str:
        return f'<div class="{class_}"><p>{escape(self.texts.newsletter)}</p><input type="email"></div>'

    def footer(self, tag: str = "footer") -> str:
        return f'<{tag} class="footer"><p>© 2024 {escape(self.texts.footer)}</p>{self.links()}</{tag}>'

    def share(self) -> str:
        return f'<div class="share"><a href="#">{escape(self.texts.small[1])}</a> <a href="#">E-Mail</a></div>'

    def advertisement(self) -> str:
        return f'<div class="ad-slot"><span>{escape(self.texts.small[7])}</span><script>ads.push({{}})</script></div>'

    def search(self) -> str:
        return f'<form action="/s"><label>{escape(self.texts.small[4])}</label><input name="q"></form>'

    def head(self, more: str = "") -> str:
        return f'<head><meta charset="utf-8"><title>{escape(self.title)} – example.org</title>{more}</head>'


def html5(m: Maker) -> str:
    """A news site of today."""
    return (
        f'<!DOCTYPE html><html lang="{m.texts.code}">{m.head()}<body>{m.cookies()}<header>{m.menu()}{m.search()}'
        f"</header><main><article>{m.headline()}{m.byline()}{m.share()}{m.figure()}{m.paragraphs(3)}{m.heading()}"
        f"{m.paragraphs(2)}<blockquote>{m.paragraph()}</blockquote></article>{m.related()}</main>{m.newsletter()}"
        f"{m.footer()}</body></html>"
    )


def weblog(m: Maker) -> str:
    """The usual weblog program."""
    return (
        f'<!DOCTYPE html><html>{m.head()}<body class="single single-post"><div id="page"><div id="masthead">'
        f'<p class="site-title">example.org</p>{m.menu("div", "main-navigation")}</div><div id="content"><div id="primary">'
        f'<div class="post-142 post type-post hentry"><div class="entry-header">{m.headline("h1", " class=entry-title")}'
        f'<div class="entry-meta">{m.byline("span")}</div></div><div class="entry-content">{m.paragraphs(2)}{m.heading("h3")}'
        f'{m.paragraphs(2)}{m.list()}{m.paragraphs(1)}</div>{m.share()}<div class="tags-links"><a>{m.texts.menu[3]}</a></div>'
        f'</div>{m.comments("ol", "class=commentlist")}</div><div id="secondary" class="widget-area">{m.search()}'
        f"{m.related('div', 'widget')}</div></div>{m.footer('div')}</div></body></html>"
    )


def old_tables(m: Maker) -> str:
    """A page of 1999: tables for the layout, breaks instead of paragraphs, no classes."""
    text = "<br><br>\n".join(m.paragraph() for _ in range(4))
    return (
        f"<HTML>{m.head()}<BODY BGCOLOR=white><TABLE WIDTH=780 BORDER=0><TR><TD COLSPAN=3><FONT SIZE=6>example.org</FONT>"
        f"</TD></TR><TR><TD WIDTH=120 VALIGN=top>{m.links('<BR>')}</TD><TD WIDTH=500><FONT FACE=Arial SIZE=4><B>"
        f"{m.main(m.title)}</B></FONT><BR><BR><FONT FACE=Arial SIZE=2>{text}</FONT></TD><TD WIDTH=160>"
        f"<FONT SIZE=1>{'<BR>'.join(f'<A HREF=x>{r}</A>' for r in m.texts.related)}</FONT></TD></TR><TR><TD COLSPAN=3>"
        f"<FONT SIZE=1>© 1999 {m.texts.footer}</FONT></TD></TR></TABLE></BODY></HTML>"
    )


def div_soup(m: Maker) -> str:
    """Made by a program: only divs, with names that mean nothing."""

    def name() -> str:
        return "css-" + "".join(m.random.choices("abcdefghijklmnop0123456789", k=7))

    body = "".join(
        f'<div class="{name()}"><div class="{name()}"><span>{m.paragraph()}</span></div></div>' for _ in range(5)
    )
    return (
        f'<!DOCTYPE html><html>{m.head()}<body><div id="root"><div class="{name()}"><div class="{name()}">{m.links(" ")}</div>'
        f'</div><div class="{name()}"><div class="{name()}">{m.headline("div", f" class={name()} role=heading")}{body}</div>'
        f'<div class="{name()}">{"".join(f"<a class={name()} href=/>{r}</a>" for r in m.texts.related)}</div></div>'
        f'<div class="{name()}">{m.texts.footer}</div></div></body></html>'
    )


def interrupted_news(m: Maker) -> str:
    """A news page whose text is broken by boxes, teasers and advertisements."""

    def teaser() -> str:
        other = m.random.choice(m.texts.related)
        return (
            f'<div class="inline-teaser"><strong>{m.texts.small[0]}:</strong> <a href="/x">{escape(other)}</a></div>'
        )

    return (
        f'<!DOCTYPE html><html>{m.head()}<body><div class="topbar">{m.links()}</div><div class="article" itemscope '
        f'itemtype="http://schema.org/NewsArticle">{m.headline("h1", " itemprop=headline")}<p class="lead"><strong>'
        f'{m.paragraph()}</strong></p>{m.byline("div")}<div class="article-body" itemprop="articleBody">{m.paragraphs(1)}'
        f"{m.advertisement()}{m.paragraphs(1)}{teaser()}{m.paragraphs(1)}{m.newsletter('newsletter-box inline')}"
        f"{m.paragraphs(1)}{m.advertisement()}{teaser()}{m.paragraphs(1)}</div></div>{m.related('div', 'more-news')}"
        f"{m.comments()}{m.footer()}</body></html>"
    )


def forum(m: Maker) -> str:
    """A thread: the posts are the main text."""
    posts = "".join(
        f'<table class="tborder post" id="post{n}"><tr><td class="thead">#{n + 1} <a href="#">12.03.2011</a></td></tr><tr><td '
        f'class="alt2"><a class="bigusername" href="/u{n}">user{n}</a><div class="smallfont">Posts: {n}34</div></td><td class='
        f'"alt1"><div id="post_message_{n}">{m.paragraph()}</div><div class="signature">-- <br>{escape(m.texts.comments[1])}'
        f"</div></td></tr></table>" for n in range(5)
    )  # fmt: skip
    return (
        f'<html>{m.head()}<body><div class="navbar">{m.links(" &gt; ")}</div><h1>{m.main(m.title)}</h1>'
        f'<div class="pagenav"><a href="?p=2">{m.texts.small[2]}</a></div><div id="posts">{posts}</div><div class="similar">'
        f'{m.related("div", "similar-threads")}</div><div class="smallfont" align="center">{m.texts.footer}</div></body></html>'
    )


def documentation(m: Maker) -> str:
    """A page of a manual, with code."""
    toc = "".join(f'<li class="toctree-l1"><a href="#{n}">{h}</a></li>' for n, h in enumerate(m.texts.headings * 3))
    return (
        f'<!DOCTYPE html><html>{m.head()}<body><div class="sphinxsidebar"><ul>{toc}</ul>{m.search()}</div><div class="document">'
        f'<div class="documentwrapper"><div class="body" role="main"><section id="a">{m.headline()}{m.paragraphs(1)}'
        f'<div class="highlight-python"><div class="highlight"><pre>{m.main(CODE)}</pre></div></div>{m.paragraphs(1)}'
        f'{m.heading()}<div class="admonition note"><p>{m.paragraph()}</p></div>{m.table(" class=docutils")}{m.paragraphs(1)}'
        f'</section></div></div></div><div class="related"><a href="n">{m.texts.small[2]}</a> <a href="p">{m.texts.small[3]}</a>'
        f'</div><div class="footer">{m.texts.footer}</div></body></html>'
    )


def wiki(m: Maker) -> str:
    """An article of an encyclopedia."""
    edit = f'<span class="mw-editsection">[<a href="?edit">{m.texts.small[9]}</a>]</span>'
    toc = "".join(f'<li><a href="#{n}">{n} {h}</a></li>' for n, h in enumerate(m.texts.headings))
    box = "".join(
        f"<tr><th>{m.maybe(h)}</th><td>{m.maybe(str(n * 17))}</td></tr>" for n, h in enumerate(m.texts.headings)
    )
    return (
        f'<!DOCTYPE html><html>{m.head()}<body class="mediawiki"><div id="mw-navigation">{m.menu("div", "portal")}</div>'
        f'<div id="content" class="mw-body">{m.headline("h1", " id=firstHeading")}<div id="bodyContent"><div '
        f'class="mw-parser-output"><table class="infobox">{box}</table><p>{m.paragraph()}<sup class="reference"><a href="#r">'
        f'[1]</a></sup></p><div id="toc" class="toc"><ul>{toc}</ul></div><h2>{m.main(m.texts.headings[0])}{edit}</h2>'
        f'{m.paragraphs(2)}<h2>{m.main(m.texts.headings[1])}{edit}</h2>{m.paragraphs(2)}</div><div id="catlinks">'
        f'<a href="c">{m.texts.menu[3]}</a></div></div></div><div id="footer">{m.texts.footer}</div></body></html>'
    )


def product(m: Maker) -> str:
    """A thing in a shop: description and table; what buyers say may be there."""
    reviews = "".join(
        f'<div class="review"><span>★★★★</span><p>{m.maybe(text)}</p></div>' for text in m.texts.comments
    )
    return (
        f'<!DOCTYPE html><html>{m.head()}<body>{m.menu("div", "nav-categories")}<div class="breadcrumb">{m.links(" / ")}</div>'
        f'<div class="product"><div class="gallery"><img src="a.jpg"></div>{m.headline()}<div class="price">19,90 €</div>'
        f'<form><button>OK</button></form><div class="product-description" id="description">{m.paragraphs(2)}{m.list()}</div>'
        f'<div class="specs">{m.table()}</div></div><div class="reviews" id="reviews">{reviews}</div>'
        f"{m.related('div', 'cross-selling')}{m.cookies('cc-window cc-banner')}{m.footer()}</body></html>"
    )


def recipe(m: Maker) -> str:
    """A long story, then a card with things to buy and steps to do."""
    steps = "".join(f"<li><p>{m.paragraph()}</p></li>" for _ in range(3))
    return (
        f'<!DOCTYPE html><html>{m.head()}<body>{m.menu()}<div class="site-inner"><main><article>{m.headline()}{m.share()}'
        f'{m.paragraphs(2)}{m.figure()}{m.paragraphs(1)}<div class="wprm-recipe-container"><h2>{m.main(m.title)}</h2>'
        f'<div class="wprm-recipe-ingredients"><h3>{m.main(m.texts.headings[0])}</h3>{m.list()}</div><div class="wprm-recipe-'
        f'instructions"><h3>{m.main(m.texts.headings[1])}</h3><ol>{steps}</ol></div></div></article></main><aside '
        f'class="sidebar">{m.newsletter()}{m.related("div", "widget")}</aside></div>{m.comments()}{m.footer()}</body></html>'
    )


def answers(m: Maker) -> str:
    """A question with answers."""
    answer = "".join(
        f'<div class="answer" itemprop="suggestedAnswer"><div class="votecell"><span>{n + 3}</span></div><div class="post-text">'
        f'<p>{m.paragraph()}</p><pre><code>{m.main(CODE) if n == 0 else ""}</code></pre><p>{m.paragraph()}</p></div>'
        f'<div class="user-info"><a href="/u/{n}">user{n}</a> <span>1,2{n}4</span></div></div>' for n in range(2)
    )  # fmt: skip
    return (
        f'<html>{m.head()}<body class="question-page"><header>{m.search()}{m.links()}</header><div id="left-sidebar">{m.menu()}'
        f'</div><div id="mainbar"><div id="question-header">{m.headline()}</div><div class="question" id="question"><div '
        f'class="post-text"><p>{m.paragraph()}</p><p>{m.paragraph()}</p></div><div class="post-taglist"><a>tag</a></div></div>'
        f'<div id="answers">{answer}</div></div><div id="sidebar">{m.related("div", "sidebar-linked")}</div>{m.footer()}'
        "</body></html>"
    )


def short_page(m: Maker) -> str:
    """Much around very little."""
    return (
        f'<!DOCTYPE html><html>{m.head()}<body>{m.cookies("consent")}<header>{m.menu()}</header><div class="container"><div '
        f'class="row"><div class="col-md-8">{m.headline()}<p>{m.paragraph()}</p></div><div class="col-md-4">'
        f"{m.related('div', 'card')}{m.newsletter('card')}</div></div></div>{m.footer()}</body></html>"
    )


def teasers(m: Maker) -> str:
    """A page of a weblog with several whole posts."""
    posts = "".join(
        f'<article class="post"><header><h2><a href="/p{n}">{m.main(title)}</a></h2></header><div class="post-content">'
        f'<p>{m.paragraph()}</p><p>{m.paragraph()}</p></div><footer><a href="/c">{m.texts.small[5]} (3)</a></footer></article>'
        for n, title in enumerate(m.texts.titles[:3])
    )
    return (
        f'<!DOCTYPE html><html>{m.head()}<body class="home blog">{m.menu()}<div id="main">{posts}</div><nav class="pagination">'
        f'<a href="/2">{m.texts.small[2]}</a></nav>{m.related("aside", "sidebar")}{m.footer()}</body></html>'
    )


def terms(m: Maker) -> str:
    """Conditions: numbered, nested."""
    points = "".join(f"<li><h3>{m.main(h)}</h3><ol><li>{m.paragraph()}</li><li>{m.paragraph()}</li></ol></li>"
                     for h in m.texts.headings[:LEGAL // 2])  # fmt: skip
    return (
        f'<!DOCTYPE html><html>{m.head()}<body>{m.menu("div", "header-nav")}<div id="wrapper"><div class="static-page">'
        f'{m.headline()}<p>{m.paragraph()}</p><ol type="1">{points}</ol></div></div>{m.footer("div")}</body></html>'
    )


def cookie_wall(m: Maker) -> str:
    """A consent dialog longer than the article, before it."""
    wall = "".join(f"<p>{escape(m.texts.cookies)} {n}</p><label><input type=checkbox>{h}</label>"
                   for n, h in enumerate(m.texts.headings))  # fmt: skip
    return (
        f'<!DOCTYPE html><html>{m.head()}<body><div id="onetrust-consent-sdk" role="dialog" aria-modal="true">{wall}</div>'
        f'<div class="page">{m.menu("div", "nav")}<div class="content">{m.headline()}{m.paragraphs(3)}</div></div>'
        f"{m.footer()}</body></html>"
    )


def structured_data(m: Maker) -> str:
    """Scripts, styles and data everywhere."""
    data = '<script type="application/ld+json">{"@type":"Article","headline":"x","articleBody":"y"}</script>'
    script = "<script>window.dataLayer=[];function g(){return '<p>not text</p>'}</script>"
    return (
        f'<!DOCTYPE html><html>{m.head(data)}<body><noscript>JavaScript!</noscript>{script}<div class="layout"><div '
        f'class="story">{m.headline()}{script}{m.paragraphs(2)}<style>.a{{color:red}}</style>{m.figure()}{m.paragraphs(2)}'
        f"<template><p>{m.texts.newsletter}</p></template>{m.paragraphs(1)}</div></div>{m.related()}{script}{m.footer()}"
        "</body></html>"
    )


def line_breaks(m: Maker) -> str:
    """Another weblog program: text and breaks without paragraphs."""
    text = "<br /><br />\n".join(f'<span style="font-family: Georgia;">{m.paragraph()}</span>' for _ in range(4))
    return (
        f'<html>{m.head()}<body><div class="header">{m.texts.menu[0]}</div><div class="main"><div class="date-outer"><h2 '
        f'class="date-header">{m.maybe("2009")}</h2><div class="post hentry"><h3 class="post-title entry-title">'
        f'{m.main(m.title)}</h3><div class="post-body entry-content">{text}<div style="clear: both;"></div></div><div '
        f'class="post-footer">{m.share()}</div></div></div>{m.comments("div", "class=comments")}</div><div class="sidebar '
        f'section">{m.related("div", "widget LinkList")}{m.related("div", "widget BlogArchive")}</div></body></html>'
    )


def magazine(m: Maker) -> str:
    """Drop caps, pull quotes and pictures in the middle of the text."""
    first = m.left.pop()
    m.main(first)
    return (
        f'<!DOCTYPE html><html>{m.head()}<body>{m.menu()}<article class="longread"><header>{m.headline()}<p class="standfirst">'
        f'{m.paragraph()}</p>{m.byline()}</header><p><span class="dropcap">{escape(first[0])}</span>{escape(first[1:])}</p>'
        f"{m.figure()}{m.paragraphs(2)}{m.heading()}{m.paragraphs(2)}{m.figure()}{m.paragraphs(1)}</article>"
        f'<section class="recirculation">{m.related("div", "recirc-list")}</section>{m.footer()}</body></html>'
    )


def interview(m: Maker) -> str:
    """Questions and answers as a list of definitions."""
    pairs = "".join(f"<dt>{m.main(h)}?</dt><dd>{m.paragraph()}</dd>" for h in m.texts.headings)
    return (
        f'<!DOCTYPE html><html>{m.head()}<body><div id="top">{m.links()}</div><div id="article">{m.headline("h2")}'
        f"<p><em>{m.paragraph()}</em></p><dl>{pairs}</dl></div>{m.share()}{m.comments()}{m.footer()}</body></html>"
    )


def office(m: Maker) -> str:
    """An authority: a statement with a table, contact box and banner."""
    return (
        f'<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">'
        f'<html xmlns="http://www.w3.org/1999/xhtml">{m.head()}<body><div id="skip"><a href="#c">{m.texts.small[2]}</a></div>'
        f'<div id="banner">{m.search()}</div><div id="navi">{m.menu("div", "level1")}</div><div id="c" class="content">'
        f'<div class="csc-header">{m.headline()}</div><div class="csc-textpic-text">{m.paragraphs(2, "p", " class=bodytext")}'
        f'{m.table(" class=contenttable")}{m.paragraphs(2, "p", " class=bodytext")}</div></div><div id="right"><div '
        f'class="contact">Tel. 0123 456<br/>office@example.org</div></div><div id="foot">{m.texts.footer}</div></body></html>'
    )


def sections(m: Maker) -> str:
    """Sections in each other, and answers that open when one clicks."""
    details = "".join(
        f"<details><summary>{m.main(h)}</summary><p>{m.paragraph()}</p></details>" for h in m.texts.headings[:3]
    )
    return (
        f'<!DOCTYPE html><html>{m.head()}<body><header class="hero"><div>{m.headline()}</div>{m.menu()}</header><main><section>'
        f'<div class="inner">{m.paragraphs(2)}</div></section><section class="faq"><div class="inner">{details}</div></section>'
        f'<section class="cta">{m.newsletter("cta-box")}</section></main>{m.footer()}</body></html>'
    )


def abstract(m: Maker) -> str:
    """A paper's page: abstract and references."""
    references = "".join(
        f"<li>{m.maybe(f'A. Writer ({1990 + n}). {title}.')}</li>" for n, title in enumerate(m.texts.related)
    )
    return (
        f'<html>{m.head()}<body><div class="journal-header">{m.links()}</div><div class="article-details">{m.headline()}'
        f'<ul class="authors"><li>{m.maybe("Maria Laine")}</li></ul><section class="item abstract"><h2>{m.main(m.texts.headings[0])}'
        f'</h2><p>{m.paragraph()}</p><p>{m.paragraph()}</p></section><section class="item references"><ol>{references}</ol></section>'
        f'</div><div class="pkp_structure_sidebar">{m.menu("div", "pkp_block")}</div>{m.footer()}</body></html>'
    )


def mobile(m: Maker) -> str:
    """For small screens: menus hidden in the page, the text after a long list of links."""
    drawer = "".join(
        f'<a class="item" href="/{n}">{t}</a>' for n, t in enumerate((m.texts.menu + m.texts.related) * 2)
    )
    return (
        f'<!doctype html><html amp>{m.head()}<body><amp-sidebar id="drawer" hidden>{drawer}</amp-sidebar><div style="display:none">'
        f'{m.texts.newsletter}</div><main id="content"><div class="amp-wp-article">{m.headline()}<div class="amp-wp-article-content">'
        f'{m.paragraphs(4)}{m.list("ol")}</div></div></main><div class="amp-related">{m.related("div", "rel")}</div></body></html>'
    )


def bare(m: Maker) -> str:
    """Written by hand: headings and paragraphs without any frame, links at both ends."""
    return (
        f"<title>{m.title}</title>\n<p>{m.links()}\n<hr>\n<h1>{m.main(m.title)}</h1>\n<p>{m.paragraph()}\n<p>{m.paragraph()}\n"
        f"<h2>{m.main(m.texts.headings[2])}</h2>\n<p>{m.paragraph()}\n<ul><li>{m.main(m.texts.items[0])}<li>"
        f"{m.main(m.texts.items[1])}</ul>\n<p>{m.paragraph()}\n<hr>\n<address>webmaster@example.org</address>\n{m.links()}"
    )


LAYOUTS: list[Callable[[Maker], str]] = [
    html5, weblog, old_tables, div_soup, interrupted_news, forum, documentation, wiki, product, recipe, answers, short_page,
    teasers, terms, cookie_wall, structured_data, line_breaks, magazine, interview, office, sections, abstract, mobile, bare,
]  # fmt: skip


def pages() -> list[Page]:
    """All 192 pages."""
    found = []
    for texts in LANGUAGES:
        for layout in LAYOUTS:
            maker = Maker(texts, random.Random(f"{texts.code} {layout.__name__}"))
            html = layout(maker)
            main, optional = " \n".join(maker.main_texts), " \n".join(maker.optional_texts)
            found.append(Page(f"{layout.__name__}-{texts.code}", html, main, optional))
    return found


def tokens(text: str) -> Counter[str]:
    """Words; of languages without spaces, characters."""
    return Counter(re.findall(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+", text.lower()))


def score(pages_: list[Page], extract: Callable[[str], str]) -> tuple[float, float, float]:
    """(F1, precision, recall) of tokens, each counted as often as it occurs, as the mean over the pages."""
    found = [measure(page, extract(page.html)) for page in pages_]
    return tuple(sum(column) / len(found) for column in zip(*found, strict=True))


def measure(page: Page, text: str) -> tuple[float, float, float]:
    """(F1, precision, recall) of one page."""
    got, gold, optional = tokens(text), tokens(page.main), tokens(page.optional)
    right = sum((got & gold).values())
    wrong = sum((got - gold - optional).values())
    precision = right / (right + wrong) if right else 0.0
    recall = right / sum(gold.values())
    return (2 * precision * recall / (precision + recall) if right else 0.0), precision, recall
