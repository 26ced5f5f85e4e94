# SPDX-License-Identifier: Apache-2.0
"""Base classes and the registry of the wire objects.

To change an object: change its fields, raise its ``VERSION`` (the minor for an addition), teach
``obj_make_compatible`` the older form, and update its fingerprint in ``tests/unit/objects``.

oslo.versionedobjects has no type hints and makes attributes of ``fields``. Each object also annotates them:
the annotations change nothing at run time and give callers types.
"""

from __future__ import annotations

import functools
import re
from typing import Any, ClassVar, Self

from oslo_versionedobjects import base, exception

# The library accepts a third number, and ignores it.
_VERSION = re.compile(r'[0-9]{1,4}\.[0-9]{1,4}(\.[0-9]{1,4})?')


class ConsoledObject(base.VersionedObject):  # type: ignore[misc]
    """Base of the wire objects: their namespaces and their serialization."""

    OBJ_SERIAL_NAMESPACE = 'consoled_object'
    OBJ_PROJECT_NAMESPACE = 'consoled'
    VERSION: ClassVar[str] = '1.0'

    def obj_to_primitive(
        self, target_version: str | None = None, version_manifest: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Return the wire form, without the list of changed fields: objects are values here.

        Another version than the object's own goes through the library, which takes three times as long.
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
                name: field.to_primitive(self, name, held[attribute])
                for name, attribute, field in _attributes(type(self))  # type: ignore[arg-type]
                if attribute in held
            },
        }

    @classmethod
    def obj_class_from_name(cls, objname: Any, objver: Any) -> type[base.VersionedObject]:
        """Return the class of an object that a peer sent.

        The library logs a name that it does not know, and its errors show a version that is none: both are
        text of the peer.

        :raises UnsupportedObjectError: name or version is none of ours
        :raises IncompatibleObjectVersion: this release does not know the version
        """
        known = isinstance(objname, str) and objname in base.VersionedObjectRegistry.obj_classes()
        if not known or not isinstance(objver, str) or not _VERSION.fullmatch(objver):
            raise exception.UnsupportedObjectError(objtype='?')
        found: type[base.VersionedObject] = super().obj_class_from_name(objname, objver)
        return found

    def copy(self) -> Self:
        """Return an independent copy of the object."""
        clone: Self = self.obj_clone()
        return clone


@functools.cache
def _attributes(cls: type[ConsoledObject]) -> list[tuple[str, str, Any]]:
    """Return the name of each field, the attribute in which the library stores it, and the field."""
    return [(name, base._get_attrname(name), field) for name, field in cls.fields.items()]


class ConsoledObjectRegistry(base.VersionedObjectRegistry):  # type: ignore[misc]
    """Registry of the wire objects, by name."""


register = ConsoledObjectRegistry.register


class ConsoledObjectList(base.ObjectListBase, ConsoledObject):  # type: ignore[misc]
    """Base of the ``...List`` objects, whose items are in ``objects``."""
