"""HTML and SVG elements from values; every text is escaped unless it was made here."""

from collections.abc import Iterable
from html import escape

VOID = frozenset({"br", "hr", "input", "link", "meta"})


class Markup(str):
    """Text that is HTML already and must not be escaped again."""

    __slots__ = ()


Content = str | int | float | None | Iterable["Content"]
"""Children of an element: texts and numbers (escaped), Markup (kept), None (nothing)."""

Attribute = str | int | float | bool | None
"""Value of an attribute: None and False leave it out, True is a bare attribute."""


def el(tag: str, *children: Content, **attributes: Attribute) -> Markup:
    """Make one element.

    Parameters
    ----------
    tag : str
        Element name.
    *children : Content
        What is inside, in order.
    **attributes : Attribute
        By name; a trailing underscore is dropped (``class_``), others become hyphens. Floats are
        written with at most two decimals, enough for coordinates.

    Returns
    -------
    Markup
        The element as HTML.

    Examples
    --------
    >>> el("p", "1 < 2", class_="note", data_tip='"')
    '<p class="note" data-tip="&quot;">1 &lt; 2</p>'
    """
    pairs = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in VOID:
        return Markup(f"<{tag}{pairs}>")
    return Markup(f"<{tag}{pairs}>{html(children)}</{tag}>")


def html(content: Content) -> Markup:
    """Turn content into HTML.

    Parameters
    ----------
    content : Content
        Texts, numbers, Markup, None, or these nested in iterables.

    Returns
    -------
    Markup
        Its parts one after the other, escaped where they were not Markup.
    """
    if content is None:
        return Markup()
    if isinstance(content, Markup):
        return content
    if isinstance(content, (str, int, float)):
        return Markup(escape(str(content)))
    return Markup("".join(html(item) for item in content))


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = name.removesuffix("_").replace("_", "-")
    if value is True:
        return f" {name}"
    text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return f' {name}="{escape(text)}"'
