#!/usr/bin/env bash
# A Slurm of one node on this machine, without systemd, for as long as a command runs.
#
#   sudo apt-get install slurm-wlm munge
#   sudo recipes/cluster/local_slurm.sh bash -c 'sbatch --wait --array=1-2 recipes/cluster/array.sbatch …'
set -eu
folder=$(mktemp -d)
name=$(hostname -s)
cores=$(nproc)
export SLURM_CONF=$folder/slurm.conf
cat > "$SLURM_CONF" <<CONF
ClusterName=local
SlurmctldHost=$name(127.0.0.1)
SlurmUser=root
SlurmctldPort=${SLURMCTLD_PORT:-16817}
SlurmdPort=${SLURMD_PORT:-16818}
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SchedulerParameters=sched_interval=2,batch_sched_delay=0,requeue_delay=1
KillWait=30
AuthInfo=cred_expire=5
NodeName=$name NodeAddr=127.0.0.1 CPUs=$cores State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
mkdir "$folder/state" "$folder/spool"
children=()
finish() {
    for child in "${children[@]}"; do kill "$child" 2> /dev/null || true; done
    wait || true
    rm -rf "$folder"
}
trap finish EXIT
if ! munge -n > /dev/null 2>&1; then
    install -d -o munge -g munge -m 0755 /run/munge
    runuser -u munge -- munged --foreground > /dev/null 2>&1 &
    children+=($!)
    until munge -n > /dev/null 2>&1; do sleep 0.2; done
fi
slurmctld -D > "$folder/slurmctld.log" 2>&1 &
children+=($!)
slurmd -D -N "$name" > "$folder/slurmd.log" 2>&1 &
children+=($!)
for _ in $(seq 120); do
    [ "$(sinfo -h -o %t 2> /dev/null)" = idle ] && break
    sleep 0.5
done
if [ "$(sinfo -h -o %t)" != idle ]; then
    tail -n 5 "$folder"/*.log >&2
    exit 1
fi
"$@"
