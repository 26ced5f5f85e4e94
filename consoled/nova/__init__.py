# SPDX-License-Identifier: Apache-2.0
"""An unmodified Nova: its tokens and guests, and its configuration. Loaded only while ``[nova]`` names them.

Nothing else of consoled knows Nova's tables, its RPC interface or its configuration.
"""
