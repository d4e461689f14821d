"""The table as text: for ``compiled-dag names``, and for docs/migrating-from-ray.md."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runtime.alias.entries import Here, Later, Missing
from runtime.alias.table import MODULES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BEGIN: Final = "<!-- begin: names, written by runtime.alias.guide -->"
END: Final = "<!-- end: names -->"


def listing(modules: Iterable[str]) -> str:
    """Return the names of some modules, a line each."""
    return "".join(f"{line}\n" for module in modules for line in _lines(module))


def _lines(module: str) -> Iterator[str]:
    yield module
    for name, entry in sorted(MODULES[module].items()):
        match entry:
            case Here(where):
                yield f"  {name}  =  {where.replace(':', '.')}"
            case Later(_, instead):
                yield f"  {name}  -  not there yet. Instead: {instead}"
            case Missing(why, instead):
                yield f"  {name}  -  {why}{f'. Instead: {instead}' if instead else ''}"


def markdown() -> str:
    """Return the part of the guide that the table decides."""
    return "\n".join([*_offered(), "", *_absent()])


def _offered() -> Iterator[str]:
    yield "### What works under `import ray`"
    yield ""
    yield "| module | names |"
    yield "|---|---|"
    for module, rows in sorted(MODULES.items()):
        names = [_shown(name, entry) for name, entry in sorted(rows.items()) if _is_here(entry)]
        if names:
            yield f"| `{module}` | {', '.join(names)} |"


def _is_here(entry: Here | Later | Missing) -> bool:
    return isinstance(entry, Here)


def _shown(name: str, entry: Here | Later | Missing) -> str:
    """Return the name, and ours in parentheses where that differs."""
    ours = entry.where.rpartition(":")[2] if isinstance(entry, Here) else name
    return f"`{name}`" if ours == name else f"`{name}` (`{ours}`)"


def _absent() -> Iterator[str]:
    yield "### What is missing"
    yield ""
    yield "Using one of these raises `AttributeError` or `ImportError` with the same advice."
    yield ""
    yield "| module | names | why | instead |"
    yield "|---|---|---|---|"
    for module, rows in sorted(MODULES.items()):
        reasons: dict[tuple[str, str], list[str]] = {}
        for name, entry in sorted(rows.items()):
            match entry:
                case Later(_, instead):
                    reasons.setdefault(("not there yet", instead), []).append(name)
                case Missing(why, instead):
                    reasons.setdefault((why, instead), []).append(name)
        for (why, instead), names in reasons.items():
            yield f"| `{module}` | {', '.join(f'`{n}`' for n in names)} | {why} | {instead} |"


def with_table(text: str) -> str:
    """Return the guide's text with the table's part brought up to date.

    Raises:
        ValueError: The marks are not there.
    """
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    return f"{text[:start]}\n\n{markdown()}\n\n{text[end:]}"


if __name__ == "__main__":
    _path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/migrating-from-ray.md")
    _path.write_text(with_table(_path.read_text(encoding="utf-8")), encoding="utf-8")
