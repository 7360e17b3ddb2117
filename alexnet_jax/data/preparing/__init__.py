"""Preparation of data sets, from the listing of a source to shards on disk."""
