# SPDX-License-Identifier: Apache-2.0
"""Options of nova.conf reach the options of consoled that stand for them."""

import ipaddress
import urllib.parse

import fixtures
import oslo_messaging
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from consoled.conf import written
from consoled.nova import settings
from consoled.nova.options import OLD_NAMES, OPTIONS
from consoled.proxy.forwarded import parse_networks
from tests.unit.nova.conf_base import NovaConfCase

# options of nova.conf; the option of consoled, its value
AS_THEY_ARE = (
    ('[DEFAULT]\nhost = cmp1', 'host', 'cmp1'),
    ('[DEFAULT]\ncontrol_exchange = cell1', 'nova.exchange', 'cell1'),
    ('[console]\nssl_ciphers = ECDHE+AESGCM', 'proxy.ssl_ciphers', 'ECDHE+AESGCM'),
    ('[console]\nssl_minimum_version = tlsv1_3', 'proxy.ssl_minimum_version', 'tlsv1_3'),
    ('[console]\nssl_minimum_version = default', 'proxy.ssl_minimum_version', 'tlsv1_2'),
    ('[console]\nssl_minimum_version = tlsv1_1', 'proxy.ssl_minimum_version', 'tlsv1_2'),
    ('[console]\nallowed_origins = a.example.org,b', 'proxy.allowed_origins', ['a.example.org', 'b']),
    ('[DEFAULT]\nconsole_allowed_origins = a', 'proxy.allowed_origins', ['a']),
    ('', 'proxy.match_origin_by_host', True),
    ('[consoleauth]\nenforce_session_timeout = true', 'consoleauth.enforce_session_timeout', True),
    ('', 'consoleauth.enforce_session_timeout', False),
    ('[consoleauth]\ntoken_ttl = 3600', 'consoleauth.token_ttl', 3600),
    ('[DEFAULT]\nconsole_token_ttl = 3600', 'consoleauth.token_ttl', 3600),
    ('[consoleauth]\ntoken_ttl = 0', 'consoleauth.token_ttl', 600),
    ('[consoleauth]\ntoken_ttl = 3600', 'consoleauth.max_token_ttl', 86400),
    ('[consoleauth]\ntoken_ttl = 172800', 'consoleauth.max_token_ttl', 172800),
    ('[vnc]\nauth_schemes = vencrypt,none', 'vnc.auth_schemes', ['vencrypt', 'none']),
    ('[vnc]\nauth_schemes = vencrypt', 'vnc.vencrypt_check_name', False),
    ('', 'vnc.vencrypt_check_name', True),
    ('[vnc]\nauth_schemes = vencrypt\nvencrypt_ca_certs = /ca', 'vnc.vencrypt_ca_certs', '/ca'),
    ('[vnc]\nvencrypt_ca_certs = /ca', 'vnc.vencrypt_ca_certs', None),
    ('[vnc]\nnovncproxy_base_url = https://h/vnc_lite.html', 'vnc.base_url', 'https://h/vnc_lite.html'),
    ('[DEFAULT]\nnovncproxy_base_url = https://h/vnc.html', 'vnc.base_url', 'https://h/vnc.html'),
    ('[vnc]\nserver_proxyclient_address = 192.0.2.1', 'vnc.server_proxyclient_address', '192.0.2.1'),
    ('[vnc]\nvncserver_proxyclient_address = h', 'vnc.server_proxyclient_address', 'h'),
    ('[spice]\nhtml5proxy_base_url = https://h/s', 'spice.base_url', 'https://h/s'),
    ('[spice]\nserver_proxyclient_address = h', 'spice.server_proxyclient_address', 'h'),
    ('[serial_console]\nbase_url = wss://h/', 'serial_console.base_url', 'wss://h/'),
    ('[serial_console]\nproxyclient_address = h', 'serial_console.server_proxyclient_address', 'h'),
    ('[libvirt]\nconnection_uri = qemu+unix:///system', 'compute.libvirt_uri', 'qemu+unix:///system'),
    ('[libvirt]\nconnection_uri =', 'compute.libvirt_uri', 'qemu:///system'),
)

