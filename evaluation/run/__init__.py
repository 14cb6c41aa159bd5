"""From slices to rows: forward model, methods, batches, shards, and what a run was made with."""
