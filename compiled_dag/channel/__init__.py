"""Values in shared memory: codec, layout, writer, reader, leases."""
