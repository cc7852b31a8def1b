# Environments of Python for the checks that need one of its packages. Sourced, not run.
# shellcheck shell=bash

# Prints the Python that has a package, from an environment under the user's cache folder. Needs python3, and pip only
# the first time: PACKAGE VERSION MODULE
python_with() {
  local environment="${XDG_CACHE_HOME:-$HOME/.cache}/meanwhile/$1-$2"
  if ! "$environment/bin/python" -c "import $3" 2>/dev/null; then
    echo "$(basename "$0"): installing $1 $2 into $environment" >&2
    rm -rf "$environment"
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet --disable-pip-version-check "$1==$2"
  fi
  echo "$environment/bin/python"
}
