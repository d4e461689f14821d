"""`CompiledDAG`: execute, get, tear down. Each is done by a part of its own; this holds them.

`execute` writes the inputs and returns (`submit`); `get` reads results off the output channels in
the calling thread (`fetch`); coroutines do both without blocking their loop (`awaiting`). Any
thread may call any; a lock each keeps executions gapless and results in order.
"""

from __future__ import annotations

import dataclasses
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

from compiled_dag.awaiting import Awaiting
from compiled_dag.backends import check_backends
from compiled_dag.capture import Captured, capture
from compiled_dag.channel import codec
from compiled_dag.channel import layout as at
from compiled_dag.compiler import compile_graph
from compiled_dag.constants import check_constants
from compiled_dag.deployment import Deployment
from compiled_dag.ends import open_reader
from compiled_dag.entries import Inputs, Output
from compiled_dag.errors import GraphError
from compiled_dag.fetch import Fetching
from compiled_dag.future import CompiledDAGFuture
from compiled_dag.keywords import strict_keywords
from compiled_dag.lint_nodes import warn_of_retries
from compiled_dag.notice import warn
from compiled_dag.options import CompileOptions, teardown_timeout_s
from compiled_dag.owned import place_functions
from compiled_dag.probing import probed
from compiled_dag.program import Program, Read
from compiled_dag.ref import CompiledDAGRef
from compiled_dag.results import News, Results
from compiled_dag.room import check_room, fit_slots, needing_descriptors
from compiled_dag.submit import Submission
from compiled_dag.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from compiled_dag.explain import Explanation
    from compiled_dag.hang import HangReport
    from compiled_dag.memory import GraphMemory
    from compiled_dag.node import DAGNode
    from compiled_dag.schedule import Schedule

_NAMED: Final = 6
"""Actors that the `repr` of a graph names."""


