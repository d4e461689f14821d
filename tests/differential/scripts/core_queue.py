"""A queue between processes."""

import ray
from ray.util.queue import Empty, Full, Queue

queue = Queue(maxsize=2)
queue.put(1)
queue.put(2)
print(queue.qsize(), queue.full(), queue.empty())
try:
    queue.put(3, block=False)
except Full:
    print("full")


@ray.remote
def take(q):
    return q.get(), q.get()


print(ray.get(take.remote(queue)))
try:
    queue.get(timeout=0.05)
except Empty:
    print("empty")
queue.put_nowait_batch([5, 6])
print(queue.get_nowait_batch(2))
queue.shutdown()
