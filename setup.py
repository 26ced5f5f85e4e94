# SPDX-License-Identifier: Apache-2.0
"""The packages and data of the wheel; everything else is in pyproject.toml.

The migrations live in the checkout's ``alembic/``, which is not a package: it would shadow the library. They
are installed as data of ``consoled.db``, so that a wheel can upgrade a database.
"""

import setuptools

setuptools.setup(
    packages=[
        *setuptools.find_packages(include=['consoled', 'consoled.*']),
        'consoled.db.alembic',
        'consoled.db.alembic.versions',
    ],
    package_dir={
        'consoled': 'consoled',
        'consoled.db.alembic': 'alembic',
        'consoled.db.alembic.versions': 'alembic/versions',
    },
    package_data={
        'consoled': ['py.typed'],
        'consoled.db.alembic': ['*.mako'],
        'consoled.proxy': ['web/*'],
    },
)
