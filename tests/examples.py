# SPDX-License-Identifier: Apache-2.0
"""The examples in pages and docstrings, for the tests that run them."""

import ast
import re
import textwrap

_FENCED = re.compile(r'(?ms)^```(\w+)\n(.*?)^```$')
_LITERAL = re.compile(r'(?m)^[^\n]*::\n\n((?:(?: +[^\n]*)?\n)+)')


def fenced(text, language):
    """Return the blocks of a page that are fenced as being in this language, in order."""
    return [block for found, block in _FENCED.findall(text) if found == language]


def in_docstrings(path):
    """Yield (name of what is documented, block) for each literal block in a module's docstrings."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node) or ''
            for block in _LITERAL.findall(docstring + '\n'):
                yield getattr(node, 'name', path.stem), textwrap.dedent(block).strip() + '\n'
