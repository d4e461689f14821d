"""An actor as handles outside the driver know it."""

from __future__ import annotations

import itertools
import pickle
from typing import TYPE_CHECKING, Any

from compiled_dag.host import ActorId
from runtime.arguments import pack_arguments
from runtime.checks import STREAM
from runtime.messages import CallRequest, Submit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runtime.messages import Retry
    from runtime.nested import NestedSession
    from runtime.objects import ObjectRef


class RemoteActor:
    """Stands for the driver's `runtime.process.ActorProcess`."""

    pid = 0
    death = None

    def __init__(self, session: NestedSession, actor_id: int, class_name: str) -> None:
        self.session = session
        self.actor_id = ActorId(actor_id)
        self.class_name = class_name
        self.label = f"{class_name}({actor_id})"
        self.binds = itertools.count()

    def call(
        self,
        method: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        num_returns: int = 1,
        retry: Retry | None = None,
    ) -> tuple[ObjectRef, ...]:
        """Queue a call; see `ActorProcess.call`."""
        parcel, needed = pack_arguments(args, kwargs)
        name, _, _ = method.partition("\0")
        streams = num_returns == STREAM
        refs = self.session.new_refs(f"{self.class_name}.{name}", 1 if streams else num_returns)
        request = CallRequest(
            self.actor_id,
            method,
            retry,
            streams,
            [ref.number for ref in refs],
            [ref.number for ref in needed],
        )
        self.session.send(Submit(0, pickle.dumps(request, 5), (parcel,)))
        return refs

    def __repr__(self) -> str:
        return f"<actor {self.label}>"

    @property
    def num_gpus(self) -> float:
        """Logical GPUs it holds."""
        found: float = self.session.ask("gpus", self.actor_id)[0]
        return found

    @property
    def physical_gpus(self) -> tuple[str, ...]:
        """Names of the physical GPUs behind them."""
        found: tuple[str, ...] = self.session.ask("gpus", self.actor_id)[1]
        return found

    def end_after_calls(self) -> None:
        """Have the actor end once it has served what is queued."""
        self.session.ask("end_after_calls", self.actor_id)
