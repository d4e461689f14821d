"""Questions of this process to the driver, and the answers to them."""

from __future__ import annotations

import itertools
import os
import pickle
from typing import TYPE_CHECKING, Any

from runtime.messages import Answer, AnswerWith, Ask, AskWith

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.nested import NestedSession
    from runtime.parcel import Parcel


class Asking:
    """What was asked and not been answered yet. Any thread may use it."""

    def __init__(self, session: NestedSession) -> None:
        self._session = session
        self._asked: dict[int, Answer | AnswerWith | None] = {}
        self._questions = itertools.count(1)

    def ask(
        self,
        what: str,
        *args: Any,
        parcels: Sequence[Parcel] = (),
        fds: Sequence[int] = (),
        deadline: float | None = None,
    ) -> Any:
        """Ask the driver and wait for the answer; raises what answering raised.

        Raises:
            TimeoutError: No answer by `deadline`.
        """
        number = self.post(what, *args, parcels=parcels, fds=fds)
        try:
            return self.answer(number, deadline)
        finally:
            self.forget_answer(number)

    def ask_with_fds(self, what: str, *args: Any) -> tuple[Any, Sequence[int]]:
        """As `ask`; descriptors come with the answer, and are the caller's."""
        number = self.post(what, *args)
        try:
            value = self.answer(number, None)
            answer = self._asked.pop(number)
            return value, getattr(answer, "fds", ())
        finally:
            self.forget_answer(number)

    def post(
        self, what: str, *args: Any, parcels: Sequence[Parcel] = (), fds: Sequence[int] = ()
    ) -> int:
        """Ask the driver without waiting; returns the number for `answer` or `forget_answer`."""
        number = next(self._questions)
        self._asked[number] = None
        question = pickle.dumps((what, args), 5)
        try:
            if fds:
                self._session.send(AskWith(number=number, what=question, fds=tuple(fds)))
            else:
                self._session.send(Ask(number, question, parcels))
        except BaseException:
            self.forget_answer(number)
            raise
        return number

    def answer(self, number: int, deadline: float | None) -> Any:
        """Wait for the answer to a question; raises what answering raised.

        Raises:
            TimeoutError: Not there by `deadline`.
        """
        if not self._session.wait_until(lambda: self._asked[number] is not None, deadline):
            raise TimeoutError("the driver has not answered in time")
        answer = self._asked[number]
        assert answer is not None
        value = pickle.loads(answer.data)
        if answer.failed:
            raise value
        return value

    def forget_answer(self, number: int) -> None:
        """Take no answer to a question any more. Safe in finalizers."""
        _drop(self._asked.pop(number, None))

    def take(self, answer: Answer | AnswerWith) -> None:
        """Take an answer that has arrived."""
        if answer.number in self._asked:
            self._asked[answer.number] = answer
        else:
            _drop(answer)


def _drop(answer: Answer | AnswerWith | None) -> None:
    """Close what came with an answer that nobody wants any more."""
    for fd in getattr(answer, "fds", ()):
        os.close(fd)
