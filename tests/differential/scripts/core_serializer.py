"""A class that pickle refuses travels with a serializer of its own."""

import io
import threading

import ray
from ray.util import deregister_serializer, inspect_serializability, register_serializer
from seen import attempt


class Connection:
    def __init__(self, address):
        self.address = address
        self.lock = threading.Lock()


@ray.remote
def address(connection):
    return connection.address


attempt(lambda: ray.put(Connection("here")), "TypeError")
register_serializer(Connection, serializer=lambda c: c.address, deserializer=Connection)
print(ray.get(address.remote(Connection("here"))))
print(ray.get(ray.put(Connection("there"))).address)
deregister_serializer(Connection)
attempt(lambda: ray.put(Connection("here")), "TypeError")
nowhere = io.StringIO()
print(inspect_serializability([1], print_file=nowhere)[0])
print(inspect_serializability(Connection("x"), print_file=nowhere)[0])
