"""Target networks: layers, DeepNets-1M networks, model zoo, the layer-by-layer runner."""
