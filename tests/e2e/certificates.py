# SPDX-License-Identifier: Apache-2.0
"""TLS certificates of a hypervisor and a proxy, in files for QEMU and for the proxy."""

import pathlib

import trustme


class Certificates:
    """Certificates of an authority that hypervisors and proxies trust, and of one that nobody trusts.

    :ivar server: the hypervisor's directory, with its certificate for 127.0.0.1
    :ivar ca: file with the trusted authority's certificate
    :ivar client: file with the proxy's certificate and key
    :ivar untrusted_client: the same, signed by the authority that nobody trusts
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
        self.untrusted_client = self._client(trustme.CA(), pathlib.Path(directory, 'untrusted.pem'))

    def name_server(self, name):
        """Issue a certificate for that name to the hypervisor. Running guests keep theirs."""
        certificate = self._authority.issue_cert(name)
        certificate.private_key_pem.write_to_path(self.server / 'server-key.pem')
        certificate.cert_chain_pems[0].write_to_path(self.server / 'server-cert.pem')

    @staticmethod
    def _client(authority, path):
        authority.issue_cert('proxy.example.org').private_key_and_cert_chain_pem.write_to_path(path)
        return path
