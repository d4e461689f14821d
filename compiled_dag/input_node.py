"""The inputs of a graph, as nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

from compiled_dag.errors import GraphUsageError
from compiled_dag.node import DAGNode

if TYPE_CHECKING:
    from types import TracebackType


INPUT_NODE_KEY: Final = "dag_input_node"


class InputNode(DAGNode):
    """What `execute` will be given. Use it as ``with InputNode() as inp:``.

    ``inp`` is the one positional argument; ``inp[0]`` the first of several (``inp[-1]`` the last),
    ``inp.name`` and ``inp["name"]`` keyword arguments. Names of real node attributes are reachable
    by ``["..."]``.
    """

    def __init__(self, *args: Any, input_type: Any = None, **kwargs: Any) -> None:
        if args or kwargs:
            given = ", ".join([*map(repr, args), *(f"{k}={v!r}" for k, v in kwargs.items())])
            msg = f"InputNode takes no arguments, got {given}: values are given to execute()"
            raise ValueError(msg)
        super().__init__()
        self.input_type = input_type
        self._entered = False
        self._fields: dict[int | str, InputAttributeNode] = {}

    @property
    def input_attribute_nodes(self) -> dict[int | str, InputAttributeNode]:
        """The fields that were asked for, by key."""
        return dict(self._fields)

    def get_result_type(self) -> str | None:
        """Return the name of `input_type`, if that is one class: ``"str"``, ``"numpy.ndarray"``."""
        return _type_name(self.input_type) if isinstance(self.input_type, type) else None

    @property
    def _label(self) -> str:
        return "input"

    def __enter__(self) -> InputNode:
        self._entered = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing ends: nodes may be bound after the block too."""

    def __getitem__(self, key: Any) -> InputAttributeNode:
        if isinstance(key, bool) or not isinstance(key, (int, str)):
            msg = f"inp[{key!r}]: the key of an input is an int (positional) or a str (keyword)"
            raise GraphUsageError(msg)
        return self._field(key, by_attribute=False)

    def __getattr__(self, name: str) -> InputAttributeNode:
        if name.startswith("_") or name in ("remote", "bind"):
            raise self._no_attribute(name)
        return self._field(name, by_attribute=True)

    def __getstate__(self) -> dict[str, Any]:
        # The fields are nodes that need this one: those that travel too enter themselves.
        return {**super().__getstate__(), "_fields": {}}

    def _no_attribute(self, name: str) -> AttributeError:
        if name in ("remote", "bind"):
            return AttributeError(
                f"an InputNode has no .{name}: pass it to the .bind() of a function or method. An "
                f"input of that name is inp[{name!r}]"
            )
        return super()._no_attribute(name)

    def __iter__(self) -> NoReturn:
        msg = "an InputNode cannot be iterated: how many inputs there are is known at execute()"
        raise TypeError(msg)

    def _field(self, key: int | str, *, by_attribute: bool) -> InputAttributeNode:
        if key not in self._fields:
            InputAttributeNode(self, key, by_attribute=by_attribute)  # enters itself
        return self._fields[key]


class InputAttributeNode(DAGNode):
    """One of several inputs."""

    def __init__(self, source: InputNode, key: int | str, *, by_attribute: bool) -> None:
        self._key = key
        self._by_attribute = by_attribute
        super().__init__(others={INPUT_NODE_KEY: source, "key": key})

    def _attach(self) -> None:
        super()._attach()
        self._input._fields.setdefault(self._key, self)

    @property
    def key(self) -> int | str:
        """Position or name of the input."""
        return self._key

    def get_result_type(self) -> str | None:
        """Return the name of its type, if the `input_type` of the InputNode has its key."""
        kinds = self._input.input_type
        return (
            _type_name(kinds[self._key])
            if isinstance(kinds, Mapping) and self._key in kinds
            else None
        )

    @property
    def _input(self) -> Any:
        return self._bound_other_args_to_resolve[INPUT_NODE_KEY]

    @property
    def _label(self) -> str:
        return f"input[{self._key!r}]"


def _type_name(kind: Any) -> str:
    """Return what `pydoc.locate` finds a type by."""
    name: str = getattr(kind, "__name__", str(kind))
    module = getattr(kind, "__module__", "builtins")
    return name if module == "builtins" or not hasattr(kind, "__name__") else f"{module}.{name}"
