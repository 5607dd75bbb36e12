"""How tests read a page that carries its numbers: strictly, or not at all."""

import json
from html.parser import HTMLParser


class Reader(HTMLParser):
    """A strict reader: every tag is closed by its own kind; keeps texts, attributes, numbers and lines of tables."""

    void = frozenset({"meta", "br", "hr", "input"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.cells, self.rows, self.data = [], [], [], [], [], None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        self.open += [] if tag in self.void else [tag]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.data = self.data or json.loads(data)  # the numbers come first
            return
        self.cells.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    @property
    def text(self):
        return " ".join(self.cells)
