# SPDX-License-Identifier: Apache-2.0
"""Strict field types for the wire objects.

The library's types are lenient: its ``UUID`` only warns, its ``String`` accepts numbers and any length. Here
a value has its type and is within its bounds, or a ``ValueError`` names the field. The error does not show
the value, which may be a secret.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
import uuid as uuidlib
from typing import Any

from oslo_versionedobjects import fields

_NUMBER = '(0[xX][0-9A-Fa-f]*|[0-9]+)'
_NUMBERS = re.compile(rf'{_NUMBER}(\.{_NUMBER})*\.?')
_DECIMAL = re.compile('[1-9][0-9]{0,4}')
_HOSTNAME = re.compile(r'[A-Za-z0-9]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_-]{1,63})*\.?')


class ConsoleType:
    """Names of the console types."""

    NOVNC = 'novnc'
    SPICE = 'spice-html5'
    SERIAL = 'serial'
    WEBMKS = 'webmks'
    RDP = 'rdp-html5'

    ALL = (NOVNC, SPICE, SERIAL, WEBMKS, RDP)


def checked_uuid(value: object) -> str:
    """Return ``value`` as a canonical lower-case UUID, or raise ValueError (RFC 9562, section 4)."""
    if not isinstance(value, str) or len(value) != 36:
        raise ValueError('must be a UUID of 36 characters')
    try:
        canonical = str(uuidlib.UUID(value))
    except ValueError:
        raise ValueError('must be a UUID of 36 characters') from None
    if canonical != value.lower():
        raise ValueError('must be a UUID of 36 characters')
    return canonical


def checked_port(value: object) -> int:
    """Return ``value`` if it is a TCP port, 1..65535, or raise ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65535:
        raise ValueError('must be an integer from 1 to 65535')
    return value


def checked_text(value: object, max_length: int) -> str:
    """Return ``value`` if it is a string of 1 to ``max_length`` printable characters, or raise ValueError.

    Blanks at its ends are refused: some databases ignore them in comparisons, so two different names would be
    equal there.
    """
    if not isinstance(value, str) or not 1 <= len(value) <= max_length:
        raise ValueError(f'must be a string of 1 to {max_length} characters')
    if not value.isprintable() or value != value.strip():
        raise ValueError('must be printable, without blanks at its ends')
    return value


def checked_host(value: object) -> str:
    """Return ``value`` if it is an IP address or a host name (RFC 1123), or raise ValueError.

    It is returned in one form, because hosts are compared as texts: an address as in RFC 5952, a name in
    lower case and without a dot at its end.
    """
    text = checked_text(value, 255)
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        # Numbers are read as an IPv4 address in another form (10.1, 0x7f000001), which is no name.
        if _HOSTNAME.fullmatch(text) and not _NUMBERS.fullmatch(text):
            return text.removesuffix('.').lower()
        raise ValueError('must be an IP address or a host name') from None
    if getattr(address, 'scope_id', None):  # the kernel ignores it, or it is a name on one machine only
        raise ValueError('must be an IP address without a zone')
    address = getattr(address, 'ipv4_mapped', None) or address
    if address.is_unspecified:  # whoever connects to it gets their own machine
        raise ValueError('must be an address to connect to, not 0.0.0.0 or ::')
    return str(address)


def checked_option(name: str, value: object) -> None:
    """Check an option of a console, or raise ValueError."""
    checked_text(name, 64)
    if value is not None:
        text = checked_text(value, 1024)
        if name == 'tls_port' and not (_DECIMAL.fullmatch(text) and int(text) <= 65535):
            raise ValueError('must have a TCP port, 1 to 65535, as tls_port')


class _Checked(fields.FieldType[Any]):  # type: ignore[misc]
    """Base of types whose values are checked when they are assigned, and when they come from the wire.

    (The library assigns what comes from the wire, too.)
    """

    def check(self, value: object) -> Any:
        """Return the value in its canonical form, or raise ValueError with the rule that it breaks."""
        raise NotImplementedError

    def coerce(self, obj: Any, attr: str, value: Any) -> Any:
        try:
            return self.check(value)
        except ValueError as exc:
            raise ValueError(f'{attr} {exc}') from None


