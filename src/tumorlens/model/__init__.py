"""The network, its initial weights, and the bundle that carries a trained one."""