ADDRESSES = (
    ('', ('0.0.0.0', 6080, [])),
    ('[vnc]\nnovncproxy_host = 10.0.0.1\nnovncproxy_port = 6081', ('10.0.0.1', 6081, [])),
    ('[DEFAULT]\nnovncproxy_host = 10.0.0.1\nnovncproxy_port = 6081', ('10.0.0.1', 6081, [])),
    ('[vnc]\nnovncproxy_host =', ('0.0.0.0', 6080, [])),
    ('[serial_console]\nenabled = true', ('0.0.0.0', 6080, ['0.0.0.0:6083'])),
    ('[serial_console]\nserialproxy_host = ::1', ('0.0.0.0', 6080, ['[::1]:6083'])),
    ('[serial_console]\nserialproxy_port = 7083\nenabled = false', ('0.0.0.0', 6080, [])),
    ('[vnc]\nenabled = false\n[spice]\nenabled = true', ('0.0.0.0', 6082, [])),
    (
        '[spice]\nenabled = true\nhtml5proxy_host = h\n[serial_console]\nenabled = true',
        ('0.0.0.0', 6080, ['h:6082', '0.0.0.0:6083']),
    ),
    ('[serial_console]\nserialproxy_port = 6080', ('0.0.0.0', 6080, [])),  # of another machine
    ('[vnc]\nenabled = false', ('0.0.0.0', 6080, [])),  # none: as if nothing were said
)

SECRET = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='\\"\',;#%@:/?[]&=+'),
    min_size=1,
)


class AsTheyAreTest(NovaConfCase):
    def test_values_are_taken(self):
        for text, name, expected in AS_THEY_ARE:
            self.assertEqual(expected, self.value(self.load(text), name), text)

    def test_consoled_itself_says_more(self):
        own = (
            '[proxy]\nssl_ciphers = HIGH\nallowed_origins = https://own\nmatch_origin_by_host = false\n'
            '[vnc]\nbase_url = https://own/\n'
        )
        conf = self.load(
            '[console]\nallowed_origins = nova\nssl_ciphers = nova\n[vnc]\nnovncproxy_base_url = http://n/',
            own,
        )
        self.assertEqual(
            ('HIGH', ['https://own'], False, 'https://own/'),
            (
                conf.proxy.ssl_ciphers,
                conf.proxy.allowed_origins,
                conf.proxy.match_origin_by_host,
                conf.vnc.base_url,
            ),
        )

    def test_every_option_of_consoled_in_the_table_exists(self):
        conf = self.load('')
        known = {(group, option.dest) for group, option in written.options(conf)}
        self.assertEqual(set(), {row.ours for row in settings.TABLE} - known)

    def test_every_option_of_nova_in_the_tables_is_registered(self):
        theirs = {name for row in settings.TABLE for name in row.theirs} | set(OLD_NAMES)
        known = {(group, option.name) for group, options in OPTIONS.items() for option in options}
        self.assertEqual(set(), theirs - known)


class AddressesTest(NovaConfCase):
    def addresses(self, conf):
        return conf.proxy.host, conf.proxy.port, conf.proxy.additional_addresses

    def test_those_of_the_proxies_that_are_enabled(self):
        for text, expected in ADDRESSES:
            self.assertEqual(expected, self.addresses(self.load(text)), text)

    def test_those_that_are_asked_for(self):
        nova = '[vnc]\nnovncproxy_host = 10.0.0.1\n[serial_console]\nserialproxy_host = 10.0.0.2'
        conf = self.load(nova, 'proxies = serial,spice\n')
        self.assertEqual(('0.0.0.0', 6082, ['10.0.0.2:6083']), self.addresses(conf))

    def test_addresses_are_taken_together_or_not_at_all(self):
        for own, expected in (
            ('host = 10.9.9.9', ('10.9.9.9', 6080, [])),
            ('port = 443', ('0.0.0.0', 443, [])),
            ('additional_addresses = 10.9.9.9:1', ('0.0.0.0', 6080, ['10.9.9.9:1'])),
        ):
            conf = self.load(
                '[vnc]\nnovncproxy_port = 7\n[serial_console]\nenabled = true', f'[proxy]\n{own}\n'
            )
            self.assertEqual(expected, self.addresses(conf), own)


