"""Actors that die, constructors that fail, drivers and zygotes that are killed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

import runtime
from runtime import lifecycle
from runtime.exceptions import ActorDiedError
from tests.live import LONG_S, await_zygotes, wait_until
from tests.runtime import scripts
from tests.runtime.actors import Worker, is_alive, wait_until_dead

pytestmark = pytest.mark.proc


def died(ref) -> ActorDiedError:
    """Return the error of a call on a dead actor."""
    with pytest.raises(ActorDiedError) as caught:
        runtime.get(ref, timeout=LONG_S)
    return caught.value


def test_sigkill_while_idle(session):
    worker = Worker.remote()
    pid = runtime.get(worker.pid.remote())
    os.kill(pid, signal.SIGKILL)
    error = died(worker.echo.remote(1))
    assert error.signal == "SIGKILL"
    assert error.exit_code is None
    assert f"Worker(1) (pid {pid})" in str(error)
    assert "SIGKILL" in str(error)


def test_sigkill_fails_every_queued_call_with_one_reason(session):
    worker = Worker.remote()
    refs = [worker.kill_itself.remote(), *(worker.echo.remote(i) for i in range(100))]
    errors = [died(ref) for ref in refs]
    parts = [str(error).partition(" has no result: ") for error in errors]
    whats, _, reasons = zip(*parts, strict=True)
    assert set(whats) == {"Worker.kill_itself", "Worker.echo"}
    assert set(reasons) == {reasons[0]}
    assert errors[0] is not errors[1]


def test_other_actors_go_on(session):
    worker, other = Worker.remote(), Worker.remote()
    died(worker.kill_itself.remote())
    assert runtime.get(other.echo.remote(1)) == 1


def test_exit_code_and_last_words(session):
    error = died(Worker.remote().exit_hard.remote(3))
    assert error.exit_code == 3
    assert error.signal is None
    assert error.stderr_tail == "last words"
    assert "exited with code 3" in str(error)
    assert "last words" in str(error)


def test_segfault_shows_the_python_stack(session):
    error = died(Worker.remote().segfault.remote())
    assert error.signal == "SIGSEGV"
    assert "in segfault" in error.stderr_tail


@pytest.mark.parametrize(("call", "code"), [("exit", 7), ("interrupt", 130)])
def test_exits_asked_for_by_user_code_end_the_actor(session, call, code):
    arguments = (7,) if call == "exit" else ()
    error = died(getattr(Worker.remote(), call).remote(*arguments))
    assert error.exit_code == code


def test_a_failing_constructor_is_the_reason_of_every_call(session):
    @runtime.remote
    class Broken:
        def __init__(self):
            raise KeyError("no such thing")

        def work(self):
            pass

    broken = Broken.remote()
    for ref in (broken.work.remote(), broken.work.remote()):
        error = died(ref)
        assert isinstance(error.cause, KeyError)
        assert "no such thing" in str(error)
        assert "in __init__" in str(error)


def test_a_constructor_whose_argument_failed(session):
    failed = Worker.remote().fail.remote()
    error = died(Worker.remote(failed).echo.remote(1))
    assert isinstance(error.cause, ValueError)


def test_kill_is_immediate_and_takes_queued_calls(session, tmp_path):
    worker = Worker.remote()
    pid = runtime.get(worker.pid.remote())
    refs = [worker.wait_for_file.remote(str(tmp_path / "never")), worker.echo.remote(1)]
    runtime.kill(worker)
    for ref in (*refs, worker.echo.remote(2)):
        assert "runtime.kill" in str(died(ref))
    assert wait_until_dead([pid]) == []
    runtime.kill(worker)


def test_kill_before_the_process_exists(session):
    worker = Worker.remote()
    runtime.kill(worker)
    died(worker.echo.remote(1))


def test_what_an_actor_started_ends_with_it(session):
    worker = Worker.remote()
    child = runtime.get(worker.start_sleeper.remote())
    runtime.kill(worker)
    assert wait_until_dead([child]) == []


def test_interrupts_from_a_terminal_are_ignored(session):
    worker = Worker.remote()
    os.kill(runtime.get(worker.pid.remote()), signal.SIGINT)
    assert runtime.get(worker.echo.remote(1)) == 1


def test_sigterm_ends_an_actor(session):
    worker = Worker.remote()
    os.kill(runtime.get(worker.pid.remote()), signal.SIGTERM)
    assert died(worker.echo.remote(1)).signal == "SIGTERM"


def test_watchers_hear_of_a_death_at_once(session):
    worker = Worker.remote()
    pid = runtime.get(worker.pid.remote())
    heard = threading.Event()
    deaths = []
    host = lifecycle.current()
    stop = host.watch(lambda actor_id, death: (deaths.append((actor_id, death)), heard.set()))
    os.kill(pid, signal.SIGKILL)
    assert heard.wait(LONG_S)
    stop()
    assert [(actor_id, death.signal) for actor_id, death in deaths] == [(1, "SIGKILL")]
    assert host.death(1) is deaths[0][1]


def test_watchers_that_threads_add_while_others_stop_watching_all_hear_of_a_death(session):
    host, heard, stops = lifecycle.current(), [], []
    worker = Worker.remote()
    pid = runtime.get(worker.pid.remote())

    def watch():
        for _ in range(400):
            stop = host.watch(lambda *_: None)
            stops.append(host.watch(lambda *_: heard.append(True)))
            stop()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=watch) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    os.kill(pid, signal.SIGKILL)
    died(worker.echo.remote(1))
    wait_until(lambda: len(heard) == 8 * 400)
    for stop in stops:
        stop()


def test_shutdown_ends_busy_and_stopped_actors(tmp_path):
    runtime.init()
    busy, stopped = Worker.remote(), Worker.remote()
    pids = runtime.get([busy.pid.remote(), stopped.pid.remote()])
    held = busy.wait_for_file.remote(str(tmp_path / "never"))
    os.kill(pids[1], signal.SIGSTOP)
    before = time.monotonic()
    runtime.shutdown()
    assert time.monotonic() - before < LONG_S
    assert not any(map(is_alive, pids))
    with pytest.raises(ActorDiedError, match="session ended"):
        runtime.get(held)


def test_a_zygote_that_was_killed_is_replaced_and_its_actors_live_on(own_zygotes, session):
    worker = Worker.remote()
    pid = runtime.get(worker.pid.remote())
    await_zygotes()
    host = lifecycle.current()
    zygotes = host.zygotes.pids()
    for zygote in zygotes:
        os.kill(zygote, signal.SIGKILL)
    assert wait_until_dead(zygotes) == []
    other = Worker.remote()
    assert runtime.get([worker.echo.remote(1), other.echo.remote(2)]) == [1, 2]
    child = runtime.get(worker.start_sleeper.remote())
    runtime.kill(worker)
    assert wait_until_dead([pid, child]) == []


def test_death_after_the_zygote_is_still_noticed(own_zygotes, session):
    worker = Worker.remote()
    pid = runtime.get(worker.pid.remote())
    await_zygotes()
    zygotes = lifecycle.current().zygotes.pids()
    for zygote in zygotes:
        os.kill(zygote, signal.SIGKILL)
    assert wait_until_dead(zygotes) == []
    os.kill(pid, signal.SIGKILL)
    assert "died" in str(died(worker.echo.remote(1)))


@pytest.mark.parametrize("call", ["echo.remote(1)", "hold_gil.remote()", "sleep.remote(1000)"])
def test_nothing_survives_a_driver_that_was_killed(call):
    driver = scripts.start(f"""
