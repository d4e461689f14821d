"""A pytest plugin that writes each test's outcome when it is known, with what went wrong.

pytest tells of failures at the end, which a run that is stopped never comes to. One line for each
test, which `staging` counts::

    passed    1.23 s  gpu_tests/test_rings.py::test_what_readers_get_is_their_own
"""

from __future__ import annotations

import pytest

MOST = 4000
"""Characters of a failure's text, and of what was printed: the end of each."""
OUTCOMES = ("passed", "failed", "error", "skipped")


@pytest.hookimpl(trylast=True)  # there is a terminal by then
def pytest_configure(config: pytest.Config) -> None:
    """Note outcomes where they come together: not in the workers of several."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Noting(config), "noting of outcomes")


class _Noting:
    def __init__(self, config: pytest.Config) -> None:
        self._writer = config.get_terminal_writer()

    @staticmethod
    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str]:
        """Have no dots between the lines."""
        return outcome(report) or "", "", ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write a line, and why it failed or was left out."""
        found = outcome(report)
        if found is None:
            return
        lines = [f"{found:8} {report.duration:6.2f} s  {report.nodeid}"]
        if found == "skipped" and isinstance(report.longrepr, tuple):
            lines.append(f"    {report.longrepr[2]}")
        elif found != "passed":
            for text in (report.longreprtext, report.capstdout, report.capstderr):
                lines += [f"    {line}" for line in text[-MOST:].splitlines()]
        self._writer.line("\n".join(lines))
        self._writer.flush()


def outcome(report: pytest.TestReport) -> str | None:
    """Return what became of a test, or of what surrounds it; None if that is not known yet."""
    if report.when == "call" or report.skipped or report.when not in ("setup", "teardown"):
        return report.outcome
    return "error" if report.failed else None
