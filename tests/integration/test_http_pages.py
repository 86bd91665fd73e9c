"""People read the API and its errors in a browser, with nothing from anywhere else."""

import re
from html.parser import HTMLParser

import httpx
import pytest

from tests.integration.http_support import running


class Links(HTMLParser):
    """What a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]
        self.inline += "".join(f"{tag}.{name}" for name, _ in attrs if name.startswith("on"))


@pytest.mark.parametrize("path", ["/docs", "/docs/errors"])
def test_a_page_loads_nothing_from_elsewhere(path: str) -> None:
    """Every file it names is served here; its policy lets it load no other, and no page may frame it."""
    with running() as entrance:
        page = entrance.client.get(path)
        links = Links()
        links.feed(page.text)
        files = {link: entrance.client.get(link) for link in links.found}
    assert page.status_code == 200
    assert "default-src 'none'; script-src 'self'" in page.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert (links.inline, "<script>" in page.text) == ("", False)
    assert files
    assert all(link.startswith("/docs/assets/") for link in files)
    assert {file.status_code for file in files.values()} == {200}


def test_swagger_ui_shows_the_document_of_this_service() -> None:
    """A release that knows OpenAPI 3.1, pointed at the document that is served."""
    with running() as entrance:
        start = entrance.client.get("/docs/assets/start.js").text
        script = entrance.client.get("/docs/assets/swagger-ui-bundle.js").text
        (path,) = re.findall(r'url: "([^"]+)"', start)
        document = entrance.client.get(path).json()
    assert document["openapi"] == "3.1.0"
    assert "SwaggerUIBundle" in script
    assert "3.1" in script


def test_a_problem_leads_to_its_entry() -> None:
    """Its `type` is the address of the code's row."""
    with running() as entrance:
        problem = entrance.sign(key="unheard-of")
        page = entrance.client.get(str(httpx.URL(problem.json()["type"]).copy_with(fragment=None)))
    assert problem.json()["type"] == "/docs/errors#unknown_key"
    assert '<tr id="unknown_key">' in page.text
