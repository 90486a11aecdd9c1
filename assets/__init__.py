"""What exists: a step's output is an asset, a gate its blocking check."""
