#!/bin/bash
# Installs Slurm's daemons for tests from Debian, where that is safe: as root in a container or on a build machine. Nothing
# of it is started: tests start their own Slurm, on the loopback alone. Elsewhere it says what to do. Never fails.
#
# Call: scripts/setup_slurm.sh [--only-as-root]   (with it, `sudo` is not asked for: `make test` calls it so)
set -euo pipefail
export PATH=$PATH:/usr/sbin

packages=(slurmctld slurmd slurm-client munge)
say() { echo "setup-slurm: $*"; }
has_all() {
    local program
    for program in slurmctld slurmd sbatch munged; do command -v $program >/dev/null || return 1; done
}

has_all && exit 0
command -v apt-get >/dev/null || { say "this is not Debian: install ${packages[*]} with your package manager"; exit 0; }
root=()
if [ "$(id -u)" != 0 ]; then
    [ "${1:-}" != --only-as-root ] && command -v sudo >/dev/null || { say "not root: apt-get install ${packages[*]}"; exit 0; }
    root=(sudo)
fi
# A machine that runs systemd is somebody's: daemons are not put there unasked.
if [ "${1:-}" = --only-as-root ] && [ -d /run/systemd/system ]; then
    say "left alone, this machine has systemd: apt-get install ${packages[*]}"
    exit 0
fi
# Debian starts daemons as it installs them, unless this file says no.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap '"${root[@]}" rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee $policy >/dev/null
    "${root[@]}" chmod 755 $policy
fi
say "installing ${packages[*]}"
{ "${root[@]}" apt-get update -qq &&
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null; } ||
    say "could not install them: tests on Slurm say 'skipped'"
