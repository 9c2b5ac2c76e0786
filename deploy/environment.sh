# Sourced by deploy/demo and tests/run: makes a virtual environment that holds exactly what constraints.txt names.

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      # Of an activated environment the python that it was made with: we may be about to make that one anew.
      "$candidate" -c 'import sys; print(sys._base_executable)'
      return
    fi
  done
  echo "Python 3.11 or newer with venv is needed (on Debian: apt-get install python3 python3-venv)" >&2
  return 1
}

# make_environment DIRECTORY WHAT: installs WHAT (as pip names it, relative to the project) unless it is there already.
make_environment() {
  local directory=$1 what=$2 python stamp
  python=$(find_python) || exit 1
  stamp=$(cd "$top" && cat pyproject.toml constraints.txt | "$python" -c \
    'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read() + sys.version.encode()).hexdigest())')
  if [ "$(cat "$directory/stamp" 2>/dev/null)" != "$stamp $what" ]; then
    echo "installing into $directory (once) ..." >&2
    rm -rf "$directory"
    "$python" -m venv "$directory"
    (cd "$top" && "$directory/bin/python" -m pip install --quiet --disable-pip-version-check \
      --constraint constraints.txt --editable "$what")
    echo "$stamp $what" >"$directory/stamp"
  fi
}
