"""Device rings, exercised by a GPU in host memory (`fake`)."""
