"""The pages for people: they need no other host, and nothing in them is taken as markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from credit_risk.serving import pages
from credit_risk.serving.problems import KINDS, Kind
from tests import served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from credit_risk.package import ModelPackage
    from tests.served import Served

HOSTILE = "</title><script>alert('1')</script> & \"more\""


class Tags(HTMLParser):
    """Every tag and text of a page; knows when a tag is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it, and that it is open unless it never closes."""
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "link"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """It closes what was opened last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note the text."""
        self.texts.append(data)


@pytest.fixture(scope="module")
def server(
    trees_package: ModelPackage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server of the toy trees."""
    with served.serving(trees_package, tmp_path_factory.mktemp("pages")) as running:
        yield running


def test_the_docs_load_what_they_need_from_this_server(server: Served) -> None:
    """Every file that the page names is there, and no other host is asked."""
    response = server.get("/docs")

    assert response.headers["content-type"] == "text/html; charset=utf-8"
    page = Tags(response.text)
    assert page.open == []
    files = [attributes.get("src") or attributes.get("href") for _, attributes in page.tags]
    named = [name for name in files if name]
    assert named == ["docs/assets/swagger-ui.css", "docs/assets/swagger-ui-bundle.js"]
    for name, media_type in zip(named, ("text/css", "javascript"), strict=True):
        file = server.get(f"/{name}")
        assert file.status_code == 200
        assert media_type in file.headers["content-type"]
        assert len(file.content) > 10_000
    assert 'url: "openapi.json"' in response.text
    assert server.get("/openapi.json").status_code == 200
    assert not re.search(r"https?://|//[a-z]", response.text)


def test_the_docs_name_what_is_decided(server: Served) -> None:
    """The portfolio's title is the page's."""
    title = server.active.current.schema.title

    assert f"<title>Credit-risk decisions: {title}</title>" in server.get("/docs").text


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_page_of_every_problem_says_what_to_do(server: Served, kind: Kind) -> None:
    """Title, status and advice, in a page that stands alone."""
    response = server.get(kind.uri, accept="text/html")

    page = Tags(response.text)
    text = "".join(page.texts)
    assert response.status_code == 200
    assert page.open == []
    assert kind.title in text
    assert f"Status {kind.status}" in text
    assert kind.advice in text
    assert "src" not in {name for _, attributes in page.tags for name in attributes}


def test_a_portfolios_title_is_never_markup() -> None:
    """Data files are text, whatever is in them."""
    page = Tags(pages.docs(HOSTILE))

    assert page.open == []
    assert f"Credit-risk decisions: {HOSTILE}" in page.texts
    assert [tag for tag, _ in page.tags].count("script") == 2


def test_a_problems_words_are_never_markup() -> None:
    """Nor are ours."""
    page = Tags(pages.problem(Kind(HOSTILE, 400, HOSTILE, HOSTILE)))

    assert page.open == []
    assert "script" not in [tag for tag, _ in page.tags]
    assert page.texts.count(HOSTILE) == 3
