#!/bin/bash
# Tries sweep.sbatch on a Slurm of one node, set up in a temporary folder and taken down again: submits an array of two
# shares, waits for it, merges them. About a minute.
#
#   apt-get install slurmctld slurmd slurm-client munge
#   sudo ./try-on-one-machine.sh [PATH/TO/dirtyrig]
#
# Runs as root, as Slurm's daemons do, and needs /dev/kvm. Nothing outside the folder is touched: its munge and Slurm
# use their own keys, sockets and ports, beside any that the machine has already.

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export DIRTYRIG
DIRTYRIG=$(command -v "${1:-dirtyrig}") || { echo "no dirtyrig: give its path, such as target/release/dirtyrig" >&2; exit 2; }
DIRTYRIG=$(realpath "$DIRTYRIG")
[ "$(id -u)" = 0 ] || { echo "run it as root: slurmd starts jobs for users" >&2; exit 2; }
for tool in munged slurmctld slurmd sbatch; do
    command -v $tool >/dev/null || { echo "no $tool: apt-get install slurmctld slurmd slurm-client munge" >&2; exit 4; }
done

dir=$(mktemp -d /tmp/dirtyrig-slurm.XXXXXX)
pids=()
cleanup() {
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do kill "${pids[i]}" 2>/dev/null && wait "${pids[i]}" 2>/dev/null || true; done
    [ -n "${KEEP:-}" ] || rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
mkdir -p "$dir"/{munge,state,spool}
dd if=/dev/urandom of="$dir/munge/key" bs=1024 count=1 status=none
chmod 700 "$dir/munge" && chmod 600 "$dir/munge/key"
host=$(hostname -s)
cat >"$dir/slurm.conf" <<CONF
ClusterName=trial
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
ReturnToService=2
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=$host Default=YES State=UP OverSubscribe=NO
CONF
# Nothing here is confined by cgroups; older versions load a plugin all the same, newer ones can do without.
if [ -e "$(find /usr/lib -name cgroup_v1.so -path '*slurm*' -print -quit)" ]; then plugin=cgroup/v1; else plugin=disabled; fi
echo "CgroupPlugin=$plugin" >"$dir/cgroup.conf"
export SLURM_CONF=$dir/slurm.conf

munged --foreground --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/munge/pid" \
    --seed-file="$dir/munge/seed" --log-file="$dir/munge/log" 2>>"$dir/daemons.log" &
pids+=($!)
slurmctld -D 2>>"$dir/daemons.log" &
pids+=($!)
slurmd -D 2>>"$dir/daemons.log" &
pids+=($!)
for _ in $(seq 60); do
    [ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ] && break
    sleep 0.5
done
[ "$(sinfo --noheader --format=%t)" = idle ] || { echo "the node doesn't come up:" >&2; tail -n 20 "$dir"/*.log >&2; exit 1; }
sinfo

cat >"$dir/sweep.toml" <<'SWEEP'
ring = [1024, 4096]
quota = [100, 25]
duration = "4s"
memory = 64
SWEEP
cd "$dir"
# --wait returns the array's highest exit code.
sbatch --wait --array=1-2 "$here/sweep.sbatch" "$dir/sweep.toml" 7 "$dir" || { cat "$dir"/dirtyrig-*.log >&2; exit 1; }
"$DIRTYRIG" merge "$dir"/share-* --out "$dir/all"
cells=$(tail -n +2 "$dir/all/summary.csv" | cut -d, -f1 | sort -n | paste -sd' ')
echo "cells merged: $cells"
[ "$cells" = "0 1 2 3" ]
