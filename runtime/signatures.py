"""What is known of a remote class's methods, and checks of arguments against it.

Wrong arguments raise at the call, in the driver, not in the actor.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runtime.checks import STREAM
from runtime.options import check_method_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from runtime.messages import Retry

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
OPTIONS_ATTRIBUTE = "__runtime_method_options__"
"""Where `runtime.method` leaves its options on a function."""


_NOTHING: Final[Mapping[str, Any]] = {}


class MethodOptions(NamedTuple):
    """What `runtime.method` and ``.options()`` of a method set."""

    num_returns: int = 1
    concurrency_group: str = ""
    max_task_retries: int | None = None
    """After the actor's death; None: as the actor's option says."""
    retry_exceptions: bool | tuple[type[BaseException], ...] = False
    cuda_graph: bool = False
    """In a compiled graph, on a GPU: its work there is recorded once, and played."""
    declared: Mapping[str, Any] = _NOTHING
    """What was given to ``.options()``, as it was given."""

    def updated(self, options: Mapping[str, Any]) -> MethodOptions:
        """Return these options with those a user gave; raises as `check_method_options`."""
        changes = check_method_options(options)
        return self._replace(**changes, declared={**self.declared, **options})

    @property
    def retry(self) -> Retry | None:
        """What the calls carry; None: as the actor's options say."""
        if self.max_task_retries is None and not self.retry_exceptions:
            return None
        from runtime.messages import Retry  # noqa: PLC0415  loaded: there is a session

        return Retry(self.max_task_retries, self.retry_exceptions)


class MethodSpec(NamedTuple):
    """One method of a remote class."""

    class_name: str
    name: str
    function: Callable[..., Any] | None
    signature: inspect.Signature | None
    """Without self; None where it cannot be known."""
    counts: range | None
    """Numbers of positional arguments that fit by themselves; None: ask the signature."""
    options: MethodOptions

    @property
    def num_returns(self) -> int:
        """How many values it returns."""
        return self.options.num_returns

    def without_function(self) -> MethodSpec:
        """Return what another process needs of it: neither code nor annotations nor defaults."""
        signature = self.signature
        if signature is not None:
            parameters = [
                parameter.replace(
                    annotation=parameter.empty,
                    default=parameter.empty if parameter.default is parameter.empty else ...,
                )
                for parameter in signature.parameters.values()
            ]
            signature = inspect.Signature(parameters)
        return self._replace(function=None, signature=signature)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Refuse arguments that do not fit.

        Raises:
            TypeError: They do not fit; the message shows the signature.
        """
        if not kwargs and self.counts is not None and len(args) in self.counts:
            return
        if self.signature is None:
            return
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            given = [type(arg).__name__ for arg in args]
            given += [f"{name}={type(value).__name__}" for name, value in kwargs.items()]
            owner = f"{self.class_name}." if self.class_name else ""
            raise TypeError(
                f"{owner}{self.name}{self.signature} does not take ({', '.join(given)}): {error}"
            ) from None


def methods_of(cls: type) -> dict[str, MethodSpec]:
    """Return the methods of `cls` that can be called remotely, special ones of its own included."""
    own = _own_names(cls)
    return {
        name: spec_of(cls.__name__, name, function, static=_is_static(cls, name))
        for name, function in inspect.getmembers(cls, callable)
        if not isinstance(function, type)
        if not _is_special(name) or (name in own and name not in _NOT_CALLED)
    }


_NOT_CALLED = frozenset(
    {"__init__", "__new__", "__del__", "__class_getitem__", "__init_subclass__", "__subclasshook__"}
)
"""Special methods that are no calls of an instance that exists."""


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _own_names(cls: type) -> Iterable[str]:
    return {name for base in cls.__mro__ if base is not object for name in vars(base)}


def _is_static(cls: type, name: str) -> bool:
    return isinstance(inspect.getattr_static(cls, name), staticmethod)


def spec_of(class_name: str, name: str, function: Any, *, static: bool = False) -> MethodSpec:
    """Describe the attribute `function` of a class; a `static` one takes no self."""
    signature = _signature(function, static=static)
    plain = getattr(function, "__func__", function)  # of a class method
    options: Mapping[str, Any] = getattr(function, OPTIONS_ATTRIBUTE, {})
    return MethodSpec(
        class_name=class_name,
        name=name,
        function=plain if inspect.isfunction(plain) else None,
        signature=signature,
        counts=None if signature is None else _counts(signature),
        options=MethodOptions(**{**_defaults(function), **options}),
    )


def _defaults(function: Any) -> Mapping[str, Any]:
    return {"num_returns": STREAM} if is_stream(function) else {}


def is_stream(function: Any) -> bool:
    """Tell whether a call of `function` yields results one by one."""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def constructor_of(cls: type) -> MethodSpec:
    """Describe the constructor of `cls`."""
    own = _own_names(cls)
    if "__init__" in own:
        return spec_of(cls.__name__, "__init__", inspect.getattr_static(cls, "__init__"))
    if "__new__" in own:
        return spec_of(cls.__name__, "__init__", None)
    return spec_of(cls.__name__, "__init__", _no_constructor)


def _no_constructor(_self: object) -> None:
    """Stand for the constructor of a class that has none: it takes no arguments."""


def _signature(function: Any, *, static: bool) -> inspect.Signature | None:
    """Return the signature without self, as far as it can be known."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    signature = signature.replace(return_annotation=signature.empty)  # of no use to who calls it
    if static or inspect.ismethod(function) or not inspect.isfunction(function):
        return signature
    parameters = list(signature.parameters.values())
    if parameters and parameters[0].kind in _POSITIONAL:
        parameters = parameters[1:]
    return signature.replace(parameters=parameters)


def _counts(signature: inspect.Signature) -> range | None:
    """Return how many positional arguments alone satisfy `signature`, if that is simple."""
    parameters = signature.parameters.values()
    if any(parameter.kind not in _POSITIONAL for parameter in parameters):
        return None
    required = sum(parameter.default is parameter.empty for parameter in parameters)
    return range(required, len(signature.parameters) + 1)


def is_async(cls: type) -> bool:
    """Tell whether any method of `cls` is a coroutine function or asynchronous generator."""
    return any(
        inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        for _, function in inspect.getmembers(cls, inspect.isfunction)
    )
