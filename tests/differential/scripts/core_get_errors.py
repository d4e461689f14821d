"""What `get` refuses."""

import ray
from seen import attempt

ref = ray.put(1)
attempt(lambda: ray.get(3), "ValueError", "TypeError")
attempt(lambda: ray.get("ref"), "ValueError", "TypeError")
attempt(lambda: ray.get((ref,)), "ValueError", "TypeError")
attempt(lambda: ray.get([ref, 3]), "TypeError", "ValueError")
attempt(lambda: ray.get(None), "ValueError", "TypeError")
attempt(lambda: ray.get({"a": ref}), "ValueError", "TypeError")
