# SPDX-License-Identifier: Apache-2.0
"""Print pip constraints that pin each dependency in pyproject.toml to the oldest release it allows."""

import pathlib
import re
import tomllib

TOOLS = ('test', 'doc')  # extras that no program needs; their newest releases do
_FLOOR = re.compile(r'([A-Za-z0-9._-]+)(?:\[[^]]*\])?>=([0-9][0-9.]*)')


def constraints(project):
    """Return the lines of a constraints file.

    :param project: the table [project]
    :raises ValueError: a dependency has no floor
    """
    extras = [found for name, found in project['optional-dependencies'].items() if name not in TOOLS]
    wanted = [*project['dependencies'], *sum(extras, [])]
    floors = []
    for requirement in wanted:
        found = _FLOOR.fullmatch(requirement)
        if found is None:
            raise ValueError(f'{requirement}: no floor')
        floors.append(f'{found[1]}=={found[2]}')
    return floors


if __name__ == '__main__':
    pyproject = pathlib.Path(__file__).resolve().parents[1] / 'pyproject.toml'
    print('\n'.join(constraints(tomllib.loads(pyproject.read_text())['project'])))
