"""The console's Markdown: what it makes of a text, piece by piece the same as at once."""

from __future__ import annotations

import random
from typing import Any

import pytest_asyncio
from playwright.async_api import Page

from tests.web.browser import Complaints, WebStand, needs_chromium

pytestmark = needs_chromium

RENDER = """async pieces => {
    const { MarkdownView } = await import("/console/markdown-view.js");
    const prose = new MarkdownView();
    let text = "";
    for (const piece of pieces) prose.update(text += piece);
    return prose.node.innerHTML;
}"""
TEXT = """# Title
A paragraph with **bold**, _em_, `code` and [a link](https://example.com/a?b=1&c=2).
It goes on.

## List
- one
  - nested `x`
- two **b**

- three after a blank line
1. first
2. second

| name | lines |
|:---|---:|
| a\\|b | 12 |
| c | 3 |

> quoted
> - item

```python
def f():  # <b>
    return "`"
```
---
The end\\.
"""


@pytest_asyncio.fixture(loop_scope="session")
async def render(page: Page, stand: WebStand, complaints: Complaints) -> Any:
    await page.goto(stand.url)

    async def run(*pieces: str) -> str:
        html: str = await page.evaluate(RENDER, list(pieces))
        return html

    return run


CASES = {
    "# A *b*": '<h3 class="level-1" dir="auto">A <em>b</em></h3>',
    "a_b_c and *not * this*": '<p dir="auto">a_b_c and *not * this*</p>',
    "<b>x</b> &amp;": '<p dir="auto">&lt;b&gt;x&lt;/b&gt; &amp;amp;</p>',
    "[x](javascript:y)": '<p dir="auto">[x](javascript:y)</p>',
    "[x](data:text/html,y) [y](//e.com)": '<p dir="auto">[x](data:text/html,y) [y](//e.com)</p>',
    "3. a\n4. b": '<ol start="3"><li dir="auto">a</li><li dir="auto">b</li></ol>',
    "```\nopen": '<figure class="code"><pre tabindex="0" dir="ltr" class="said"><code>open</code></pre></figure>',
}


async def test_a_text_becomes_nodes(render: Any) -> None:
    """What is no Markdown, or no link to the web, is shown as it was written."""
    assert {text: await render(text) for text in CASES} == CASES


LABELS = {
    "https://bank.example": "evil.example",
    "http://www.bank.example/login": "evil.example",
    "bank.example": "evil.example",
    "see www.bank.example/a": "evil.example",
    "**https://**bank.example": "evil.example",
    "https://bank.example@evil.example": "evil.example",
    "b\u200bank.example": "evil.example",
    "\uff42ank\uff0eexample": "evil.example",
    "https://evil.example:8080": "evil.example",
    "https://evil.example/other": None,
    "www.evil.example": None,
    "EVIL.example": None,
    "a link": None,
    "README.md": None,
    "v1.2.3": None,
    "e.g. this": None,
}


async def test_a_label_that_names_another_place_is_given_away(render: Any) -> None:
    """Where a label looks like an address, and the link leads elsewhere, the host is shown beside it."""
    for label, host in LABELS.items():
        html = await render(f"[{label}](https://evil.example/)")
        assert html.count("<a ") == 1, label
        assert (f" ({host})</a>" in html) is (host is not None), html
    assert "(" not in await render("https://bank.example/a and <https://bank.example>")


async def test_pieces_make_what_the_whole_makes(render: Any) -> None:
    """However a text is cut up, and whatever stands in it."""
    whole = await render(TEXT)
    assert [whole.count(f"<{tag}") for tag in ("li", "table", "blockquote")] == [7, 1, 1]
    for seed in range(12):
        cuts = sorted(random.Random(seed).sample(range(1, len(TEXT)), 30))
        pieces = [TEXT[a:b] for a, b in zip([0, *cuts], [*cuts, len(TEXT)], strict=True)]
        assert await render(*pieces) == whole, seed
    assert await render(*TEXT) == whole


async def test_no_text_takes_long(render: Any) -> None:
    """Texts made to be hard: the page's own time limit would end the test."""
    for hard in ("*", "_", "`", "[", "**a ", "[a](", "> ", "- ", "|", "# ", "    - ", "![", "~~", "<http://"):
        assert await render(hard * (60_000 // len(hard))), hard
    assert await render("|" + " " * 30_000 + "x|\n|-" + " " * 30_000 + "x")
