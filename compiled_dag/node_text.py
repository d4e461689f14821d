"""A node as text, with all it needs: ``str(node)``.

A node that several others need is shown in full once, and by its first line where it appears again:
a graph that shares much would otherwise print exponentially.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from compiled_dag.node import DAGNode

_INDENT: Final = "    "
_BRACKETS: Final[dict[type, tuple[str, str]]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    dict: ("{", "}"),
}


def node_text(node: DAGNode) -> str:
    """Return type, uuid, body, arguments and options of `node`; nodes inside indented."""
    return "\n".join(_node(node, set()))


def _node(node: DAGNode, shown: set[int]) -> list[str]:
    head = f"({type(node).__name__}, {node._stable_uuid})"
    if id(node) in shown:
        return [f"{head}(shown above)"]
    shown.add(id(node))
    return [
        f"{head}(",
        f"{_INDENT}body={node._body}",
        *_field("args", list(node._bound_args), shown),
        *_field("kwargs", node._bound_kwargs, shown),
        *_field("options", node._bound_options, shown),
        *_field("other_args_to_resolve", node._bound_other_args_to_resolve, shown),
        ")",
    ]


def _field(name: str, value: Any, shown: set[int]) -> list[str]:
    first, *rest = _value(value, shown)
    return [f"{_INDENT}{name}={first}", *_indented(rest)]


def _value(value: Any, shown: set[int]) -> list[str]:
    if getattr(type(value), "_is_node", False):
        return _node(value, shown)
    opening, closing = _BRACKETS.get(type(value), ("", ""))
    if not opening or not value:
        return repr(value).split("\n")
    return [opening, *_indented(_items(value, shown)), closing]


def _items(value: Any, shown: set[int]) -> Iterator[str]:
    pairs = value.items() if type(value) is dict else (("", item) for item in value)
    for key, item in pairs:
        lines = _value(item, shown)
        if type(value) is dict:
            lines[0] = f"{key!r}: {lines[0]}"
        lines[-1] += ","
        yield from lines


def _indented(lines: Iterable[str]) -> list[str]:
    return [_INDENT + line for line in lines]
