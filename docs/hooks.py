"""Hooks of mkdocs: pages made of the files in the root, tables, and links to files that are not pages."""

import re
import sys
from pathlib import Path, PurePosixPath

from mkdocs.structure.files import File

sys.path.append(str(Path(__file__).parent))
import tables

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = re.search(r'^REPOSITORY = "(.+)"$', (ROOT / "setup.py").read_text(encoding="utf-8"), re.MULTILINE)[1]
# Pages of the site that are files of the root.
PAGES = {"changelog.md": "CHANGELOG.md", "developers/contributing.md": "CONTRIBUTING.md", "index.md": "README.md"}
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#]+)")


def on_config(config):
    """Takes the address of the repository from setup.py."""
    config.repo_url = REPOSITORY


def on_files(files, config):
    """Adds the pages that are files of the root."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))


def on_page_markdown(markdown, page, config, files):
    """Makes the tables, and lets links find pages and files of the site, and everything else in the repository."""
    uri = page.file.src_uri
    source = PurePosixPath(PAGES.get(uri, f"docs/{uri}"))
    site = {file: page for page, file in PAGES.items()} | {f"docs/{file.src_uri}": file.src_uri for file in files}

    def target(found):
        path = (ROOT / source.parent / found[0]).resolve()
        name = path.relative_to(ROOT).as_posix()
        if name in site:
            return "../" * (uri.count("/")) + site[name]
        return f"{REPOSITORY}/tree/main/{name}" if path.exists() else found[0]

    return LINK.sub(target, tables.made(markdown))
