"""The examples in the docstrings of the library door are true."""

import doctest
import pkgutil
from importlib import import_module

import pytest

from holdfast import library

MODULES = [f"holdfast.library.{found.name}" for found in pkgutil.iter_modules(library.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name):
    assert doctest.testmod(import_module(name)).failed == 0


def test_the_door_itself_has_an_example_each():
    tried = {name: doctest.testmod(import_module(f"holdfast.library.{name}")).attempted for name in DOORS}
    assert min(tried.values()) > 0


DOORS = ("drift", "quality", "comparison", "tables", "pictures")
