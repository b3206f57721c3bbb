#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Makes configure from configure.ac; needed in a git checkout, not in a release.
set -e
cd "$(dirname "$0")"
exec autoreconf --install --force --warnings=all
