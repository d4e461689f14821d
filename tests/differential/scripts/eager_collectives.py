"""Collectives by a group's name: made from outside, met by the ranks, and in place."""

import numpy as np
import ray
import ray.util.collective as col
import torch
from ray.experimental.collective import (
    create_collective_group,
    destroy_all_collective_groups,
    destroy_collective_group,
    get_collective_groups,
)
from ray.util.collective.types import Backend, ReduceOp
from seen import attempt


@ray.remote
class Rank:
    def __init__(self, rank):
        self.rank = rank

    def join(self, world_size, name):
        col.init_collective_group(world_size, self.rank, "gloo", name, gloo_timeout=60000)
        return col.get_rank(name), col.get_collective_group_size(name)

    def join_again(self, name):
        try:
            col.init_collective_group(2, self.rank, "gloo", name)
        except RuntimeError:
            return "RuntimeError"

    def facts(self, name):
        initialized = col.is_group_initialized(name)
        return initialized, col.get_rank(name), col.get_collective_group_size(name)

    def leave(self, name):
        col.destroy_collective_group(name)

    def reduces(self, name):
        tensor = torch.full((2,), self.rank + 2.0)
        found = []
        for op in (ReduceOp.SUM, ReduceOp.PRODUCT, ReduceOp.MIN, ReduceOp.MAX):
            one = tensor.clone()
            col.allreduce(one, name, op)
            found.append(one.tolist())
        one = tensor.clone()
        col.reduce(one, 1, name)
        if self.rank == 1:
            found.append(one.tolist())
        return found

    def moves(self, name):
        mine = torch.full((2,), self.rank + 2.0)
        one = mine.clone()
        col.broadcast(one, 1, name)
        many = [torch.zeros(2) for _ in range(2)]
        col.allgather(many, mine, name)
        part = torch.zeros(2)
        col.reducescatter(part, [mine + 1, mine + 2], name)
        col.barrier(name)
        return one.tolist(), [t.tolist() for t in many], part.tolist()

    def messages(self, name):
        tensor = torch.full((2,), self.rank + 2.0)
        if self.rank == 0:
            col.send(tensor, 1, name)
        else:
            col.recv(tensor, 0, name)
        return tensor.tolist()

    def arrays(self, name):
        array = np.full(2, self.rank + 2.0, dtype=np.float32)
        col.allreduce(array, name)
        return array.tolist()

    def mistakes(self, name):
        found = []
        for call in (
            lambda: col.broadcast(torch.ones(1), 2, name),
            lambda: col.send(torch.ones(1), self.rank, name),
            lambda: col.allreduce(torch.ones(1), "no such group"),
        ):
            try:
                call()
            except Exception as error:
                found.append(type(error).__name__)
        return found


ranks = [Rank.remote(rank) for rank in range(2)]

print(ray.get([rank.facts.remote("met") for rank in ranks]))
print(ray.get([rank.join.remote(2, "met") for rank in ranks]))
print(ray.get([rank.join_again.remote("met") for rank in ranks]))
for method in ("reduces", "moves", "messages", "arrays", "mistakes"):
    print(method, ray.get([getattr(rank, method).remote("met") for rank in ranks]))
ray.get([rank.leave.remote("met") for rank in ranks])
print(ray.get([rank.facts.remote("met") for rank in ranks]))

others = [Rank.remote(rank) for rank in range(2)]
group = create_collective_group(others, backend="torch_gloo", name="made")
print(group.name, [group.get_rank(one) for one in [*others, ranks[0]]], group.actors == others)
print(ray.get([rank.reduces.remote("made") for rank in others]))
print([found.name for found in get_collective_groups(others)], get_collective_groups(ranks))
attempt(lambda: create_collective_group([others[0]], "gloo"), "RuntimeError")
attempt(lambda: destroy_collective_group("x"), "ValueError")
attempt(lambda: destroy_collective_group(1), "ValueError")
attempt(lambda: create_collective_group(others, "mpi"), "ValueError")
attempt(lambda: create_collective_group([ranks[0]] * 2, "gloo"), "ValueError")
destroy_collective_group(group)
print(get_collective_groups(others), ray.get(others[0].facts.remote("made")))
destroy_all_collective_groups()
print(col.gloo_available(), col.is_backend_available("mpi"), Backend("gloo"))
