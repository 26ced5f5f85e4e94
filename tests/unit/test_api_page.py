# SPDX-License-Identifier: Apache-2.0
"""doc/api.md: the objects that it shows are what the serializer sends and reads."""

import json
import pathlib

import testtools

from consoled import objects
from consoled.context import RequestContext
from consoled.objects.base import ConsoledObjectRegistry
from consoled.rpc import arguments, replies, versions
from consoled.rpc.serializer import Serializer
from tests import examples
from tests.unit import test_design

TEXT = (pathlib.Path(__file__).resolve().parents[2] / 'doc/api.md').read_text()
SHOWN = [json.loads(block) for block in examples.fenced(TEXT, 'json')]
# by method, the class that a client makes of its result
REPLIES = {
    'define_host': replies.HostChanges,
    'register_proxy': replies.LeaseGrant,
    'renew_lease': replies.LeaseRenewal,
    'revoke': replies.Revocation,
}


def table(heading):
    return list(test_design.rows(test_design.section(heading, TEXT)))


def shown_objects(value):
    """Yield each object of this value, the objects in it included."""
    if isinstance(value, dict):
        if 'consoled_object.name' in value:
            yield value
        for inner in value.values():
            yield from shown_objects(inner)


class ObjectsTest(testtools.TestCase):
    def test_every_object_of_the_contract_is_shown(self):
        names = [shown['consoled_object.name'] for shown in SHOWN]
        self.assertEqual(sorted(versions.OBJECTS_OF_VERSION[versions.RPC_VERSION]), sorted(names))

    def test_what_is_shown_is_what_is_sent(self):
        for shown in SHOWN:
            read = Serializer().deserialize_entity(RequestContext(), shown)
            self.assertIsInstance(read, objects.ConsoledObject)
            self.assertEqual(shown, Serializer().serialize_entity(RequestContext(), read))

    def test_all_fields_are_shown(self):
        for shown in SHOWN:
            for each in shown_objects(shown):
                fields = ConsoledObjectRegistry.obj_classes()[each['consoled_object.name']][0].fields
                self.assertEqual(list(fields), list(each['consoled_object.data']))

    def test_all_fields_are_explained(self):
        explained = [name for row in table('Objects') for name in test_design.words(row[0])]
        used = {
            name for shown in SHOWN for each in shown_objects(shown) for name in each['consoled_object.data']
        }
        self.assertEqual(sorted(used - {'console', 'objects'}), sorted(explained))

    def test_fields_that_are_left_out_have_the_defaults_that_the_page_names(self):
        (grant,) = (shown for shown in SHOWN if shown['consoled_object.name'] == 'ConsoleAuthToken')
        needed = ('instance_uuid', 'console_type', 'compute_host')
        data = {name: grant['consoled_object.data'][name] for name in needed}
        sparse = {**grant, 'consoled_object.data': data}
        read = Serializer().deserialize_entity(RequestContext(), sparse)
        read = arguments.instance_of(objects.ConsoleAuthToken).check(read)  # as a manager does
        defaults = dict.fromkeys(read.fields) | {'options': {}} | data
        for name, value in defaults.items():
            self.assertEqual(value, getattr(read, name), name)


class ResultsTest(testtools.TestCase):
    def test_clients_read_the_results_that_are_shown(self):
        shown = {
            test_design.words(method)[0]: json.loads(test_design.words(result)[0])
            for method, result in table('Results that are no objects')
        }
        for method, reply in REPLIES.items():
            read = reply.from_wire(shown.pop(method))
            self.assertIsInstance(read, reply, method)
        self.assertEqual({'check_console': True, 'ping': versions.RPC_VERSION}, shown)
