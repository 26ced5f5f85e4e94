# SPDX-License-Identifier: Apache-2.0
"""What a hypervisor and a proxy show each other, in files as QEMU and the proxy want them."""

import pathlib

import trustme


class Certificates:
    """An authority of hypervisors and proxies, and one that neither knows.

    :ivar server: directory of the hypervisor, with its certificate for 127.0.0.1
    :ivar ca: file with the certificate of the authority
    :ivar client: file with the proxy's certificate and key
    :ivar strangers: the same, signed by the authority that nobody knows
    """

    def __init__(self, directory):
        self.server = pathlib.Path(directory, 'server')
        self.server.mkdir()
        self._authority = trustme.CA()
        self.ca = pathlib.Path(directory, 'ca.pem')
        self._authority.cert_pem.write_to_path(self.ca)
        self._authority.cert_pem.write_to_path(self.server / 'ca-cert.pem')
        self.name_server('127.0.0.1')
        self.client = self._client(self._authority, pathlib.Path(directory, 'client.pem'))
        self.strangers = self._client(trustme.CA(), pathlib.Path(directory, 'strangers.pem'))

    def name_server(self, name):
        """Give the hypervisor a certificate for that name; guests that run keep theirs."""
        mine = self._authority.issue_cert(name)
        mine.private_key_pem.write_to_path(self.server / 'server-key.pem')
        mine.cert_chain_pems[0].write_to_path(self.server / 'server-cert.pem')

    @staticmethod
    def _client(authority, path):
        authority.issue_cert('proxy.example.org').private_key_and_cert_chain_pem.write_to_path(path)
        return path
