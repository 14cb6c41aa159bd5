# Sourced by scripts that work from the checkout's root, wherever they are called.

# usage: what the script says of itself at its beginning
usage() {
  local file=$0
  [ -f "$file" ] || file="$OLDPWD/$0" # it was called from there
  sed -n '2,/^[^#]/{/^#SBATCH/d;s/^# \{0,1\}//p;}' "$file"
}

# Paths in variables are meant from where the script was called, as on any command line.
from_the_caller() {
  local name
  [ "$OLDPWD" != "$PWD" ] || return 0
  for name in "$@"; do
    case "${!name:-/}" in
      /*) ;;
      *) printf -v "$name" %s "$OLDPWD/${!name}" ;;
    esac
  done
}

default_python() {
  if [ -x .venv/bin/python ]; then echo .venv/bin/python; else echo python; fi
}
