"""Tests on real servers. `tests/clients/python` in the repository runs them."""
