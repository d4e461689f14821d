"""A node as text, with all it needs: ``str(node)``.

A node that several others need is shown in full once, and by its first line where it appears again:
a graph that shares much would otherwise print exponentially.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compiled_dag.node import DAGNode

    _Parts: TypeAlias = Iterator["str | _Parts"]

_INDENT: Final = "    "
_BRACKETS: Final[dict[type, tuple[str, str]]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    dict: ("{", "}"),
}


def node_text(node: DAGNode) -> str:
    """Return type, uuid, body, arguments and options of `node`; nodes inside indented."""
    lines: list[str] = []
    # What is inside waits here, not on Python's stack, which a long chain of nodes would exhaust.
    inside = [_value(node, set(), 0)]
    while inside:
        part = next(inside[-1], None)
        if part is None:
            inside.pop()
        elif isinstance(part, str):
            lines.append(part)
        else:
            inside.append(part)
    return "\n".join(lines)


def _value(value: Any, shown: set[int], depth: int, before: str = "", after: str = "") -> _Parts:
    if getattr(type(value), "_is_node", False):
        return _node(value, shown, depth, before, after)
    if value and type(value) in _BRACKETS:
        return _container(value, shown, depth, before, after)
    text = f"{before}{value!r}{after}"
    return (_INDENT * depth + line for line in text.split("\n"))


def _node(node: DAGNode, shown: set[int], depth: int, before: str, after: str) -> _Parts:
    indent = _INDENT * depth
    head = f"{indent}{before}({type(node).__name__}, {node._stable_uuid})("
    if id(node) in shown:
        yield f"{head}shown above){after}"
        return
    shown.add(id(node))
    yield head
    yield f"{indent}{_INDENT}body={node._body}"
    yield _value(list(node._bound_args), shown, depth + 1, "args=")
    yield _value(node._bound_kwargs, shown, depth + 1, "kwargs=")
    yield _value(node._bound_options, shown, depth + 1, "options=")
    yield _value(node._bound_other_args_to_resolve, shown, depth + 1, "other_args_to_resolve=")
    yield f"{indent}){after}"


def _container(value: Any, shown: set[int], depth: int, before: str, after: str) -> _Parts:
    indent = _INDENT * depth
    opening, closing = _BRACKETS[type(value)]
    yield f"{indent}{before}{opening}"
    if type(value) is dict:
        for key, item in value.items():
            yield _value(item, shown, depth + 1, f"{key!r}: ", ",")
    else:
        for item in value:
            yield _value(item, shown, depth + 1, "", ",")
    yield f"{indent}{closing}{after}"
