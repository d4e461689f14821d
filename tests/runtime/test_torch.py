"""What concerns torch; the last tests, because a driver with torch starts actors with it."""

from __future__ import annotations

import numpy as np
import pytest

import runtime
from tests.runtime import scripts
from tests.runtime.actors import Worker

pytestmark = pytest.mark.proc


@pytest.mark.parametrize("size", [8, 1_000_000])
def test_tensors_are_writable_and_private_at_each_get(session, size):
    torch = pytest.importorskip("torch")
    worker = Worker.remote()
    tensor = torch.ones(size)
    ref = worker.scale.remote(tensor)
    first = runtime.get(ref)
    first.add_(1)
    assert tensor.eq(1).all()
    assert runtime.get(ref).eq(2).all()
    shared = runtime.put(tensor)
    assert runtime.get(worker.scale.remote(shared)).eq(2).all()
    assert runtime.get(shared).eq(1).all()


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # of one core
@pytest.mark.parametrize("num_workers", [2])
def test_a_data_loader_in_an_actor_and_in_the_driver(session, num_workers):
    pytest.importorskip("torch")
    import torch.utils.data

    worker = Worker.remote()
    held = runtime.get(worker.echo.remote(np.ones(1 << 20)))
    ref = worker.load.remote(num_workers, runtime.put(np.ones(1 << 20)))
    dataset = torch.utils.data.TensorDataset(torch.arange(8.0))
    loader = torch.utils.data.DataLoader(dataset, batch_size=2, num_workers=num_workers)
    assert sum(float(batch[0].sum()) for batch in loader) == 28
    assert runtime.get(ref, timeout=60) == (28, 1 << 20)
    assert held.sum() == 1 << 20
    assert runtime.get(worker.echo.remote(1)) == 1


SEEN = """
def has_torch(_, name="tor ch"):  # the whole word would be a reference
    return name.replace(" ", "") in sys.modules

def seen(kind):
    return runtime.get(kind.remote().__ray_call__.remote(has_torch))

def num_zygotes():
    return len(runtime.lifecycle.current().zygotes.pids())

@runtime.remote
class Plain:
    pass

@runtime.remote
class Referring:
    def ones(self):
        import torch
        return torch.ones(1)

@runtime.remote
def ones():
    import torch.nn
    return torch.nn.Identity()

@runtime.remote
def task():
    return has_torch(None)
"""


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        ("print(runtime.get(task.remote()))", "False 1 False"),
        ("import torch; print(seen(Plain))", "False 1 True"),
        ("print(seen(Referring))", "False 1 True"),
        ("ones.remote(); print(seen(Plain))", "False 1 True"),
        ("sys.modules['torch'] = None; print(seen(Plain))", "False 1 False"),
    ],
)
def test_actors_start_with_torch_once_anything_says_that_it_is_used(then, expected):
    pytest.importorskip("torch")
    done = scripts.run(f"{SEEN}\nprint(seen(Plain), num_zygotes())\n{then}")
    assert done.stdout.split() == expected.split(), done.stderr


def test_actors_start_with_torch_in_a_session_that_begins_after_its_import():
    pytest.importorskip("torch")
    done = scripts.run(f"import torch\n{SEEN}\nprint(seen(Plain))")
    assert done.stdout == "True\n", done.stderr
