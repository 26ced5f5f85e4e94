# SPDX-License-Identifier: Apache-2.0
"""TLS from options: what can be used, and errors that name the option and the file of what cannot."""

import pathlib
import ssl

import fixtures
import testtools
import trustme
from cryptography.hazmat.primitives import serialization

from consoled.proxy import certificates
from consoled.testing.fixtures import Conf


class TLSContextTest(testtools.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        directory = fixtures.TempDir()
        directory.setUp()
        cls.addClassCleanup(directory.cleanUp)
        certificate, other = [trustme.CA().issue_cert('proxy.example.org') for _ in range(2)]
        cls.combined, cls.cert, cls.key, cls.other_key, cls.encrypted_key = [
            pathlib.Path(directory.path, name)
            for name in ('combined.pem', 'cert.pem', 'key.pem', 'other.pem', 'encrypted.pem')
        ]
        certificate.private_key_and_cert_chain_pem.write_to_path(cls.combined)
        certificate.cert_chain_pems[0].write_to_path(cls.cert)
        certificate.private_key_pem.write_to_path(cls.key)
        other.private_key_pem.write_to_path(cls.other_key)
        key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), password=None)
        cls.encrypted_key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b'secret'),
            )
        )

    def context(self, **options):
        conf = self.useFixture(Conf(**{f'proxy__{name}': str(value) for name, value in options.items()})).conf
        return certificates.user_context(conf)

    def test_none_without_a_certificate(self):
        self.assertIsNone(self.context())

    def test_certificate_and_key_in_one_file_or_two(self):
        for options in ({'ssl_cert': self.combined}, {'ssl_cert': self.cert, 'ssl_key': self.key}):
            self.assertIsInstance(self.context(**options), ssl.SSLContext)

    def test_the_minimum_version(self):
        for options, version in (
            ({}, ssl.TLSVersion.TLSv1_2),
            ({'ssl_minimum_version': 'tlsv1_3'}, ssl.TLSVersion.TLSv1_3),
        ):
            self.assertEqual(version, self.context(ssl_cert=self.combined, **options).minimum_version)

    def test_neither_renegotiation_nor_compression(self):
        options = self.context(ssl_cert=self.combined).options
        self.assertTrue(options & ssl.OP_NO_RENEGOTIATION)
        self.assertTrue(options & ssl.OP_NO_COMPRESSION)

    def test_the_ciphers(self):
        context = self.context(ssl_cert=self.combined, ssl_ciphers='ECDHE-RSA-AES256-GCM-SHA384')
        old = {cipher['name'] for cipher in context.get_ciphers() if cipher['protocol'] == 'TLSv1.2'}
        self.assertEqual({'ECDHE-RSA-AES256-GCM-SHA384'}, old)

    def test_what_cannot_be_used_is_named(self):
        for option, options in (
            ('ssl_key', {'ssl_key': self.key}),  # a half: users would be served without TLS
            ('ssl_cert', {'ssl_cert': '/nowhere/cert.pem'}),
            ('ssl_key', {'ssl_cert': self.cert, 'ssl_key': '/nowhere/key.pem'}),
            ('ssl_cert', {'ssl_cert': self.cert}),  # without its key
            ('ssl_cert', {'ssl_cert': self.key, 'ssl_key': self.key}),
            ('ssl_key', {'ssl_cert': self.cert, 'ssl_key': self.cert}),
            ('ssl_key', {'ssl_cert': self.cert, 'ssl_key': self.other_key}),
            ('ssl_key', {'ssl_cert': self.cert, 'ssl_key': self.encrypted_key}),
            ('ssl_ciphers', {'ssl_cert': self.combined, 'ssl_ciphers': 'no such cipher'}),
        ):
            error = self.assertRaises(ValueError, self.context, **options)
            self.assertTrue(str(error).startswith(f'[proxy] {option}'), f'{options}: {error}')
        error = self.assertRaises(ValueError, self.context, ssl_cert=self.cert)
        self.assertIn('has no private key, or a damaged one, and ssl_key is not set', str(error))


class HalfSetTest(testtools.TestCase):
    """No part of TLS towards hypervisors may be set that would have no effect."""

    def test_what_would_have_no_effect_is_refused(self):
        for options in (
            {'vnc__vencrypt_client_key': 'k', 'vnc__auth_schemes': ['vencrypt']},
            {'vnc__vencrypt_ca_certs': 'c'},
            {'vnc__vencrypt_client_cert': 'c', 'vnc__auth_schemes': ['none']},
        ):
            conf = self.useFixture(Conf(**options)).conf
            error = self.assertRaises(ValueError, certificates.check_pairs, conf)
            self.assertTrue(str(error).startswith('[vnc] '), error)

    def test_nothing_and_a_whole_are_accepted(self):
        for options in (
            {},
            {
                'vnc__auth_schemes': ['vencrypt', 'none'],
                'vnc__vencrypt_ca_certs': 'a',
                'vnc__vencrypt_client_cert': 'c',
                'vnc__vencrypt_client_key': 'k',
            },
        ):
            certificates.check_pairs(self.useFixture(Conf(**options)).conf)


class VeNCryptNamesTest(testtools.TestCase):
    def test_names_are_checked_unless_that_is_disabled(self):
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).path) / 'ca.pem'
        trustme.CA().cert_pem.write_to_path(path)
        for options, expected in (({}, True), ({'vnc__vencrypt_check_name': False}, False)):
            conf = self.useFixture(Conf(vnc__vencrypt_ca_certs=str(path), **options)).conf
            context = certificates.vencrypt_context(conf)
            self.assertEqual((expected, ssl.CERT_REQUIRED), (context.check_hostname, context.verify_mode))
