"""`remote` as a decorator, with options, and as a function."""

import ray


@ray.remote
def plain():
    return "plain"


@ray.remote(num_cpus=1, max_retries=0)
def with_options():
    return "options"


def called():
    return "called"


class Counter:
    def __init__(self, start=0):
        self.value = start

    def add(self, n=1):
        self.value += n
        return self.value


print(ray.get([plain.remote(), with_options.remote(), ray.remote(called).remote()]))
Remote = ray.remote(Counter)
Limited = ray.remote(num_cpus=1, max_concurrency=1)(Counter)
counters = [Remote.remote(), Limited.remote(10), Remote.options(max_concurrency=1).remote(start=5)]
print(ray.get([counter.add.remote(2) for counter in counters]))
