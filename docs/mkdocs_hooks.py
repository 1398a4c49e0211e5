"""What mkdocs.yml cannot say by itself; see there."""

import pathlib
import re

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files

DOCS = pathlib.Path(__file__).resolve().parent
LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)#\s]+)(?:#[^)\s]*)?\)")


def on_config(config):
    config["docs_dir"] = str(DOCS)
    return config


def on_files(files, config):
    """Of this folder pages alone: no scripts, no build files. Each must be in the navigation."""
    shown = pathlib.Path(config["config_file_path"]).read_text(encoding="utf-8")
    kept = []
    for file in files:
        is_page = file.is_documentation_page()
        if is_page and f": {file.src_path}\n" not in shown:
            raise PluginError(f"{file.src_path} is not in nav of mkdocs.yml")
        if is_page or DOCS not in pathlib.Path(file.abs_src_path).parents:
            kept.append(file)
    return Files(kept)


def on_page_markdown(markdown, page, **_):
    def without_link(found):
        if not (DOCS / found[2]).exists():
            raise PluginError(f"{page.file.src_path}: no {found[2]}")
        return found[1]
    return LINK.sub(without_link, markdown)
