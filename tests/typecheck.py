"""The checker of shapes and types in tests: an int passes for a float, as static checkers have it."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
