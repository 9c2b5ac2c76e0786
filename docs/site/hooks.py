"""What makes the site of the Markdown as it is read in the repository.

- **Order.** Sections are in the order of the links in `docs/README.md`, and pages in that of their section's README. A
  page that no README names comes last, by its title: a new file needs no entry anywhere.
- **Files of the repository** that a page links to (an example, a README, a picture) become pages under `code/`, out of
  the navigation and the search. So no link leaves the site, and none needs the address of a repository.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = "docs"
CODE = "code"
NO_PAGES = ("docs/site/", "docs/examples/", "docs/build")
LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(\))")
FENCE = re.compile(r"^( *)(```+|~~~+).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
LANGUAGES = {
    ".py": "python",
    ".sh": "bash",
    ".js": "js",
    ".mjs": "js",
    ".ts": "ts",
    ".tsx": "tsx",
    ".jsx": "jsx",
    ".go": "go",
    ".rs": "rust",
    ".java": "java",
    ".kt": "kotlin",
    ".yml": "yaml",
    ".yaml": "yaml",
    ".toml": "toml",
    ".json": "json",
    ".html": "html",
    ".lua": "lua",
    ".css": "css",
    ".conf": "nginx",
}
PICTURES = {".png", ".svg", ".jpg"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the linked files of the repository, those that they link to in Markdown too, and put the pages in order."""
    waiting = [DOCS + "/" + file.src_uri for file in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        for target in linked(path):
            if target in seen or is_page(target) or not (ROOT / target).exists():
                continue
            seen.add(target)
            files.append(file_of(target, config))
            if target.endswith(".md"):
                waiting.append(target)
    config["nav"] = [{title_of(section): pages} for section, pages in ordered(files)]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files of the repository lead to their pages."""
    uri = page.file.src_uri
    path = repository_path(uri)

    def place(link: re.Match[str]) -> str:
        target = normal(path, link[2])
        where = target if is_page(target) else f"{DOCS}/{code_uri(target)}"
        return f"{link[1]}{os.path.relpath(where, os.path.dirname(DOCS + '/' + uri))}{link[3] or ''}{link[4]}"

    return outside_fences(markdown, lambda text: LINK.sub(place, text))


def on_page_context(context: dict[str, Any], page: Page, config: MkDocsConfig, nav: Any) -> dict[str, Any]:
    """The pages of files are not found by the search."""
    if page.file.src_uri.startswith(CODE + "/"):
        page.meta["search"] = {"exclude": True}
    return context


# --- files of the repository -----------------------------------------------------------------------------------------


def outside_fences(markdown: str, change: Any) -> str:
    made, at = [], 0
    for fence in FENCE.finditer(markdown):
        made += [change(markdown[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*made, change(markdown[at:])])


def normal(path: str, link: str) -> str:
    return os.path.normpath(os.path.join(os.path.dirname(path), link)).replace(os.sep, "/")


def linked(path: str) -> set[str]:
    """What a Markdown file links to, as paths from the top of the repository."""
    text = FENCE.sub("", (ROOT / path).read_text())
    return {normal(path, link[2]) for link in LINK.finditer(text)}


def is_page(path: str) -> bool:
    """Whether a file of the repository is a page of the site as it is."""
    return path.startswith(DOCS + "/") and not path.startswith(NO_PAGES)


def code_uri(path: str) -> str:
    """Where the site has a file of the repository."""
    if Path(path).suffix in PICTURES:
        return f"{CODE}/{path}"
    return f"{CODE}/{path}" if path.endswith(".md") else f"{CODE}/{path}.md"


def repository_path(uri: str) -> str:
    """Where the repository has a page of the site."""
    if not uri.startswith(CODE + "/"):
        return f"{DOCS}/{uri}"
    path = uri.removeprefix(CODE + "/")
    return path if (ROOT / path).is_file() else path.removesuffix(".md")


def file_of(path: str, config: MkDocsConfig) -> File:
    found = ROOT / path
    if found.suffix in PICTURES:
        return File.generated(config, code_uri(path), abs_src_path=str(found))
    if found.is_dir():
        names = sorted(each.name + "/" * each.is_dir() for each in found.iterdir() if each.name[0] not in "._")
        text = f"# {path}\n\n" + "".join(f"- `{name}`\n" for name in names if name != "node_modules/")
    elif path.endswith(".md"):
        text = found.read_text()
    else:
        text = f"# {path}\n\n````{LANGUAGES.get(found.suffix, 'text')}\n{found.read_text()}\n````\n"
    return File.generated(
        config,
        code_uri(path),
        content="---\nsearch:\n  exclude: true\n---\n" + text,
        inclusion=InclusionLevel.NOT_IN_NAV,
    )


# --- the order -------------------------------------------------------------------------------------------------------


def title_of(section: str) -> str:
    return "Home" if section == "." else section.capitalize()


def ordered(files: Files) -> list[tuple[str, Any]]:
    """Sections and their pages."""
    pages: dict[str, list[str]] = {}
    for file in files.documentation_pages():
        if not file.src_uri.startswith(CODE + "/"):
            pages.setdefault(os.path.dirname(file.src_uri) or ".", []).append(file.src_uri)
    said = [link.removeprefix(DOCS + "/").removesuffix("/README.md") for link in links_in_order("docs/README.md")]
    sections = sorted(pages, key=lambda section: (section != ".", position(said, section), section))
    return [(section, in_section(section, pages[section])) for section in sections]


def in_section(section: str, uris: list[str]) -> Any:
    first = "README.md" if section == "." else section + "/README.md"
    said = [link.removeprefix(DOCS + "/") for link in links_in_order(f"{DOCS}/{first}")]
    uris.sort(key=lambda uri: (uri != first, position(said, uri), uri))
    return uris[0] if section == "." else uris


def position(said: list[str], name: str) -> int:
    return said.index(name) if name in said else len(said)


def links_in_order(path: str) -> list[str]:
    if not (ROOT / path).exists():
        return []
    text = FENCE.sub("", (ROOT / path).read_text())
    return [normal(path, link[2]) for link in LINK.finditer(text)]
