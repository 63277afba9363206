"""Deep Q-Networks (Mnih et al. 2015) with weight normalization (Salimans & Kingma 2016)."""

__version__ = "0.1.0"
