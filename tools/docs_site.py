"""What the documentation's site shows beyond the pages in ``docs/``, as hooks of MkDocs.

- The command line reference is read from the program.
- What pages link to outside ``docs/`` gets a page, so that the links that work on a repository host
  work in the site too.
- Notebooks are shown with the outputs that they were saved with.
- References in docstrings (``:func:`name```) become links.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PAGES = {"SECURITY.md": "security.md", "notebooks/wrong-labels.ipynb": "notebooks/wrong-labels.md"}
"""Files outside ``docs/`` that are pages of their own."""

COMMANDS = "<!-- commands -->"
_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>~?([\w.]+)</code>")
_BRACKETS = re.compile(
    r'<autoref(?![^>]* optional)[^>]* identifier="([^"]*)"[^>]*>(.*?)</autoref>', re.DOTALL
)
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json", ".toml": "toml", ".md": "markdown"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in ``docs/``."""
    for source, uri in PAGES.items():
        files.append(File.generated(config, uri, content=_shown(ROOT / source)))
    for file in list(files.documentation_pages()):
        for _, target, _ in _LINK.findall(file.content_string):
            path = _repository_path(file.src_uri, target)
            if path is not None and files.get_file_from_path(_uri(path)) is None:
                for generated in _source_pages(path):
                    if files.get_file_from_path(generated) is None:
                        content = _source(generated.removeprefix("source/").removesuffix(".md"))
                        files.append(File.generated(config, generated, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links out of ``docs/`` to the pages that were added, and write the commands."""

    def moved(link: re.Match[str]) -> str:
        path = _repository_path(page.file.src_uri, link[2])
        if path is None:
            return link[0]
        return link[1] + _relative(_uri(path), page.file.src_uri) + link[3]

    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, "\n\n".join(_commands()))
    return _LINK.sub(moved, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links of the references in docstrings; of what has no entry, code.

    Two brackets, as in "counts [true][given]", are an index here and no reference.
    """
    html = _BRACKETS.sub(r"[\2][\1]", html)
    return _ROLE.sub(r'<autoref identifier="\1" optional><code>\1</code></autoref>', html)


def _repository_path(page: str, target: str) -> str | None:
    """Where a link leads, from the root of the repository; None if MkDocs itself finds it."""
    sources = {uri: source for source, uri in PAGES.items()}
    origin = sources.get(page, f"docs/{page}")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
    if ":" in target or path.startswith("../") or not (ROOT / path).exists():
        return None
    natural = path.startswith("docs/") and page not in sources and (ROOT / path).is_file()
    return None if natural else path


def _uri(path: str) -> str:
    """The page of a file or folder of the repository."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/") and (ROOT / path).is_file():
        return path.removeprefix("docs/")
    return f"source/{path}.md"


def _relative(uri: str, page: str) -> str:
    return posixpath.relpath(uri, posixpath.dirname(page) or ".")


def _source_pages(path: str) -> Iterator[str]:
    """The pages to make for a link to a file or folder."""
    yield _uri(path)
    if (ROOT / path).is_dir():
        for inside in sorted((ROOT / path).iterdir()):
            uri = _uri(f"{path}/{inside.name}")
            if inside.is_file() and uri.startswith("source/"):
                yield uri


def _source(path: str) -> str:
    """A page that shows a file or lists a folder; search leaves it out."""
    head = f"---\nsearch:\n  exclude: true\n---\n\n# `{path}`\n\n"
    place = ROOT / path
    if place.is_file():
        return head + _fenced(place.read_text(encoding="utf-8"), _LANGUAGES.get(place.suffix, ""))
    here = _uri(path)
    names = [inside.name for inside in sorted(place.iterdir()) if inside.is_file()]
    links = [f"- [`{name}`]({_relative(_uri(f'{path}/{name}'), here)})" for name in names]
    return head + "\n".join(links) + "\n"


def _fenced(text: str, language: str = "") -> str:
    longest = max((len(run) for run in re.findall(r"~+", text)), default=0)
    fence = "~" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _shown(source: Path) -> str:
    """Markdown of a page outside ``docs/``."""
    text = source.read_text(encoding="utf-8")
    return _notebook(json.loads(text)) if source.suffix == ".ipynb" else text


def _notebook(notebook: dict[str, Any]) -> str:
    """Cells and their saved outputs: text and PNG pictures."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else _fenced(text, "python"))
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                picture = "".join(data["image/png"]).replace("\n", "")
                alternative = "".join(data.get("text/plain", "figure"))
                parts.append(f"![{alternative}](data:image/png;base64,{picture})")
            else:
                parts.append(_fenced("".join(output.get("text") or data["text/plain"]), "text"))
    return "\n\n".join(parts) + "\n"


def _commands() -> Iterator[str]:
    """A section for every command, from the program."""
    from typer.main import get_command

    from dspt.cli import app

    yield from _sections("dspt", get_command(app))


def _sections(path: str, command: Any) -> Iterator[str]:
    inside = getattr(command, "commands", None)
    if inside is not None:
        for name, member in inside.items():
            yield from _sections(f"{path} {name}", member)
        return
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    about, _, examples = command.help.partition("[bold]Examples[/]")
    yield f"## {path}"
    yield _fenced(" ".join([path, "[OPTIONS]", *map(_value, arguments)]))
    yield _markup(about.replace("\b", "").strip())
    yield _fenced(examples.replace("\b", "").strip(), "bash")
    yield from (_entry(f"`{_value(p)}`", p.help) for p in arguments)
    # The groups of --help, those without a group first.
    for group in dict.fromkeys([None, *(p.rich_help_panel for p in options)]):
        yield f"**{group or 'Options'}**"
        yield from (_option(p) for p in options if p.rich_help_panel == group)


def _option(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if not option.is_flag:
        names = names.removesuffix("`") + f" {_value(option)}`"
    note = " Required." if option.required else " Repeatable." if option.multiple else ""
    if option.show_default and not option.is_flag and option.default is not None:
        note = f" \\[default: `{option.default}`]"
    return _entry(names, option.help + note)


def _entry(name: str, text: str) -> str:
    """An entry of a definition list."""
    return f"{name}\n:   {_markup(' '.join(text.split()))}"


def _value(parameter: Any) -> str:
    """What stands for the value of an argument or option."""
    return parameter.metavar or parameter.opts[0].lstrip("-").replace("-", "_").upper()


def _markup(text: str) -> str:
    """Rich's markup as Markdown; code spans stay as they are."""
    parts = re.split(r"(`[^`]*`)", text)
    for i in range(0, len(parts), 2):
        plain = re.sub(r"(?<!\\)\[/?[a-z]*\]", "", parts[i]).replace("\\[", "[")
        parts[i] = re.sub(r"([*_<])", r"\\\1", plain)
    return "".join(part.replace("\\[", "[") for part in parts)