class CertificateTest(NovaConfCase):
    def tls(self, nova, own=''):
        conf = self.load(nova, own)
        return conf.proxy.ssl_cert, conf.proxy.ssl_key, conf.proxy.ssl_only

    def test_tls_if_the_file_exists(self):
        cert = self.directory / 'cert.pem'
        nova = f'[DEFAULT]\ncert = {cert}\nkey = /key\n'
        self.assertEqual((None, None, True), self.tls(nova))
        cert.write_text('')
        self.assertEqual((str(cert), '/key', False), self.tls(nova))
        self.assertEqual((str(cert), '/key', True), self.tls(nova + 'ssl_only = true\n'))

    def test_a_file_that_has_to_exist_is_not_ignored(self):
        nova = '[DEFAULT]\ncert = /missing\nssl_only = true\n'
        self.assertEqual(('/missing', None, True), self.tls(nova))
        self.assertEqual(('self.pem', None, True), self.tls('[DEFAULT]\nssl_only = true\n'))

    def test_no_key_of_nova_for_a_certificate_of_consoled(self):
        cert = self.directory / 'cert.pem'
        cert.write_text('')
        nova = f'[DEFAULT]\ncert = {cert}\nkey = /key\n'
        self.assertEqual(('/own', None, True), self.tls(nova, '[proxy]\nssl_cert = /own\n'))


class VeNCryptTest(NovaConfCase):
    def test_half_a_certificate_is_none(self):
        conf = self.load('[vnc]\nauth_schemes = vencrypt\nvencrypt_client_cert = /c\nvencrypt_ca_certs = /ca')
        self.assertEqual(('/ca', None), (conf.vnc.vencrypt_ca_certs, conf.vnc.vencrypt_client_cert))
        conf = self.load(
            '[vnc]\nauth_schemes = vencrypt\nvencrypt_client_cert = /c\nvencrypt_client_key = /k'
        )
        self.assertEqual(('/c', '/k'), (conf.vnc.vencrypt_client_cert, conf.vnc.vencrypt_client_key))

    def test_certificates_are_taken_together_or_not_at_all(self):
        nova = '[vnc]\nauth_schemes = vencrypt\nvencrypt_ca_certs = /ca'
        conf = self.load(nova, '[vnc]\nauth_schemes = none\n')
        self.assertEqual((['none'], None), (conf.vnc.auth_schemes, conf.vnc.vencrypt_ca_certs))


class PagesTest(NovaConfCase):
    def test_a_directory_is_taken_for_what_is_in_it(self):
        for page, name, other in (
            ('vnc_lite.html', 'novnc_path', 'spice_path'),
            ('spice_auto.html', 'spice_path', 'novnc_path'),
        ):
            web = self.directory / name
            web.mkdir()
            default = self.load('').proxy
            conf = self.load(f'[DEFAULT]\nweb = {web}')
            self.assertEqual(default[name], conf.proxy[name])
            (web / page).write_text('')
            conf = self.load(f'[DEFAULT]\nweb = {web}')
            self.assertEqual((str(web), default[other]), (conf.proxy[name], conf.proxy[other]))


