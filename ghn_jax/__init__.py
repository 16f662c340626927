"""Graph hypernetworks in JAX: parameters for unseen architectures in one forward pass."""
