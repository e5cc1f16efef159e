"""Hooks of MkDocs: which files of the repository are pages of the site.

The pages are those of the navigation and everything that they link to, directly or not. They stay
at their paths, so a relative link leads to the same place here and on GitHub:

- another Markdown file or a picture is taken as it is;
- a source file, such as a manifest or a script, becomes a page that shows it;
- a folder becomes a page that lists it, unless it has a README.
"""

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r'\]\(([^)\s]+)\)|\bsrc="([^"]+)"')
PICTURES = {".svg", ".png"}
LANGUAGES = {".rs": "rust", ".py": "python"}

log = logging.getLogger("mkdocs.hooks.pages")


def on_config(config):
    config.nav = [list_folders(entry) for entry in config.nav]
    for page in sorted((ROOT / "docs").glob("*.md")):
        if f"docs/{page.name}" not in nav_pages(config.nav):
            log.warning("docs/%s is missing in the navigation", page.name)
    return config


def list_folders(entry):
    """An entry of the navigation; a folder in it becomes the list of the folder's pages."""
    if not isinstance(entry, dict):
        return entry
    [(title, target)] = entry.items()
    if isinstance(target, list):
        return {title: [list_folders(inner) for inner in target]}
    if target.endswith("/"):
        return {title: [target + page.name for page in sorted((ROOT / target).glob("*.md"))]}
    return entry


def nav_pages(nav):
    """Paths of all pages in the navigation."""
    for entry in nav:
        for target in entry.values() if isinstance(entry, dict) else [entry]:
            yield from nav_pages(target) if isinstance(target, list) else [target]


def on_files(files, config):
    waiting = [page for page in nav_pages(config.nav) if (ROOT / page).is_file()]
    while waiting:
        uri = waiting.pop()
        if files.get_file_from_path(uri):
            continue
        file = make_file(uri, config)
        files.append(file)
        if uri.endswith(".md"):
            waiting += [page for link in links(file.content_string) if (page := page_of(uri, link))]
    return files


def make_file(uri, config):
    path = ROOT / uri
    if path.is_file():
        return File(uri, str(ROOT), config.site_dir, use_directory_urls=False)
    if path.name == "index.md":
        return File.generated(config, uri, content=listing(path.parent))
    return File.generated(config, uri, content=source(path.with_suffix("")))


def listing(folder):
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    lines = [f"- [{name}]({name})" for name in names]
    return "\n".join([f"# {folder.relative_to(ROOT)}/", "", *lines, ""])


def source(path):
    text = path.read_text()
    if path.suffix:
        language = LANGUAGES.get(path.suffix, path.suffix.lstrip("."))
    else:
        language = "bash" if text.startswith("#!") else "text"
    return f"# {path.relative_to(ROOT)}\n\n~~~~~{language}\n{text.rstrip()}\n~~~~~\n"


def links(markdown):
    return [link or src for link, src in LINK.findall(markdown)]


def page_of(uri, link):
    """Path of the page or picture that a link on page `uri` leads to; None if it leads elsewhere."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(uri), link.split("#")[0]))
    path = ROOT / target
    if "://" in link or link.startswith("#") or target.startswith("..") or not path.exists():
        return None
    if path.is_dir():
        return f"{target}/README.md" if (path / "README.md").exists() else f"{target}/index.md"
    return target if path.suffix in PICTURES | {".md"} else f"{target}.md"


def on_page_markdown(markdown, page, config, files):
    def rewrite(match):
        link, _, anchor = (match[1] or "").partition("#")
        target = page_of(page.file.src_uri, link) if link else None
        if target is None:
            return match[0]
        folder = posixpath.dirname(page.file.src_uri)
        relative = posixpath.relpath(target, folder or ".")
        return f"]({relative}{'#' + anchor if anchor else ''})"

    return LINK.sub(rewrite, markdown)
