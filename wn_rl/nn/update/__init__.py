"""How the parameters of a network change: optimizers, steps, and the kernel that fuses them."""
