# SPDX-License-Identifier: Apache-2.0
"""Tempest, as its release is installed, against a cloud of the tests."""

import os
import pathlib
import shutil
import subprocess

from tests.nova import base, cloud

NOVNC = 'tempest.api.compute.servers.test_novnc'
SERIAL = 'tempest_serial'

_CONF = """
[DEFAULT]
log_file = {directory}/tempest.log
[oslo_concurrency]
lock_path = {directory}
[auth]
use_dynamic_credentials = false
test_accounts_file = {directory}/accounts.yaml
[identity]
auth_version = v3
uri_v3 = {url}/identity/v3
region = RegionOne
v3_endpoint_type = public
[compute]
image_ref = {image}
flavor_ref = {flavor}
build_timeout = 180
min_microversion = 2.93
max_microversion = latest
[compute-feature-enabled]
vnc_console = true
[service_available]
cinder = false
glance = false
neutron = true
swift = false
[validation]
run_validation = false
"""
_ACCOUNT = """
- username: {role}
  project_name: project
  user_domain_name: Default
  project_domain_name: Default
  password: secret
  roles: [{role}]
"""


def python():
    """Return the interpreter that has Tempest. Raises what ``base.python_of`` raises."""
    return base.python_of('.venv-nova-tempest', 'tools/setup-cloud.sh')


def run(nova, *modules):
    """Run the tests of modules with Tempest.

    :param nova: the ``cloud.Cloud``
    :returns: its exit status, and what it has printed
    """
    directory = nova.directory / 'tempest'
    directory.mkdir(exist_ok=True)
    values = {'directory': directory, 'url': nova.url, 'image': cloud.IMAGE, 'flavor': nova.flavor()}
    (directory / 'tempest.conf').write_text(_CONF.format(**values))
    (directory / 'accounts.yaml').write_text(
        ''.join(_ACCOUNT.format(role=role) for role in ('member', 'reader'))
    )
    shutil.copy(pathlib.Path(__file__).with_name(f'{SERIAL}.py'), directory)
    done = subprocess.run(
        [python(), '-W', 'ignore', '-m', 'unittest', '-v', *modules],
        cwd=directory,
        env={
            **os.environ,
            'TEMPEST_CONFIG_DIR': str(directory),
            'GREETING': cloud.GREETING,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    return done.returncode, done.stdout
