"""All that touches Protenix: its environment, configuration, weights, features, denoiser."""
