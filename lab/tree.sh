#!/bin/bash
# A tree of another Debian, for what this one does not have: lab/tree.sh SUITE FOLDER PACKAGE...
#   lab/tree.sh sid /var/lib/tandem-sid asterisk          a PBX that nobody here wrote (Asterisk 22)
#   lab/tree.sh trixie /var/lib/tandem-trixie kamailio,kamailio-extra-modules,kamailio-tls-modules
set -eu
[ $# -ge 3 ] || { echo "usage: lab/tree.sh SUITE FOLDER PACKAGE[,PACKAGE...]" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "tandem: only root can make a tree" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "tandem: debootstrap is not installed; run: apt-get install debootstrap" >&2; exit 1; }
exec debootstrap --variant=minbase --include="$3" "$1" "$2"
