"""Whatever is trained: checkpoints, metrics, devices, pictures of a run."""
