#!/bin/bash
# A tree of another Debian, for what this one does not have, from the mirror that this machine uses; nothing where it is there:
# lab/tree.sh SUITE FOLDER PACKAGE[,PACKAGE...]
#   lab/tree.sh sid /var/lib/tandem-sid asterisk          a PBX that nobody here wrote (Asterisk 22)
#   lab/tree.sh trixie /var/lib/tandem-trixie kamailio,kamailio-extra-modules,kamailio-tls-modules
set -eu
[ $# -eq 3 ] || { echo "usage: lab/tree.sh SUITE FOLDER PACKAGE[,PACKAGE...]" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "tandem: only root can make a tree" >&2; exit 1; }
if [ -d "$2/var/lib/dpkg" ]; then
  chroot "$2" dpkg-query -W ${3//,/ } >/dev/null 2>&1 && exit 0
  echo "tandem: $2 is no whole tree with $3; remove it" >&2
  exit 1
fi
command -v debootstrap >/dev/null || { echo "tandem: debootstrap is not installed; run: apt-get install debootstrap" >&2; exit 1; }
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Component: main' | grep -v security | head -n1)
exec debootstrap --variant=minbase --include="$3" "$1" "$2" $mirror
