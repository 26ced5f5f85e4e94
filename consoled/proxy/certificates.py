# SPDX-License-Identifier: Apache-2.0
"""TLS contexts from options: each error names the option and the file."""

from __future__ import annotations

import ssl
from typing import NoReturn

from oslo_config import cfg

_VERSIONS = {'tlsv1_2': ssl.TLSVersion.TLSv1_2, 'tlsv1_3': ssl.TLSVersion.TLSv1_3}


def user_context(conf: cfg.ConfigOpts) -> ssl.SSLContext | None:
    """Return the TLS context for users, reading its files now; None if TLS is not configured.

    :raises ValueError: a file cannot be used, or only a part of the options is set
    """
    options = conf.proxy
    if not options.ssl_cert:
        if options.ssl_key:
            raise ValueError('[proxy] ssl_key is set, but ssl_cert is not: users would be served without TLS')
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[options.ssl_minimum_version]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if options.ssl_ciphers:
        try:
            context.set_ciphers(options.ssl_ciphers)
        except ssl.SSLError:
            raise ValueError('[proxy] ssl_ciphers: OpenSSL knows none of them') from None
    _load_chain(context, 'proxy', 'ssl_cert', options.ssl_cert, 'ssl_key', options.ssl_key)
    context.set_alpn_protocols(['http/1.1'])
    return context


def target_context(conf: cfg.ConfigOpts, group: str, option: str = 'target_ca_certs') -> ssl.SSLContext:
    """Return a context that checks the certificate and name of a hypervisor.

    :param option: of the group; it names the authorities. If it is not set, they are those of the system
    :raises ValueError: the file cannot be used
    """
    path = conf[group][option] or None
    try:
        context = ssl.create_default_context(cafile=path)
    except OSError as exc:  # ssl.SSLError is one
        _refuse(group, option, path, exc)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def vencrypt_context(conf: cfg.ConfigOpts) -> ssl.SSLContext:
    """Return the context for VeNCrypt: as any other, with the proxy's own certificate if there is one.

    :raises ValueError: ``vencrypt_ca_certs`` is not set, a file cannot be used, or the certificate is missing
    """
    options = conf.vnc
    if not options.vencrypt_ca_certs:
        raise ValueError('[vnc] vencrypt_ca_certs is not set, but the scheme vencrypt needs it')
    context = target_context(conf, 'vnc', 'vencrypt_ca_certs')
    context.check_hostname = options.vencrypt_check_name
    if options.vencrypt_client_cert:
        _load_chain(
            context,
            'vnc',
            'vencrypt_client_cert',
            options.vencrypt_client_cert,
            'vencrypt_client_key',
            options.vencrypt_client_key,
        )
    return context


def check_pairs(conf: cfg.ConfigOpts) -> None:
    """Check that no part of TLS towards hypervisors is set that would have no effect.

    :raises ValueError: it is
    """
    options = conf.vnc
    if options.vencrypt_client_key and not options.vencrypt_client_cert:
        raise ValueError('[vnc] vencrypt_client_key is set, but vencrypt_client_cert is not')
    if 'vencrypt' not in options.auth_schemes:
        for option in ('vencrypt_ca_certs', 'vencrypt_client_cert'):
            if options[option]:
                raise ValueError(
                    f'[vnc] {option} is set, but auth_schemes does not list vencrypt: no TLS would be used'
                )


def _load_chain(
    context: ssl.SSLContext, group: str, cert_option: str, cert: str, key_option: str, key: str | None
) -> None:
    """Load a certificate with its key, which is in the same file if it has none of its own."""
    for option, path in ((cert_option, cert), (key_option, key)):
        try:
            if path:
                open(path, 'rb').close()
        except OSError as exc:
            _refuse(group, option, path, exc)
    try:
        context.load_cert_chain(cert, key or None, password=_no_password)
    except ssl.SSLError as exc:
        if exc.reason == 'KEY_VALUES_MISMATCH':
            raise ValueError(f'[{group}] {key_option}: {key or cert} is not the key of {cert}') from None
        if _has_bad_certificate(cert):
            _refuse(group, cert_option, cert, exc)
        if not key:
            raise ValueError(
                f'[{group}] {cert_option}: {cert} has no private key, or a damaged one, and {key_option} is '
                'not set'
            ) from None
        _refuse(group, key_option, key, exc)
    except _Encrypted:
        raise ValueError(
            f'[{group}] {key_option}: {key or cert} is encrypted, and nobody can type its password'
        ) from None


class _Encrypted(Exception):
    """The key has a password."""


def _no_password() -> NoReturn:
    """Refuse what OpenSSL would otherwise ask for at the terminal."""
    raise _Encrypted


def _has_bad_certificate(path: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return True
    return False


def _refuse(group: str, option: str, path: str | None, error: OSError) -> NoReturn:
    reason = 'it is not PEM, or damaged' if isinstance(error, ssl.SSLError) else error.strerror
    raise ValueError(f'[{group}] {option}: {path} cannot be used: {reason}') from None
