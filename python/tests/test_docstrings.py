"""Every module, class and function of the package says what it is or does."""

import ast
from pathlib import Path

import pytest

import forebay
from forebay import _forebay

FOLDER = Path(forebay.__file__).parent


def is_explained_elsewhere(node):
    """Whether it is a special method, or the setter of a property."""
    if isinstance(node, ast.ClassDef):
        return False
    setters = [each for each in node.decorator_list if isinstance(each, ast.Attribute) and each.attr == "setter"]
    return node.name.startswith("__") and node.name.endswith("__") or bool(setters)


@pytest.mark.parametrize("file", sorted(FOLDER.rglob("*.py")), ids=lambda file: str(file.relative_to(FOLDER)))
def test_all_that_a_module_defines_has_a_docstring(file):
    module = ast.parse(file.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [node for node in ast.walk(module) if isinstance(node, kinds) and not is_explained_elsewhere(node)]
    assert [node.name for node in nodes if not ast.get_docstring(node)] == []
    assert ast.get_docstring(module)


def test_all_that_the_extension_module_exports_has_a_docstring():
    assert _forebay.__doc__
    for name, thing in vars(_forebay).items():
        if name.startswith("_") or not callable(thing):
            continue
        assert thing.__doc__, name
        methods = vars(thing).items() if isinstance(thing, type) else ()
        missing = [method for method, value in methods if not method.startswith("_") and not value.__doc__]
        assert missing == [], name
