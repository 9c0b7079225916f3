# Sourced by reproduce.sh and test.sh. `ready_venv FOLDER` makes FOLDER/.venv complete; it costs well under 0.3 s when it already is.

# Written so that any Python can read it, however old.
_probe='import sys
if not (3, 11) <= sys.version_info[:2] < (3, 14): sys.exit(3)
try: import ensurepip, venv
except ImportError: sys.exit(4)'

_refuse() { echo "medcrypt: $1" >&2; return 1; }

# Sets _python to the first Python that can make the environment. 3.11 comes first: the committed results were made with it.
_find_python() {
  local name code old= bare=
  for name in "${PYTHON:-python3.11}" python3.12 python3.13 python3 python; do
    code=0; "$name" -c "$_probe" >/dev/null 2>&1 || code=$?
    case $code in
      0) _python=$name; return 0 ;;
      3) old=${old:-$name} ;;
      4) bare=${bare:-$name} ;;
    esac
    if [ -n "${PYTHON:-}" ]; then
      [ "$code" = 3 ] || [ "$code" = 4 ] || { _refuse "PYTHON=$PYTHON does not run: set it to Python 3.11, 3.12 or 3.13"; return 1; }
      break
    fi
  done
  if [ -n "$bare" ]; then
    _refuse "$bare has no venv or ensurepip module: install it (Debian and Ubuntu: the package python3-venv) or set PYTHON to another Python"
  elif [ -n "$old" ]; then
    _refuse "$old is Python $("$old" -c 'import sys; print("%d.%d" % sys.version_info[:2])'): install Python 3.11, 3.12 or 3.13, or set PYTHON to one"
  else
    _refuse "no Python found: install Python 3.11, 3.12 or 3.13, or set PYTHON to one"
  fi
}

ready_venv() {
  if "$1/.venv/bin/python" -I -S "$1/scripts/venv.py" check >/dev/null 2>&1; then return 0; fi
  _find_python && "$_python" -I "$1/scripts/venv.py" make
}
