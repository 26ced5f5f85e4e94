# SPDX-License-Identifier: Apache-2.0
"""Libraries that the fixtures need and no program does: the extra ``testing`` installs them."""

try:
    import fixtures
    import psutil
except ImportError as exc:
    message = f'consoled.testing needs {exc.name}: pip install consoled[testing]'
    raise ImportError(message, name=exc.name) from exc

__all__ = ['fixtures', 'psutil']
