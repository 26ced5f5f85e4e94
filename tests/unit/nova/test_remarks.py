# SPDX-License-Identifier: Apache-2.0
"""What an option of nova.conf does not do here is said."""

from consoled.nova import conf_file
from tests.unit.nova.conf_base import NovaConfCase

GOOD = '[database]\nconnection = mysql+pymysql://n@h/n\n'
REMARKS = (
    ('[DEFAULT]\ncert = /missing.pem', '[DEFAULT] cert in {file} names a file that does not exist'),
    ('[DEFAULT]\nrecord = /r', '[DEFAULT] record in {file} has no effect'),
    ('[DEFAULT]\ndaemon = true', '[DEFAULT] daemon in {file} has no effect'),
    (
        '[DEFAULT]\nsource_is_ipv6 = true\n[vnc]\nnovncproxy_host = h',
        '[DEFAULT] source_is_ipv6 in {file} has no effect on a host name',
    ),
    ('[DEFAULT]\nweb = /missing', '[DEFAULT] web in {file} has no pages'),
    ('[console]\nssl_minimum_version = tlsv1_1', '[console] ssl_minimum_version in {file} is tlsv1_1'),
    ('[vnc]\nauth_schemes = vencrypt', '[vnc] auth_schemes in {file} lists vencrypt'),
    ('[xvp]\nxvpvncproxy_host = h', '[xvp] xvpvncproxy_host in {file} has no effect'),
    ('[rdp]\nenabled = true', '[rdp] enabled in {file} has no effect'),
    ('[workarounds]\nenable_consoleauth = true', '[workarounds] enable_consoleauth in {file} has no effect'),
    ('[cells]\nenable = true', '[cells] enable in {file} is true'),
    (
        '[database]\nconnection = mysql+pymysql://n@h/nova_cell0?charset=utf8',
        '[database] connection in {file} is the database of cell0',
    ),
)
SILENT = (
    '',
    '[database]\nconnection =',
    '[DEFAULT]\nsource_is_ipv6 = true',
    '[DEFAULT]\nssl_only = true\ncert = /missing.pem',  # a program does not start with this
    '[console]\nssl_minimum_version = tlsv1_2',
    '[rdp]\nenabled = false',
)


class RemarksTest(NovaConfCase):
    def unusable(self, nova, own=''):
        return conf_file.read(self.load(nova, own)).unusable

    def test_each_is_one_sentence_that_names_the_option_and_the_file(self):
        for nova, expected in REMARKS:
            found = self.unusable(GOOD + nova)
            self.assertEqual(1, len(found), (nova, found))
            self.assertTrue(found[0].startswith(expected.format(file=self.nova)), found)
            self.assertTrue(found[0].endswith('.'), found)

    def test_what_has_its_effect_is_not_remarked_on(self):
        for nova in SILENT:
            self.assertEqual([], self.unusable(GOOD + nova), nova)

    def test_the_database_of_consoleds_own_files_counts(self):
        nova = '[database]\nconnection = mysql+pymysql://n@h/nova_cell0'
        self.assertEqual([], self.unusable(nova, 'connection = mysql+pymysql://n@h/nova_cell1\n'))

    def test_half_a_client_certificate(self):
        found = self.unusable(GOOD + '[vnc]\nauth_schemes = vencrypt\nvencrypt_client_cert = /c')
        self.assertIn(f'[vnc] vencrypt_client_cert in {self.nova} has no effect', '\n'.join(found))

    def test_names_in_certificates_that_are_checked_all_the_same(self):
        nova = GOOD + '[vnc]\nauth_schemes = vencrypt'
        self.assertEqual([], self.unusable(nova, '[vnc]\nvencrypt_check_name = true\n'))