class CompiledDAG:
    """A graph that is up: one program per actor, waiting for inputs.

    A context manager: leaving it tears the graph down. Only the process that compiled it may use
    it; any thread of that process may.
    """

    def __init__(self, captured: Captured, program: Program, options: CompileOptions) -> None:
        self._program = program
        self._captured = captured
        self._options = options
        self._inputs = Inputs(program)
        self._deployment = deployment = Deployment(self, captured, program, options)
        self._host = captured.host
        graph = deployment.segment
        reads = [step for step in program.steps[0] if isinstance(step, Read)]
        readers = [open_reader(graph, program.channels[step.channel], 0) for step in reads]
        reader_of = {step.slot: number for number, step in enumerate(reads)}
        self._outputs = [Output(tree, reader_of, captured.constants) for tree in program.outputs]
        host = captured.host
        self._results = Results(
            graph,
            readers,
            [output.reader for output in self._outputs],
            options.max_buffered_results,
            News(partial(host.board.ring, host.process), host.call_soon),
            deployment.log,
        )
        watcher = Watcher.of(host)
        self._fetching = Fetching(deployment, options, self._results)
        self._submission = Submission(deployment, program, options, self._fetching, watcher)
        self._awaiting = Awaiting(self._fetching, self._submission, watcher)
        self._has_own_outputs = any(output.reader is None for output in self._outputs)
        self._is_plain = program.single_output and not self._has_own_outputs
        self._numbers = range(len(self._outputs))

    def execute(self, /, *args: Any, **kwargs: Any) -> Any:
        """Start one execution.

        Arguments arrive as they are: of an `ObjectRef` the method gets the reference, as in Ray.
        Keywords that the graph has no use for are ignored.

        Returns:
            A `CompiledDAGRef`; a list of them where the output is a `MultiOutputNode`.

        Raises:
            ValueError: Wrong number of arguments, or a keyword is missing.
            TypeError: An argument cannot be pickled; nothing was started.
            CapacityExceededError: Too many executions are unfetched.
            ChannelClosedError: The graph was torn down.
        """
        values = self._inputs.slots(args, kwargs)
        if self._is_plain:
            ref = CompiledDAGRef(self, 0)
            self._submission.submit((ref,), values)
            return ref
        own = self._own_outputs(values)
        refs = [CompiledDAGRef(self, number) for number in self._numbers]
        self._submission.submit(refs, values)
        return self._given(refs, own)

    async def execute_async(self, /, *args: Any, **kwargs: Any) -> Any:
        """Start one execution, for a coroutine; never blocks the event loop.

        With ``_capacity_policy="block"`` this waits for a place; the result is awaited by itself.

        Returns:
            A `CompiledDAGFuture`; a list of them where the output is a `MultiOutputNode`.

        Raises:
            ValueError: Wrong number of arguments, or a keyword is missing.
            TypeError: An argument cannot be pickled; nothing was started.
            CapacityExceededError: Too many executions are unfetched.
            ChannelClosedError: The graph was torn down.
        """
        values = self._inputs.slots(args, kwargs)
        own = self._own_outputs(values)
        futures = [CompiledDAGFuture(self, number) for number in self._numbers]
        await self._awaiting.place(futures, values)
        return self._given(futures, own)

    def _given(self, refs: list[Any], own: Sequence[tuple[int, Any]]) -> Any:
        """Return what the caller of an execution gets."""
        for number, value in own:
            refs[number]._value = value
        return refs[0] if self._program.single_output else refs

    def _own_outputs(self, values: list[Any]) -> list[tuple[int, Any]]:
        """Return the outputs that no actor makes: constants, and copies of inputs as they are."""
        if not self._has_own_outputs:
            return []

        def copy(slot: int) -> Any:
            encoded = codec.encode(values[slot])
            buffers = [bytearray(buffer) for buffer in encoded.buffers]
            return codec.decode(encoded.kind, encoded.head, buffers)

        return [
            (number, output.local(copy))
            for number, output in enumerate(self._outputs)
            if output.reader is None
        ]

    # --- the end, and looking in ------------------------------------------------------------------

    @strict_keywords
    def teardown(self, kill_actors: bool = False) -> None:
        """End the graph; its actors stay usable unless `kill_actors`. Idempotent, any thread.

        Waits up to `DAGContext.teardown_timeout` seconds for actors that are in user code.
        """
        deployment = self._deployment
        if deployment.owner != os.getpid():
            return
        late = deployment.close(teardown_timeout_s())
        if late:
            late_text = deployment.describe_late(late)
            warn(f"graph {self.get_id()} was torn down, but {late_text}", RuntimeWarning)
        if kill_actors:
            for actor in deployment.actors:
                self._host.kill(actor.actor_id)

    @property
    def is_teardown(self) -> bool:
        """Whether the graph was torn down."""
        return self._deployment.closed_at is not None

    @property
    def program(self) -> Program:
        """The compiled program; `str` of it is the table of steps by participant."""
        return self._program

    @property
    def schedule(self) -> Schedule:
        """What every actor does in one execution, in order: plain data, a table as text."""
        from compiled_dag.schedule import Schedule  # noqa: PLC0415  for people who look: not hot

        return Schedule.of(self._program, self._captured.graph)

    @property
    def options(self) -> CompileOptions:
        """The options the graph was compiled with."""
        return self._options

    @property
    def actors(self) -> tuple[Any, ...]:
        """Handles of the graph's actors."""
        return self._deployment.actors

    def get_id(self) -> str:
        """Return the graph's number, in hex."""
        return self._deployment.name

    def hang_report(self) -> HangReport:
        """Return where everybody in the graph is, and who holds whom up. `str` of it is a text.

        Needs no cooperation: what an actor runs that waits for nobody is found by a signal, also
        while C code holds the GIL there; of a stopped process the kernel's state is told.

        Raises:
            RuntimeError: This process does not own the graph.
        """
        if self._deployment.owner != os.getpid():
            self._host.check_owner()
        report = self._deployment.observer.report(stacks=True)
        if self._deployment.segment.state == at.OPEN:
            return report
        return dataclasses.replace(report, ended=str(self._deployment.end_cause()))

    def memory(self) -> GraphMemory:
        """Return what the graph takes now (of a graph torn down: took last), and who holds it.

        Raises:
            OSError: The kernel refused to map a channel's words.
        """
        return self._deployment.gauge.read()

    def explain(self) -> Explanation:
        """Return how every value and collective travels, why, and in how much memory.

        Raises:
            OSError: The kernel refused to map a channel's words.
        """
        from compiled_dag.explain import explain  # noqa: PLC0415  for people who look: not hot

        settled = self._deployment.settled
        return explain(self._captured, self._program, self.memory(), settled)

    @strict_keywords
    def visualize(
        self,
        filename: str = "compiled_graph",
        format: str = "png",  # noqa: A002  Ray's name
        view: bool = False,
        channel_details: bool = False,
    ) -> str:
        """Draw the graph.

        Args:
            filename: Where Graphviz' input goes; the picture goes to ``filename.format``.
            format: ``"ascii"`` and ``"mermaid"`` are text and write no file; any other is one of
                Graphviz' (``"png"``, ``"svg"``, ``"pdf"``) and needs the extra ``viz``.
            view: Print the text; open the picture.
            channel_details: Say on every edge how its value travels.

        Returns:
            The text, or Graphviz' input.

        Raises:
            ValueError: No such format, or details in ASCII.
            ImportError: Graphviz, or its program ``dot``, is missing.
        """
        from compiled_dag.picture.visualize import visualize  # noqa: PLC0415  not hot

        return visualize(
            self._captured.graph,
            self._program,
            filename,
            format,
            view=view,
            channel_details=channel_details,
        )

    def _repr_svg_(self) -> str:
        """Return the picture that notebooks show."""
        from compiled_dag.picture.visualize import svg  # noqa: PLC0415  not hot

        return svg(self._captured.graph, self._program)

    @strict_keywords
    def trace(self, filename: str | os.PathLike[str] | None = None) -> list[dict[str, Any]]:
        """Return what every participant did in the last executions, as trace events.

        For ui.perfetto.dev and chrome://tracing; events of `runtime.timeline()` may be put into the
        same list. Recording is always on; the graph goes on meanwhile. Works after teardown too.

        Args:
            filename: Write them there as JSON as well.

        Raises:
            OSError: The file cannot be written.
        """
        from compiled_dag.trace import perfetto, snapshot  # noqa: PLC0415  not hot

        trace = snapshot.take(self._deployment, self._results.log)
        return perfetto.export(trace, filename)

    @strict_keywords
    def timeline(self, filename: str | os.PathLike[str] = "timeline.html") -> str:
        """Write what `trace` returns as one HTML page to look at; returns its path.

        Lanes of the actors, zoom, details, how long each node takes. Needs no network.

        Raises:
            OSError: The file cannot be written.
        """
        from compiled_dag.trace import page, snapshot  # noqa: PLC0415  not hot

        return page.export(snapshot.take(self._deployment, self._results.log), filename)

    if not TYPE_CHECKING:  # mypy would take any name

        def __getattr__(self, name: str) -> NoReturn:
            advice = ""
            if name == "get_channel_details":
                advice = (
                    ": there are no channel objects to ask about. explain() says how every value "
                    "travels, and visualize(channel_details=True) draws it"
                )
            msg = f"{type(self).__name__!r} object has no attribute {name!r}{advice}"
            raise AttributeError(msg, name=name, obj=self)

    def __enter__(self) -> CompiledDAG:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is KeyboardInterrupt and self._deployment.owner == os.getpid():
            self._deployment.break_off()
        else:
            self.teardown()

    def __reduce__(self) -> NoReturn:
        msg = (
            f"{self!r} cannot be pickled or sent: only process {self._deployment.owner}, which "
            "compiled it, may execute it. Send the nodes, and compile them where they are needed"
        )
        raise GraphError(msg)

    def __repr__(self) -> str:
        state = "broken" if self._deployment.fault is not None else "up"
        state = "torn down" if self.is_teardown else state
        labels = [actor.label for actor in self._deployment.actors]
        named = ", ".join(labels[:_NAMED])
        more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
        return f"<CompiledDAG {self.get_id()} over {named}{more}: {state}>"


