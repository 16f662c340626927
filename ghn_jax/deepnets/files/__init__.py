"""Dataset files of DeepNets-1M in the release's format: read, written, generated."""
