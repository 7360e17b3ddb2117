"""Features of many pictures, their nearest neighbours, and short binary codes (paper section 6.1)."""

from alexnet_jax.retrieval.exact_search import nearest

__all__ = ["nearest"]
