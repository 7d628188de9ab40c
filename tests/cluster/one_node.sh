#!/usr/bin/env bash
# A SLURM cluster of one node from Debian's packages, without accounting; a part of the profile smoke on it; a job that
# is cancelled and yet finishes. For a machine to spare: it writes /etc/slurm and starts munged, slurmctld and slurmd.
#   apt-get install slurm-wlm munge
#   .venv/bin/pip install -c requirements.lock -e ".[cluster]"
#   sudo tests/cluster/one_node.sh
# Exit 0: it works; 77: skipped, with the reason; 1: it does not work.
set -euo pipefail
cd "$(dirname "$0")/../.."

skip() { echo "skipped: $1"; exit 77; }
fail() { echo "failed: $1" >&2; exit 1; }

python=${PYTHON:-.venv/bin/python}
for program in slurmctld slurmd sbatch squeue scancel munged; do
  command -v "$program" >/dev/null || PATH=$PATH:/usr/sbin command -v "$program" >/dev/null ||
    skip "no $program; apt-get install slurm-wlm munge"
done
if [ -e /etc/slurm/slurm.conf ] && ! grep -qx "ClusterName=one" /etc/slurm/slurm.conf; then
  skip "this machine belongs to another cluster, as /etc/slurm/slurm.conf says"
fi
[ "$(id -u)" = 0 ] || skip "daemons of SLURM are started by root"
"$python" -c "import snakemake_executor_plugin_slurm" 2>/dev/null ||
  skip "no executor for SLURM; pip install -c requirements.lock -e '.[cluster]'"
export PATH=$PATH:/usr/sbin

# ---------------------------------------------------------------------------------------------------------- the cluster
host=$(hostname -s)
[ -s /etc/munge/munge.key ] || { dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none; }
chown munge: /etc/munge/munge.key && chmod 400 /etc/munge/munge.key
install -d -o munge -g munge /run/munge
install -d /etc/slurm /var/spool/slurmctld /var/spool/slurmd
cat > /etc/slurm/slurm.conf <<CONF
ClusterName=one
SlurmctldHost=$host
SlurmUser=root
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MinJobAge=300
ReturnToService=2
NodeName=$host CPUs=$(nproc) RealMemory=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo) State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:8
CONF
pgrep -x munged >/dev/null || runuser -u munge -- munged
pgrep -x slurmctld >/dev/null || slurmctld
pgrep -x slurmd >/dev/null || slurmd
for _ in $(seq 30); do
  sinfo --noheader --format=%T 2>/dev/null | grep -q idle && break
  sleep 1
done
sinfo --noheader --format=%T | grep -q idle || fail "the node does not become idle: $(sinfo 2>&1)"

# ------------------------------------------------------------------------------------------------------------- the runs
runs="zero-fill-s0 dropout-unet-s0"
records=$(for run in $runs; do echo "build/results/smoke/segmentation/$run/record.json"; done)
rm -f $records
PROFILE=smoke PATH=$(dirname "$(realpath "$python")"):$PATH timeout 1800 \
  "$python" -m pipeline book --profile profiles/slurm --config gpus=false --group-components short=1 -- $records &
pipeline=$!

# the first job of a run that is seen at work is cancelled, as a node that fails or a time limit would end it
cancelled=
for _ in $(seq 600); do
  cancelled=$(squeue --noheader --states=R --format="%i %k" | awk '/short|run/ {print $1; exit}')
  [ -n "$cancelled" ] && break
  kill -0 $pipeline 2>/dev/null || break
  sleep 1
done
[ -n "$cancelled" ] || fail "no run was seen in the queue"
sleep 5
scancel "$cancelled"
wait $pipeline || fail "the pipeline ended with an error after job $cancelled was cancelled"
for record in $records; do
  [ -s "$record" ] || fail "$record is not there"
done
echo "passed: job $cancelled was cancelled, and all runs are finished"
