"""A method whose work on the GPU is recorded once, as a CUDA graph, and then done again each time.

The first `WARM` calls with arguments of one look run as ever, on the stream that records, so that
libraries have set up what they need. The next one is recorded: the method's Python runs, and what
it enqueues is noted instead of done; then the recording is played. From then on only the recording
is: arguments are copied into those it was made with, and its results are given back, as copies
where anything but a channel uses them. Nothing else runs: no Python, no change of the object's
attributes. Waits for peers, and copies from and to channels, are other steps, and stay outside.

Arguments that look different run the method itself, and so does everything once it could not be
recorded: either is told once. What counts as look: where tensors stand in lists, tuples and
dictionaries, their dtypes and shapes, and the values of numbers, texts, bools and None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from compiled_dag.channel import tensor as tensors
from compiled_dag.cuda.driver import Translating

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from compiled_dag.cuda.device import Device, Recording

WARM: Final = 3
"""Calls with arguments of one look before one is recorded."""
_CONSTANTS: Final = frozenset({bool, bytes, complex, float, int, str, type(None)})


class Capturing:
    """One such method, to be called in its place."""

    def __init__(
        self,
        method: Callable[..., Any],
        device: Device,
        name: str,
        settle: Callable[[], None],
        *,
        copies: bool,
    ) -> None:
        """Begin with nothing recorded.

        Args:
            method: The method.
            device: The actor's GPU.
            name: What messages call it.
            settle: Waits for the GPU where the end of the graph ends the wait: recording waits for
                it too, but where nothing would.
            copies: Whether results must be copies: somebody may keep or change them.
        """
        self._method = method
        self._device = device
        self._name = name
        self._settle = settle
        self._copies = copies
        self._calling = Translating(device.driver, f"copying for {name}")
        self._look: Any = None
        """Of the arguments that were recorded, or are being counted."""
        self._calls = 0
        """With that look."""
        self._recording: Recording | None = None
        self._inputs: list[torch.Tensor] = []
        self._value: Any = None
        """What the method returned while it was recorded."""
        self._why_not = ""
        """Why it is not tried again."""
        self._has_told = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Play the recording, record, or call the method."""
        given = (args, kwargs)
        try:
            found: list[torch.Tensor] = []
            look = self._look_of(given, found)
        except _OtherValueError as other:
            self._tell(f"it is given {other}, which no recording can take")
            return self._method(*args, **kwargs)
        if self._recording is not None:
            if look == self._look:
                return self._play(found)
            self._tell("its arguments look different from those it was recorded with")
            return self._method(*args, **kwargs)
        if self._why_not:
            return self._method(*args, **kwargs)
        self._calls = self._calls + 1 if look == self._look else 1
        self._look = look
        if self._calls <= WARM:
            return self._device.aside(lambda: self._method(*args, **kwargs))
        return self._record(given, found)

    def close(self) -> None:
        """Forget the recording, and its memory. Idempotent."""
        recording, self._recording = self._recording, None
        self._inputs, self._value, self._why_not = [], None, "the graph has ended"
        if recording is not None:
            recording.drop()

    def _record(self, given: Any, found: Sequence[torch.Tensor]) -> Any:
        self._settle()
        inputs = [self._copied(one) for one in found]
        remaining = iter(inputs)
        args, kwargs = _replaced(given, lambda _: next(remaining))
        made: tuple[Recording, Any] | None = None
        why = ""
        try:
            made = self._device.record(lambda: self._method(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  user code, and what CUDA refuses inside of it
            why = f"it raised {type(error).__name__}: {error}"
        if made is None:  # the error is gone, with the memory that its frames held
            return self._give_up(why, given)
        recording, value = made
        try:
            if self._copies:
                self._look_of(value, [])
        except _OtherValueError as other:
            recording.drop()
            return self._give_up(f"it returned {other}, which cannot be copied", given)
        self._inputs, self._value, self._recording = inputs, value, recording
        return self._play(None)

    def _give_up(self, why: str, given: Any) -> Any:
        """Call the method from now on; what it had begun while it was recorded it begins again."""
        self._why_not = why
        self._tell(f"{why} while it was recorded")
        args, kwargs = given
        return self._method(*args, **kwargs)

    def _play(self, found: Sequence[torch.Tensor] | None) -> Any:
        """Do what was recorded, with other inputs or with those that are in place."""
        recording = self._recording
        assert recording is not None, "nothing is recorded"
        if found is not None:
            for own, one in zip(self._inputs, found, strict=True):
                self._copy(own, one)
        recording.replay()
        return _replaced(self._value, self._copied) if self._copies else self._value

    def _copied(self, tensor: torch.Tensor) -> torch.Tensor:
        made = self._device.new(tensors.look(tensor))
        self._copy(made, tensor)
        return made

    def _copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        source = tensors.to_send(source)
        if source.nbytes:
            driver, stream = self._device.driver, self._device.stream()
            with self._calling:
                driver.copy(target.data_ptr(), source.data_ptr(), source.nbytes, stream)

    def _look_of(self, value: Any, found: list[torch.Tensor]) -> Any:
        """Return what a value looks like, hashable or not, and collect its tensors.

        Raises:
            _OtherValueError: It holds something else.
        """
        kind = value.__class__
        if kind in _CONSTANTS:
            return kind, value
        if tensors.is_tensor(kind):
            if not (tensors.is_plain(value) and self._device.holds(value)):
                raise _OtherValueError(f"a tensor on {value.device}, not on its GPU")
            found.append(value)
            return tensors.look(value)
        if kind in {list, tuple}:
            return kind, [self._look_of(part, found) for part in value]
        if kind is dict:
            return kind, [(key, self._look_of(part, found)) for key, part in value.items()]
        raise _OtherValueError(f"a {kind.__module__}.{kind.__qualname__}")

    def _tell(self, why: str) -> None:
        """Say once that the method itself runs."""
        if not self._has_told:
            self._has_told = True
            import logging  # noqa: PLC0415  10 ms that few graphs need

            text = "%s was to be captured as a CUDA graph, and runs as it is: %s"
            logging.getLogger(__name__).warning(text, self._name, why)


class _OtherValueError(Exception):
    """A value that is neither a tensor of the GPU, nor a constant, nor a container of such."""


def _replaced(value: Any, put: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return a value with other tensors in place of its own, in the order of `_look_of`."""
    kind = value.__class__
    if tensors.is_tensor(kind):
        return put(value)
    if kind is dict:
        return {key: _replaced(part, put) for key, part in value.items()}
    if kind in {list, tuple}:
        parts: Iterator[Any] = (_replaced(part, put) for part in value)
        return kind(parts)
    return value