class NetworksTest(NovaConfCase):
    def allowed(self, nova, address):
        networks = parse_networks(self.load(nova).proxy.allowed_networks, 'allowed_networks')
        return any(
            ipaddress.ip_address(address) in network
            for network in networks
            if network.version == ipaddress.ip_address(address).version
        )

    def test_compute_hosts_may_have_any_address_of_a_network(self):
        for address in ('10.0.0.1', '192.0.2.1', '1.0.0.1', '223.255.255.254', '169.253.1.1', '128.0.0.1'):
            self.assertTrue(self.allowed('', address), address)
        for address in ('2001:db8::1', 'fd00::1'):
            self.assertTrue(self.allowed('', address), address)

    def test_what_is_no_compute_host(self):
        for address in (
            '127.0.0.1',
            '127.9.9.9',
            '0.0.0.0',
            '169.254.169.254',
            '224.0.0.1',
            '255.255.255.255',
        ):
            self.assertFalse(self.allowed('', address), address)
        for address in ('::1', '::', 'fe80::1', 'ff02::1', '::ffff:127.0.0.1', '64:ff9b::7f00:1'):
            self.assertFalse(self.allowed('', address), address)

    def test_a_loopback_address_that_nova_gives_its_consoles(self):
        for text, address, other in (
            ('[vnc]\nserver_proxyclient_address = 127.0.0.1', '127.0.0.1', '127.0.0.2'),
            ('[serial_console]\nproxyclient_address = 127.0.0.2', '127.0.0.2', '127.0.0.1'),
            ('[spice]\nserver_proxyclient_address = ::1', '::1', '127.0.0.1'),
            ('[spice]\nserver_proxyclient_address = localhost', '127.0.0.1', '127.0.0.2'),
            ('[DEFAULT]\nmy_ip = 127.0.0.1\n[vnc]\nserver_proxyclient_address = $my_ip', '127.0.0.1', '::1'),
        ):
            self.assertTrue(self.allowed(text, address), text)
            self.assertFalse(self.allowed(text, other), text)


class DatabaseTest(NovaConfCase):
    def test_the_database_of_nova_is_not_that_of_consoled(self):
        conf = self.load('[database]\nconnection = mysql+pymysql://nova:x@db/nova')
        self.assertEqual('mysql+pymysql://nova:x@db/nova', conf.nova.connection)
        self.assertIn('consoled', conf.database.connection)

    def test_what_is_appended_to_it(self):
        for connection, expected in (
            ('mysql+pymysql://n@db/n', 'mysql+pymysql://n@db/n?ssl_ca=/x&a=b'),
            ('mysql+pymysql://n@db/n?c=d', 'mysql+pymysql://n@db/n?c=d&ssl_ca=/x&a=b'),
        ):
            conf = self.load(f'[database]\nconnection = {connection}\nconnection_parameters = ssl_ca=/x&a=b')
            self.assertEqual(expected, conf.nova.connection)

    def test_plugins_of_sqlalchemy_are_those_of_novas_python(self):
        for query, expected in (
            ('?charset=utf8&plugin=dbcounter', '?charset=utf8'),
            ('?plugin=dbcounter', ''),
            ('?plugin=a&x=y', '?x=y'),
        ):
            conf = self.load(f'[database]\nconnection = mysql+pymysql://n@db/n{query}')
            self.assertEqual(f'mysql+pymysql://n@db/n{expected}', conf.nova.connection)

    def test_a_driver_that_is_not_installed(self):
        def missing(dialect):
            raise ImportError

        for dialect in ('postgresql.psycopg2.PGDialect_psycopg2', 'mysql.mysqldb.MySQLDialect_mysqldb'):
            name = f'sqlalchemy.dialects.{dialect}.import_dbapi'
            self.useFixture(fixtures.MonkeyPatch(name, missing))
        for theirs, ours in (
            ('mysql://', 'mysql+pymysql://'),
            ('mysql+mysqldb://', 'mysql+pymysql://'),
            ('postgresql://', 'postgresql+psycopg://'),
            ('postgresql+psycopg2://', 'postgresql+psycopg://'),
            ('postgresql+psycopg://', 'postgresql+psycopg://'),
        ):
            conf = self.load(f'[database]\nconnection = {theirs}nova:x@db/nova')
            found = sa.make_url(conf.nova.connection)
            self.assertEqual(ours, f'{found.get_backend_name()}+{found.get_dialect().driver}://')
            self.assertEqual(('nova', 'x', 'db', 'nova'), (*found[1:4], found.database))

    def test_old_names(self):
        for group in ('DEFAULT', 'DATABASE', 'database'):
            conf = self.load(f'[{group}]\nsql_connection = mysql+pymysql://nova:x@db/nova')
            self.assertEqual('mysql+pymysql://nova:x@db/nova', conf.nova.connection)


