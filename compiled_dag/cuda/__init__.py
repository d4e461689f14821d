"""GPU memory from actor to actor: device rings, and what chooses them."""
