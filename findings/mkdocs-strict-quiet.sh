#!/usr/bin/env bash
# `mkdocs build --strict --quiet` builds a site with broken links, and its status is 0.
#
# Seen with mkdocs 1.6.1 (and the `readthedocs` theme that it brings), Python 3.11. `--strict` counts the warnings that
# pass the logger `mkdocs`; `--quiet` raises that logger's level to ERROR, so none passes, and none is counted. Without
# `--quiet` the same build ends with "Aborted with 1 warnings in strict mode!" and status 1. A good guess would have been
# that quiet says less about a failure, and still fails.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/home"
"$folder/home/bin/pip" install --quiet --disable-pip-version-check mkdocs==1.6.1
mkdir "$folder/docs"
cd "$folder"
printf 'site_name: n\ntheme: readthedocs\n' >mkdocs.yml
printf '# Page\n\n[nowhere](missing.md)\n' >docs/index.md

status() { "$folder/home/bin/mkdocs" build "$@" >output 2>&1 && echo 0 || echo $?; }
strict=$(status --strict)
grep --quiet 'Aborted with 1 warnings' output
quiet=$(status --strict --quiet)
echo "--strict: status $strict; --strict --quiet: status $quiet, output $(wc -c <output) bytes"
[ "$strict" = 1 ] && [ "$quiet" = 0 ]
