"""From slices to rows of results: forward model, methods, batches, shards, provenance."""
