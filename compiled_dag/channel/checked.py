"""Values of hinted channels, looked at before they are sent.

The writer keeps the user's promises: a value that breaks one is an error of its execution, sent in
the value's place. Tensors are found where they are met anyway, while the value is pickled, and so
at any depth and in any object.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from compiled_dag.channel import codec
from compiled_dag.channel import tensor as tensors
from compiled_dag.channel.writer import Writer
from compiled_dag.outcome import Error, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from compiled_dag.channel.codec import Encoded
    from compiled_dag.channel.graph_segment import GraphSegment
    from compiled_dag.channel.layout import ChannelSpec
    from compiled_dag.channel.pickling import ToBytes
    from compiled_dag.channel.transport import Transport

_SHOWN = 8
"""How many tensors a message lists."""


class CheckedWriter(Writer):
    """A writer that looks at every value first."""

    def __init__(
        self,
        graph: GraphSegment,
        spec: ChannelSpec,
        place: Place,
        *,
        slot_bytes: int,
        cap_bytes: int | None,
    ) -> None:
        super().__init__(graph, spec, slot_bytes=slot_bytes, cap_bytes=cap_bytes)
        self._promises = Promises(spec.transport)
        self._place = place

    def stage(self, value: Any) -> None:
        """Write `value`, or the error that it is none the hint allows.

        Raises:
            TypeError: The value cannot be pickled.
            MemoryCapError: There is no memory for it.
        """
        self.stage_encoded(self._encode(value))

    def capture(self, value: Any) -> Any:
        """Return `value` as it is now, or the error; raises TypeError as `stage` does."""
        return codec.copied(self._encode(value))

    def _encode(self, value: Any) -> Encoded:
        try:
            return self._encode_kept(value)
        except BrokenPromiseError as broken:
            error = Error.capture(broken.cause, self._place, execution=self.published())
            return codec.encode(error)

    def _encode_kept(self, value: Any) -> Encoded:
        """Encode a value that keeps the promises; raises `BrokenPromiseError` for others."""
        return self._promises.encode(value)


class BrokenPromiseError(Exception):
    """A value is not what its hint says; `cause` is what the user gets."""

    def __init__(self, cause: ValueError | TypeError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Promises:
    """What one channel's hint says of its values."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._known: tuple[tensors.Look, ...] | None = None
        """The tensors of the first value, where all are to be alike."""

    def encode(self, value: Any, to_bytes: ToBytes | None = None) -> Encoded:
        """Encode `value` if it keeps the promises; an `Error` always does.

        Args:
            value: The value.
            to_bytes: What makes header and buffer of dense tensors; None: `tensor.to_bytes`.

        Raises:
            BrokenPromiseError: It does not.
            TypeError: It cannot be pickled.
        """
        with self._checking(value) as met:
            return codec.encode(value, met, to_bytes)

    def encode_apart(
        self, value: Any, belongs: Callable[[Any], bool] = tensors.is_plain
    ) -> tuple[Encoded, list[Any]]:
        """Encode `value` without its tensors, and return these too; otherwise as `encode`.

        Args:
            value: The value.
            belongs: Tells which tensors are to be taken out; dense ones only.
        """
        with self._checking(value) as met:
            return codec.encode_apart(value, met, belongs)

    def check_one(self, tensor: torch.Tensor) -> None:
        """Check a value that is one dense tensor; raises `BrokenPromiseError`."""
        if self._transport.static_shape:
            self._check([tensor])

    @contextlib.contextmanager
    def _checking(self, value: Any) -> Iterator[list[Any]]:
        """Check `value`, and the tensors that are put into the list meanwhile."""
        met: list[Any] = []
        is_error = value.__class__ is Error
        if self._transport.direct_return and not (is_error or tensors.is_any_tensor(value)):
            raise BrokenPromiseError(self._not_direct(value))
        try:
            yield met
        finally:  # what cannot be pickled may be just what is not allowed
            if not is_error:
                self._check(met)

    def _check(self, met: list[Any]) -> None:
        if self._transport.on_accelerator:
            for one in met:
                if not tensors.is_plain(one):
                    raise BrokenPromiseError(self._no_layout(one))
        if self._transport.static_shape:
            found = tuple(map(tensors.look, met))
            if self._known is None:
                self._known = found
            elif found != self._known:
                raise BrokenPromiseError(self._not_static(self._known, found))

    def _not_direct(self, value: Any) -> ValueError:
        kind = type(value)
        size = f" of {len(value)}" if isinstance(value, (list, tuple, dict, set)) else ""
        return ValueError(
            f"{self._transport.node} was hinted _direct_return=True, which promises one "
            f"torch.Tensor, and made a {kind.__module__}.{kind.__qualname__}{size}. Return the "
            "tensor itself, or leave the hint out"
        )

    def _not_static(
        self, known: tuple[tensors.Look, ...], found: tuple[tensors.Look, ...]
    ) -> ValueError:
        return ValueError(
            f"{self._transport.node} was hinted _static_shape=True: expected {_looks(known)}, as "
            f"in its first value, found {_looks(found)}. Return the same shapes and dtypes in "
            "every execution, or leave the hint out"
        )

    def _no_layout(self, tensor: Any) -> TypeError:
        return TypeError(
            f"{self._transport.node} is hinted for an accelerator and made "
            f"{tensors.layout_of(tensor)}: only dense tensors travel so. Make it dense, or hint "
            "'shm'"
        )


def _looks(looks: tuple[tensors.Look, ...]) -> str:
    if not looks:
        return "no tensor"
    shown = ", ".join(f"{dtype} {shape}" for dtype, shape in looks[:_SHOWN])
    more = f", and {len(looks) - _SHOWN} more" if len(looks) > _SHOWN else ""
    return f"{len(looks)} tensor{'s' * (len(looks) > 1)} ({shown}{more})"
