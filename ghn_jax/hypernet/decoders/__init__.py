"""Decoders: from node states to tensors of target networks."""
