# SPDX-License-Identifier: Apache-2.0
"""What all objects of the contract share.

To change an object: change its fields, raise its ``VERSION`` (minor for an addition), teach
``obj_make_compatible`` the older form, and update its fingerprint in ``tests/unit/objects``.
"""

from __future__ import annotations

from typing import ClassVar

from oslo_versionedobjects import base


class ConsoledObject(base.VersionedObject):  # type: ignore[misc]
    """Base of the wire objects: namespaces, and a registry of their own."""

    OBJ_SERIAL_NAMESPACE = 'consoled_object'
    OBJ_PROJECT_NAMESPACE = 'consoled'
    VERSION: ClassVar[str] = '1.0'


class ConsoledObjectRegistry(base.VersionedObjectRegistry):  # type: ignore[misc]
    """Registers our objects under their name."""


register = ConsoledObjectRegistry.register


class ConsoledObjectList(base.ObjectListBase, ConsoledObject):  # type: ignore[misc]
    """Base of the ``…List`` objects; ``objects`` holds the items."""
