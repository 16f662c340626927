"""Meta-training of graph hypernetworks on real images, and their evaluation on unseen architectures."""
