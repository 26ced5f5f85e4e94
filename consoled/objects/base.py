# SPDX-License-Identifier: Apache-2.0
"""What all objects of the contract share.

To change an object: change its fields, raise its ``VERSION`` (minor for an addition), teach
``obj_make_compatible`` the older form, and update its fingerprint in ``tests/unit/objects``.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

from oslo_versionedobjects import base


class ConsoledObject(base.VersionedObject):  # type: ignore[misc]
    """Base of the wire objects: namespaces, and a registry of their own."""

    OBJ_SERIAL_NAMESPACE = 'consoled_object'
    OBJ_PROJECT_NAMESPACE = 'consoled'
    VERSION: ClassVar[str] = '1.0'

    def obj_to_primitive(
        self, target_version: str | None = None, version_manifest: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """The wire form. Objects here are values: which fields were changed is nothing to a peer.

        Another version than the object's own takes the library's way, which costs three times as much.
        """
        if target_version is not None or version_manifest is not None:
            primitive: dict[str, Any] = super().obj_to_primitive(target_version, version_manifest)
            return primitive
        held = vars(self)
        return {
            'consoled_object.name': self.obj_name(),
            'consoled_object.namespace': self.OBJ_PROJECT_NAMESPACE,
            'consoled_object.version': self.VERSION,
            'consoled_object.data': {
                name: field.to_primitive(self, name, held[place])
                for name, place, field in _places(type(self))  # type: ignore[arg-type]
                if place in held
            },
        }


@functools.cache
def _places(cls: type[ConsoledObject]) -> list[tuple[str, str, Any]]:
    """Name, attribute and field of each field, as the library stores them."""
    return [(name, base._get_attrname(name), field) for name, field in cls.fields.items()]


class ConsoledObjectRegistry(base.VersionedObjectRegistry):  # type: ignore[misc]
    """Registers our objects under their name."""


register = ConsoledObjectRegistry.register


class ConsoledObjectList(base.ObjectListBase, ConsoledObject):  # type: ignore[misc]
    """Base of the ``…List`` objects; ``objects`` holds the items."""
