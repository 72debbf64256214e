"""What every page of ours has to look like, as far as its text shows."""

from __future__ import annotations

import re


def check(page: str) -> None:
    """See that tables scroll in boxes of their own, and that each colour is one of light and dark.

    So a narrow screen has no scroll sideways, and nothing is black on black.
    """
    # Of all tables but those of a card, whose text is Markdown: these are their own boxes.
    assert len(re.findall(r'<div class="wide"><table', page)) == len(re.findall("<table", page))
    assert 'name="viewport"' in page
    style = page[page.index("<style>") : page.index("</style>")]
    light, dark, *_ = (
        set(re.findall(r"(--[a-z0-9-]+):", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    )
    assert light == dark
    set_elsewhere = {"--is", "--share"}
    assert set(re.findall(r"var\((--[a-z0-9-]+)\)", page)) <= light | set_elsewhere
