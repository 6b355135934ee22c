"""mkdocs hook: pages of the site that lie at the top of the repository, where GitHub looks for them."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

TOP = ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages. Their links to `docs/` are links to pages of the site."""
    for name in TOP:
        text = (Path(config.config_file_path).parent / name).read_text()
        files.append(File.generated(config, name, content=text.replace("](docs/", "](")))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """In the site those pages lie one folder deeper, beside the others."""
    for name in TOP:
        markdown = markdown.replace(f"../{name}", name)
    return markdown