workers = [Worker.remote() for _ in range(2)]
pids = runtime.get([worker.pid.remote() for worker in workers])
sleeper = runtime.get(workers[0].start_sleeper.remote())
refs = [worker.{call} for worker in workers]
print(*pids, sleeper, flush=True)
time.sleep(1000)
""")
    with driver:
        pids = [int(pid) for pid in driver.stdout.readline().split()]
        driver.kill()
        left = wait_until_dead(pids)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert left == []


def test_ctrl_c_ends_a_get_and_the_script_cleanly():
    driver = scripts.start("""
worker = Worker.remote()
print(runtime.get(worker.pid.remote()), flush=True)
runtime.get(worker.sleep.remote(1000))
""")
    with driver:
        pid = int(driver.stdout.readline())
        driver.send_signal(signal.SIGINT)
        _, err = driver.communicate(timeout=LONG_S)
        assert driver.returncode in (1, 130, -signal.SIGINT)
        assert err.rstrip().endswith("KeyboardInterrupt")
        assert "(Worker pid" not in err
        assert wait_until_dead([pid]) == []


def test_get_works_again_after_ctrl_c():
    done = scripts.run("""
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
with TemporaryDirectory() as folder:
    gate = Path(folder, "gate")
    ref = Worker.remote().wait_for_file.remote(str(gate))
    try:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        runtime.get(ref)
    except KeyboardInterrupt:
        gate.touch()
        print("interrupted", runtime.get(ref) == str(gate))
""")
    assert done.stdout == "interrupted True\n"
    assert done.returncode == 0


@pytest.mark.skipif(not find_spec("torch"), reason="torch is not installed")
@pytest.mark.filterwarnings("ignore:.*physical GPUs:UserWarning")
def test_actors_that_wait_for_torch_start_without_it_if_its_zygote_dies(own_zygotes):
    with runtime.init(num_gpus=2):
        workers = [Worker.options(num_gpus=1).remote() for _ in range(2)]
        (base,) = lifecycle.current().zygotes._pids
        children = Path(f"/proc/{base}/task/{base}/children")
        pause = threading.Event()
        while not (pids := children.read_text().split()):
            pause.wait(0.005)
        os.kill(int(pids[0]), signal.SIGKILL)
        assert runtime.get([worker.echo.remote(1) for worker in workers], timeout=LONG_S) == [1, 1]
