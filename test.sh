#!/usr/bin/env bash
# Makes .venv like reproduce.sh, then runs every check and stops at the first that fails. Works from any folder; needs no git.
#   bash test.sh          everything (the smoke chain takes some minutes)
#   bash test.sh --fast   everything but the smoke chain
set -e
here=$(CDPATH= cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
chain=yes
for argument in "$@"; do
  case $argument in
    --fast) chain=no ;;
    -h|--help) sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "test.sh: unknown option $argument; choose --fast or --help" >&2; exit 2 ;;
  esac
done
. "$here/scripts/venv.sh"
cd "$here"
export MPLBACKEND=Agg TF_CPP_MIN_LOG_LEVEL=2 PYTHONUNBUFFERED=1
unset IN_TEST # nbdev's own variable: nbdev_export does nothing under it
bin=$here/.venv/bin
summary=

step() { # step NAME COMMAND...: announce it, run it, time it; the first failure ends everything
  local name=$1 start=$SECONDS code=0; shift
  echo "test.sh: $name"
  "$@" || code=$?
  if [ "$code" != 0 ]; then
    printf '%s' "$summary"
    echo "test.sh: FAILED after $((SECONDS - start)) s: $name" >&2
    exit 1
  fi
  summary+=$(printf '  ok %4d s  %s' $((SECONDS - start)) "$name")$'\n'
}

step "1 set up .venv" ready_venv "$here"
step "2 notebooks and package in step, notebooks clean" "$bin/python" scripts/check_sync.py
step "3 lock, environment.yml, settings.ini and pyproject.toml agree" "$bin/python" -m pytest tests/test_environment.py
step "4 cells of the API notebooks" "$bin/nbdev_test" --n_workers 2
step "5 pytest" "$bin/python" -m pytest -n 2 --ignore tests/test_environment.py
if [ $chain = yes ]; then
  step "6 smoke chain, twice" "$bin/python" scripts/check_chain.py
else
  summary+="  --        6 smoke chain left out (--fast)"$'\n'
fi
printf '%s' "$summary"
echo "test.sh: all checks passed in $SECONDS s"