class StrictUUID(_Checked):
    def check(self, value: object) -> str:
        return checked_uuid(value)


class Port(_Checked):
    def check(self, value: object) -> int:
        return checked_port(value)


class Host(_Checked):
    def check(self, value: object) -> str:
        return checked_host(value)


class Name(_Checked):
    """A name that others choose: of a user, project or service host; or a client's address."""

    def check(self, value: object) -> str:
        return checked_text(value, 255)


class ShortName(_Checked):
    def check(self, value: object) -> str:
        return checked_text(value, 64)


class Url(_Checked):
    def check(self, value: object) -> str:
        return checked_text(value, 1024)


class Secret(_Checked):
    """A value that grants access. It is sent in clear, but hidden in every repr and log."""

    def check(self, value: object) -> str:
        return checked_text(value, 4096)

    def stringify(self, value: Any) -> str:
        return '***'


class Moment(fields.DateTime):  # type: ignore[misc]
    """A date and time with a zone; on the wire ISO 8601 in UTC, in whole seconds."""

    MAX_LENGTH = 64  # characters

    def coerce(self, obj: Any, attr: str, value: Any) -> Any:
        try:
            if isinstance(value, str):
                checked_text(value, self.MAX_LENGTH)
            moment = super().coerce(obj, attr, value)
            moment.astimezone(datetime.UTC)  # fails in the first and last hours of the calendar
            return moment
        except (ValueError, TypeError, OverflowError):
            raise ValueError(f'{attr} must be an ISO 8601 date and time') from None

    def from_primitive(self, obj: Any, attr: str, value: Any) -> Any:
        return self.coerce(obj, attr, value)


class OneConsoleType(_Checked):
    def check(self, value: object) -> str:
        if value not in ConsoleType.ALL:
            raise ValueError('must be one of ' + ', '.join(ConsoleType.ALL))
        return str(value)


class Boolean(_Checked):
    """A truth value. The library's makes true of any text that is not empty, 'false' too."""

    def check(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError('must be true or false')
        return value


class Options(_Checked):
    """Options of a console: a small dict of strings to strings or None."""

    MAX_ITEMS = 16

    def check(self, value: object) -> dict[str, str | None]:
        if not isinstance(value, dict) or len(value) > self.MAX_ITEMS:
            raise ValueError(f'must be a dict of at most {self.MAX_ITEMS} items')
        for name, option in value.items():
            checked_option(name, option)
        return dict(value)

    def stringify(self, value: Any) -> str:
        return f'{{{",".join(sorted(value))}}}'


class StrictUUIDField(fields.AutoTypedField[str]):  # type: ignore[misc]
    AUTO_TYPE = StrictUUID()


class PortField(fields.AutoTypedField[int]):  # type: ignore[misc]
    AUTO_TYPE = Port()


class HostField(fields.AutoTypedField[str]):  # type: ignore[misc]
    AUTO_TYPE = Host()


class NameField(fields.AutoTypedField[str]):  # type: ignore[misc]
    AUTO_TYPE = Name()


class ShortNameField(fields.AutoTypedField[str]):  # type: ignore[misc]
    AUTO_TYPE = ShortName()


class UrlField(fields.AutoTypedField[str]):  # type: ignore[misc]
    AUTO_TYPE = Url()


class SecretField(fields.AutoTypedField[str]):  # type: ignore[misc]
    AUTO_TYPE = Secret()


class ConsoleTypeField(fields.AutoTypedField[str]):  # type: ignore[misc]
    AUTO_TYPE = OneConsoleType()


class MomentField(fields.AutoTypedField[datetime.datetime]):  # type: ignore[misc]
    AUTO_TYPE = Moment()


class BooleanField(fields.AutoTypedField[bool]):  # type: ignore[misc]
    AUTO_TYPE = Boolean()


class OptionsField(fields.AutoTypedField[dict[str, str | None]]):  # type: ignore[misc]
    AUTO_TYPE = Options()
