# SPDX-License-Identifier: Apache-2.0
"""Serialization of versioned objects and request contexts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from oslo_versionedobjects import base as ovo_base
from oslo_versionedobjects import exception as ovo_exc

from consoled import exception
from consoled.context import RequestContext
from consoled.objects.base import ConsoledObject

# Called with the context, the primitive of an object that is too new, and the wanted versions by object name.
# Returns the object in its older form.
Backport = Callable[[Any, dict[str, Any], dict[str, str]], Any]


class Serializer(ovo_base.VersionedObjectSerializer):  # type: ignore[misc]
    """Sends objects in the versions of a pinned contract, and reads those of newer peers.

    :param pins: version to send each object in, by its name; other objects are sent as they are
    :param backport: asks a newer peer for the older form of an object; without it an object that is too new
        is refused
    """

    OBJ_BASE_CLASS = ConsoledObject

    def __init__(self, pins: Mapping[str, str] | None = None, backport: Backport | None = None) -> None:
        super().__init__()
        self._pins = dict(pins or {})
        self._backport = backport

    def serialize_entity(self, context: Any, entity: Any) -> Any:
        if isinstance(entity, ovo_base.VersionedObject):
            pin = self._pins.get(entity.obj_name())
            if pin is None or pin == entity.VERSION:
                return entity.obj_to_primitive()
            return entity.obj_to_primitive(target_version=pin, version_manifest=self._pins)
        return super().serialize_entity(context, entity)

    def _process_object(self, context: Any, objprim: dict[str, Any]) -> Any:
        try:
            return super()._process_object(context, objprim)
        except ovo_exc.IncompatibleObjectVersion as exc:
            if self._backport is None:
                raise exception.IncompatibleObject(
                    name=exc.kwargs['objname'],
                    version=str(exc.kwargs['objver'])[:16],
                    supported=exc.kwargs['supported'],
                ) from None
            wanted = ovo_base.obj_tree_get_versions(exc.kwargs['objname'])
            return self._backport(context, objprim, wanted)
        except ValueError as exc:
            # The fields of our objects never repeat the value in their errors.
            raise exception.InvalidArgument(argument='object', reason=str(exc)) from None
        except (ovo_exc.VersionedObjectsException, TypeError, KeyError, AttributeError):
            # The library's own messages may contain the value.
            reason = 'is not an object of this contract'
            raise exception.InvalidArgument(argument='object', reason=reason) from None

    def serialize_context(self, context: Any) -> dict[str, str | None]:
        # Another service passes a context of its own, which oslo.context gives the same attributes.
        return RequestContext.to_wire(context)

    def deserialize_context(self, context: Any) -> RequestContext:
        return RequestContext.from_wire(context)