class BusTest(NovaConfCase):
    URL = 'rabbit://nova:x@h:5672/nova'

    def query(self, rabbit, own='', url=URL):
        conf = self.load(f'[DEFAULT]\ntransport_url = {url}\n[oslo_messaging_rabbit]\n{rabbit}', own)
        found = conf.nova.transport_url or conf.transport_url
        parsed = oslo_messaging.TransportURL.parse(conf, found)
        self.assertEqual(['h'], [host.hostname for host in parsed.hosts])
        return parsed.query

    def test_one_bus_for_both(self):
        conf = self.load(f'[DEFAULT]\ntransport_url = {self.URL}')
        self.assertEqual((self.URL, None), (conf.transport_url, conf.nova.transport_url))

    def test_a_bus_of_consoled(self):
        conf = self.load(
            f'[DEFAULT]\ntransport_url = {self.URL}\n[oslo_messaging_rabbit]\nssl = true',
            '[DEFAULT]\ntransport_url = rabbit://c:x@own/\n[oslo_messaging_rabbit]\nssl = false\n',
        )
        self.assertEqual(
            ('rabbit://c:x@own/', f'{self.URL}?ssl=true'), (conf.transport_url, conf.nova.transport_url)
        )

    def test_what_the_broker_requires(self):
        for rabbit, expected in (
            ('', {}),
            ('rabbit_quorum_queue = true', {'rabbit_quorum_queue': 'true'}),
            ('amqp_durable_queues = 1', {'amqp_durable_queues': 'true'}),
            ('rabbit_durable_queues = 1', {'amqp_durable_queues': 'true'}),
            ('ssl = true\nssl_ca_file = /a b&c', {'ssl': 'true', 'ssl_ca_file': '/a b&c'}),
            ('rabbit_use_ssl = true\nkombu_ssl_ca_certs = /ca', {'ssl': 'true', 'ssl_ca_file': '/ca'}),
            ('ssl_ca_file = /ca', {}),  # without ssl Nova ignores it
            ('ssl = false\nssl_ca_file = /ca', {'ssl': 'false'}),
            ('heartbeat_in_pthread = false\nrabbit_retry_interval = 9', {}),
        ):
            self.assertEqual(expected, self.query(rabbit), rabbit)

    def test_durable_queues_under_their_old_name(self):
        conf = self.load(f'[DEFAULT]\ntransport_url = {self.URL}\namqp_durable_queues = true')
        self.assertEqual(f'{self.URL}?amqp_durable_queues=true', conf.transport_url)

    def test_the_url_itself_says_more(self):
        url = f'{self.URL}?rabbit_quorum_queue=false'
        self.assertEqual({'rabbit_quorum_queue': 'false'}, self.query('rabbit_quorum_queue = true', url=url))

    def test_an_option_of_consoled_says_more(self):
        self.assertEqual(
            {'ssl': 'true'},
            self.query('ssl = true\nssl_ca_file = /nova', '[oslo_messaging_rabbit]\nssl_ca_file = /own\n'),
        )

    def test_another_driver_has_no_such_options(self):
        conf = self.load('[DEFAULT]\ntransport_url = fake://\n[oslo_messaging_rabbit]\nssl = true')
        self.assertEqual('fake://', conf.transport_url)

    @given(SECRET)
    def test_any_password(self, password):
        written_as = urllib.parse.quote(password, safe='$').replace('$', '$$')
        conf = self.load(
            f'[DEFAULT]\ntransport_url = rabbit://n:{written_as}@h/\n'
            f'[database]\nconnection = mysql+pymysql://n:{written_as}@db/n'
        )
        bus = oslo_messaging.TransportURL.parse(conf)
        self.assertEqual(password, bus.hosts[0].password)
        self.assertEqual(password, sa.make_url(conf.nova.connection).password)

    def test_a_database_of_consoled_in_the_environment(self):
        self.useFixture(fixtures.EnvironmentVariable('OS_DATABASE__CONNECTION', 'mysql+pymysql://own@h/own'))
        conf = self.load('[database]\nconnection = mysql+pymysql://n@h/n')
        self.assertEqual(
            ('mysql+pymysql://own@h/own', 'mysql+pymysql://n@h/n'),
            (conf.database.connection, conf.nova.connection),
        )