def compile_dag(output: DAGNode, options: CompileOptions) -> CompiledDAG:
    """Capture, compile and bring up the graph that ends in `output`."""
    with needing_descriptors():
        captured = capture(
            output,
            options.default_communicator,
            overlaps=options.overlap_gpu_communication,
        )
        captured.host.check_owner()
        captured = place_functions(captured, options.function_workers)
        check_room(captured)
        check_constants(captured)
        program = compile_graph(captured.graph, options)
        check_backends(captured, program)
        options = fit_slots(program, options)
        if options.visualize_schedule:
            from compiled_dag.picture.schedule_dot import draw_schedule  # noqa: PLC0415  rarely wanted

            draw_schedule(captured.graph, program)
        warn_of_retries(output)
        try:
            captured, program = captured.owned.hire(captured, program, options.compile_timeout_s)
            if captured.graph.gpus:  # now there is somebody to ask what they can do
                captured = probed(captured, options.compile_timeout_s)
                program = compile_graph(captured.graph, options)
                _warn_of_fakes(program)
            return CompiledDAG(captured, program, options)
        except BaseException:
            captured.owned.close(0.0)
            raise


def _warn_of_fakes(program: Program) -> None:
    """Say once which edges would be between GPUs, were these real."""
    fakes = [spec for spec in program.channels if spec.transport.mechanism == "fake"]
    if fakes:
        names = ", ".join(spec.transport.node for spec in fakes)
        warn(
            f"the GPUs are fake, so what is hinted for an accelerator goes through host memory: "
            f"{names}",
            RuntimeWarning,
        )
