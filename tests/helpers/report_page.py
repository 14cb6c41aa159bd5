"""Checks of a report's HTML that need no browser."""

import html.parser
import re


class Page(html.parser.HTMLParser):
    """Collects what a page would load, tags left open, ids and what needs a label."""

    def __init__(self):
        super().__init__()
        self.found, self.open, self.ids, self.unnamed = [], [], [], []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.found += [v for k, v in attributes if k in ("src", "href", "data", "srcset")]
        self.ids += [given["id"]] if "id" in given else []
        labelled = "aria-label" in given or "label" in self.open
        nameless = tag in ("input", "select") and not labelled
        if nameless or (tag == "img" and "alt" not in given):
            self.unnamed.append((tag, given))
        if tag not in ("meta", "input", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def needs_nothing_else(text):
    """Assert that a page loads nothing, is well-formed, and that all in it has names."""
    page = Page()
    page.feed(text)
    assert not page.open
    assert not page.unnamed
    assert len(set(page.ids)) == len(page.ids)
    assert not [link for link in page.found if not link.startswith("data:")]
    outside = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert "http" not in outside.replace("http-equiv", "")
    assert "url(" not in re.sub(r"url\(#\w+\)", "", text)
    assert not re.search("@[A-Z]+@", text)
    assert "default-src 'none'" in text
    assert "'self'" not in text
