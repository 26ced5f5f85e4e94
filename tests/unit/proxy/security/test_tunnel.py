# SPDX-License-Identifier: Apache-2.0
"""HTTP CONNECT to a console: the request, and replies well-formed or not."""

import testtools
from hypothesis import given
from hypothesis import strategies as st

from consoled.proxy.security.base import SecurityFailed
from consoled.proxy.security.tunnel import MAX_HEADER, Tunnel
from tests.unit.proxy.security import peers

REPLY = b'HTTP/1.1 200 Connection established\r\nServer: x\r\nContent-Length: 9\r\n\r\n'


def tunnel():
    return Tunnel('/console?uuid=1', '192.0.2.1', 80)


def play(data):
    result = peers.play(tunnel(), [data])
    return result.code, result.detail


class RequestTest(testtools.TestCase):
    def test_the_request(self):
        for host, shown in (
            ('192.0.2.1', '192.0.2.1:443'),
            ('compute-1.example', 'compute-1.example:443'),
            ('2001:db8::1', '[2001:db8::1]:443'),
            ('::ffff:192.0.2.1', '[::ffff:192.0.2.1]:443'),
            ('fe80::1%eth0', '[fe80::1]:443'),
        ):
            self.assertEqual(
                f'CONNECT /console?uuid=1 HTTP/1.1\r\nHost: {shown}\r\n\r\n'.encode(),
                Tunnel('/console?uuid=1', host, 443).start(),
            )

    @given(st.text(), st.text(), st.integers())
    def test_nothing_can_be_injected_into_the_request(self, path, host, port):
        try:
            request = Tunnel(path, host, port).start()
        except ValueError:
            return
        first, second, *rest = request.split(b'\r\n')
        self.assertEqual([b'', b''], rest)
        self.assertEqual(3, len(first.split()))
        self.assertEqual(2, len(second.split()))

    def test_values_that_could_break_the_request_are_refused(self):
        for path in ('', '/a b', '/\r\nX: y', '/a\n', '/\t', '/\0', '/\x7f', '/ä', '/\u2028', 'x' * 1025):
            self.assertRaises(ValueError, Tunnel, path, 'h', 1)
        for host in ('', 'a b', 'h\r\nX: y', 'h\n', 'h/x', 'h@x', '[::1]', 'ä', '%eth0', 'h' * 256, 'h:1'):
            self.assertRaises(ValueError, Tunnel, '/', host, 1)
        for port in (0, -1, 65536):
            self.assertRaises(ValueError, Tunnel, '/', 'h', port)
        Tunnel('x' * 1024, 'h' * 255, 65535)


class ReplyTest(testtools.TestCase):
    def test_any_2xx_opens_the_tunnel(self):
        for status in (b'HTTP/1.1 200 OK', b'HTTP/1.0 200 ', b'HTTP/1.1 200', b'HTTP/1.1 299 \xe9 \t!'):
            result = peers.play(tunnel(), [status + b'\r\n\r\nRFB'])
            self.assertEqual((None, True, b'RFB'), (result.code, result.done, result.rest))

    def test_any_other_status_is_a_refusal(self):
        for status in (100, 101, 199, 300, 302, 401, 404, 500, 503, 999):
            reply = f'HTTP/1.1 {status} Whatever\r\nX: y\r\n\r\n'.encode()
            self.assertEqual(('tunnel_refused', str(status)), play(reply))

    def test_malformed_status_lines_are_refused(self):
        for line in (
            *(b'HTTP/1.1 2000 OK', b'HTTP/1.1 20 OK', b'HTTP/1.1 099 OK', b'HTTP/1.1  200 OK', b'HTTP/1.1'),
            *(
                b'HTTP/1.10 200 OK',
                b'HTTP/1. 200 OK',
                b'HTTP/1.1 +20 OK',
                b'HTTP/1.1 200OK',
                b'HTTP/1.1\t200',
            ),
            *(b'HTTP/1.1 200 a\nb', b'HTTP/1.1 200 a\0', b'HTTP/1.1 2\xb20 OK', b'HTTP/1.x 200 OK'),
        ):
            code, detail = play(line + b'\r\n\r\n')
            self.assertEqual('tunnel_reply', code, line)
            self.assertTrue(detail.isprintable())

    def test_other_protocols_are_refused_at_the_first_byte(self):
        for start in (b'R', b'RFB 003.008\n', b'HTTP/2', b'http', b'\r\n', b'\0'):
            self.assertEqual('tunnel_reply', play(start)[0], start)
        self.assertEqual(('tunnel_reply', 'not HTTP/1: RFB 003.008'), play(b'RFB 003.008\n'))

    def test_only_cr_lf_ends_the_header(self):
        for end in (b'\n\n', b'\r\r', b'\n\r\n', b'\r\n\n', b'\r\n \r\n'):
            exchange = tunnel()
            self.assertEqual(b'', exchange.receive(b'HTTP/1.1 200 OK' + end))
            self.assertFalse(exchange.done)

    def test_invariant_9_the_header_is_limited(self):
        """The limit is on the header itself, not on the data received with it."""
        start = b'HTTP/1.1 200 OK\r\nX: '
        longest = start + b'x' * (MAX_HEADER - len(start) - 4) + b'\r\n\r\n'
        for split in ([longest + b'abc'], peers.bytewise(longest + b'abc')):
            result = peers.play(tunnel(), split)
            self.assertEqual((True, b'abc'), (result.done, result.rest))
        longer = longest.replace(b'xx', b'xxx', 1)
        for split in ([longer], peers.bytewise(longer), [longer * 100]):
            exchange = tunnel()
            self.assertEqual('tunnel_reply', peers.play(exchange, split).code)
            self.assertTrue(len(exchange._header) <= MAX_HEADER)

    def test_eof_is_detected_at_every_byte(self):
        exchange = tunnel()
        for piece in peers.bytewise(REPLY):
            self.assertEqual('eof', self.assertRaises(SecurityFailed, exchange.eof).code)
            exchange.receive(piece)
        exchange.eof()

    @given(
        st.one_of(
            st.binary(max_size=60),
            st.builds(REPLY.__add__, st.binary(max_size=60)),
            st.text('\r\n 2HTP/1.', max_size=60).map(lambda text: b'HTTP/1.1 200\r\n' + text.encode()),
        ),
        peers.cuts,
    )
    def test_the_result_does_not_depend_on_how_bytes_are_split(self, data, at):
        whole, parts = peers.play(tunnel(), [data]), peers.play(tunnel(), peers.pieces(data, at))
        self.assertEqual(whole._replace(detail=''), parts._replace(detail=''))
