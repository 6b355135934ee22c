"""Pages of HTML, read as a browser reads them."""

import base64
import hashlib
import re
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img"}
HOSTILE = "</title></style><script>alert(1)</script>'\"><img src=x onerror=alert(1)>\u202eevil\u200b{{ 7*7 }}{% x %}"

OURS = {
    "html", "head", "meta", "link", "title", "style", "body", "header", "p", "h1", "span", "nav", "a", "main",
    "section", "h2", "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "strong", "br", "dl", "dt", "dd",
    "details", "summary", "code", "pre", "figure", "img", "figcaption", "footer",
}  # fmt: skip
"""The elements of our pages."""


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def check_harmless(html: str) -> None:
    """Check that a page has our elements only, loads nothing, and has no hidden characters."""
    found = Page(html)
    assert {tag for tag, _ in found.elements} <= OURS
    for tag, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#s")), (tag, attributes)
    for char in "\u202e\u200b":
        assert char not in html
    (style,) = re.findall("<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [attributes["content"] for _, attributes in found.elements if "http-equiv" in attributes]
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
