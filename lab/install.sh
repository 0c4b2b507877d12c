#!/bin/bash
# Everything `make demo` and `make test` need on a bare Debian: packages, a virtual environment, the locked libraries.
# Quick when nothing is missing. Each failure is one line that says what to do.
set -u
cd "$(dirname "$0")/.."

die() { echo "tandem: $*" >&2; exit 1; }

[ -r /etc/debian_version ] || die "this set-up knows Debian only; install the packages listed in lab/install.sh by hand, then make a virtual environment in .venv"

packages=(
  ca-certificates python3 python3-venv iproute2
  kamailio kamailio-extra-modules kamailio-tls-modules
  rtpengine-daemon
  sip-tester baresip-core tshark espeak-ng sox postgresql
)
case " $* " in *" bench "*) packages+=(nodejs npm gcc libc6-dev) ;; esac
missing=()
for package in "${packages[@]}"; do
  # A program that is there already (another Python, another Node) is as good as Debian's package of it.
  case $package in
    nodejs) command -v node >/dev/null && continue ;;
    npm) command -v npm >/dev/null && continue ;;
    postgresql) command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && continue ;;
    python3 | python3-venv) python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && continue ;;
  esac
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  [ "$(id -u)" = 0 ] || die "these Debian packages are missing and only root can install them; run: sudo apt-get install ${missing[*]}"
  echo "tandem: installing Debian packages: ${missing[*]}" >&2
  log=$(mktemp)
  export DEBIAN_FRONTEND=noninteractive
  # Services that Debian would start on installation are not wanted: the lab runs its own.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
    trap 'rm -f $policy' EXIT
  fi
  { apt-get update -q && apt-get install -y -q --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 ||
    die "apt-get could not install ${missing[*]}: $(grep -m1 '^E:' "$log" || tail -n1 "$log") (whole log: $log)"
  rm -f "$log"
fi

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "Python 3.11 or newer is needed, this is $(python3 --version 2>&1)"
wanted=$(cat requirements.lock pyproject.toml lab/install.sh | sha256sum | cut -c1-64)
if [ "$(cat .venv/.tandem 2>/dev/null)" != "$wanted" ]; then
  echo "tandem: making the virtual environment .venv" >&2
  [ -x .venv/bin/python ] || python3 -m venv .venv || die "python3 -m venv failed; run: apt-get install python3-venv"
  log=$(mktemp)
  { .venv/bin/python -m pip install -q --disable-pip-version-check -r requirements.lock &&
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .; } >"$log" 2>&1 ||
    die "pip could not install the locked libraries: $(grep -m1 '^ERROR' "$log" || tail -n1 "$log") (whole log: $log)"
  rm -f "$log"
  echo "$wanted" >.venv/.tandem
fi
