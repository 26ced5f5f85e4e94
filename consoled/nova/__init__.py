# SPDX-License-Identifier: Apache-2.0
"""Tokens and guests of an unmodified Nova, while ``[nova] connection`` is set.

Nothing else of consoled knows Nova's tables, its RPC interface or its configuration.
"""
