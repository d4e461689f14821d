"""Tasks as they finish, a bounded number in flight; then all results in order."""

import ray


@ray.remote
def work(i):
    return i, i * i


limit, total = 4, 20
pending, done = [], {}
for i in range(total):
    if len(pending) >= limit:
        ready, pending = ray.wait(pending, num_returns=1)
        done.update(ray.get(ready))
    pending.append(work.remote(i))
while pending:
    ready, pending = ray.wait(pending, num_returns=len(pending), timeout=60)
    done.update(ray.get(ready))
print(len(done), [done[i] for i in range(total)])
print(ray.wait([], timeout=0) if total < 0 else "all done")
