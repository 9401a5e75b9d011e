#!/bin/bash
# A cohort on a real Slurm, with everything that goes wrong on clusters: a task killed with -9, one requeued, one at its
# time limit, one cancelled for good, three broken slides, a copy. Then: every good slide done, with the bytes of a run that
# nobody disturbed; the broken ones listed; no process and no claim left.
#
# Call: scripts/cluster_test.sh [--short] BINARY FOLDER   (FOLDER is emptied; set-up: scripts/setup_slurm.sh)
# --short is for `make test`: fewer slides, one kill and one requeue, no time limit (Slurm's are whole minutes).
# Slurm runs on the loopback alone, as this user, with its files in FOLDER/slurm.
set -euo pipefail

short=
[ "${1:-}" = --short ] && { short=1; shift; }
binary=$(readlink -f "$1")
work=$(readlink -m "$2")
here=$(cd "$(dirname "$0")" && pwd)
shared=${WSI_NUCLEI_SHARED:-$here/../../shared}
port=${CLUSTER_TEST_PORT:-$((20000 + $$ % 20000))}

say() { echo "cluster-test: $*"; }
fail() { say "FAILED: $*" >&2; exit 1; }
for program in slurmctld slurmd sbatch munged python3; do
    PATH=$PATH:/usr/sbin command -v $program >/dev/null || fail "no $program: scripts/setup_slurm.sh"
done
export PATH=$PATH:/usr/sbin

rm -rf "$work"
mkdir -p "$work/slurm/"{run,state,spool,log} "$work/slides"
D=$work/slurm

gone() { # whether a process has ended; a zombie has
    local state
    state=$(sed -n 's/^State:\s*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null) || true
    [ -z "$state" ] || [ "$state" = Z ]
}

stop_slurm() {
    if [ -S "$D/run/munge.sock" ] && SLURM_CONF=$D/slurm.conf scontrol ping >/dev/null 2>&1; then
        scancel --user="$(id -un)" 2>/dev/null || true
        for _ in $(seq 100); do [ -z "$(squeue -h 2>/dev/null)" ] && break; sleep 0.2; done
    fi
    for name in slurmd slurmctld munged; do
        pid=$(cat "$D/run/$name.pid" 2>/dev/null) || continue
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 50); do gone "$pid" && break; sleep 0.1; done
        gone "$pid" || kill -9 "$pid" 2>/dev/null || true
    done
}
trap stop_slurm EXIT

start_slurm() {
    local host me force=
    host=$(hostname -s); me=$(id -un)
    [ "$me" = root ] && force=--force
    head -c 1024 /dev/urandom >"$D/munge.key"; chmod 600 "$D/munge.key"
    munged $force --socket="$D/run/munge.sock" --key-file="$D/munge.key" --pid-file="$D/run/munged.pid" \
        --log-file="$D/log/munged.log" --seed-file="$D/munge.seed" --num-threads=2
    cat >"$D/slurm.conf" <<CONF
ClusterName=t$port
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SrunPortRange=$((port + 10))-$((port + 90))
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket=$D/run/munge.sock,cred_expire=5
CredType=cred/munge
SlurmUser=$me
SlurmdUser=$me
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool
SlurmctldPidFile=$D/run/slurmctld.pid
SlurmdPidFile=$D/run/slurmd.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
PropagateResourceLimits=NONE
EnforcePartLimits=ALL
MailProg=/bin/true
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=30
KillWait=3
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
NodeName=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    echo 'CgroupPlugin=cgroup/v1' >"$D/cgroup.conf"
    export SLURM_CONF=$D/slurm.conf
    slurmctld -i -f "$SLURM_CONF"
    for _ in $(seq 100); do scontrol ping 2>/dev/null | grep -q UP && break; sleep 0.1; done
    slurmd -f "$SLURM_CONF" -N "$host"
    for _ in $(seq 100); do [ "$(sinfo -h -o %T)" = idle ] && return; sleep 0.1; done
    fail "Slurm does not start: see $D/log"
}

begun=$SECONDS
say "slides"
good=(p0 p1 p2 p3 p4 p5 p6 p7 p8)
side=1700 least_rows=12 tasks=4
[ -n "$short" ] && { good=(p0 p1 p2 p3); side=900 least_rows=8 tasks=2; }
python3 "$here/cluster_slides.py" "$work/slides" ${#good[@]} $side
cp "$work/slides/p3.tif" "$work/slides/zcopy.tif"
echo 'no slide at all' >"$work/slides/text.svs"
: >"$work/slides/empty.tif"
head -c 9000 "$work/slides/p1.tif" >"$work/slides/cut.tif"
if [ -n "$short" ]; then
    say "short: no real slides"
elif [ -f "$shared/slides/CMU-1-Small-Region.svs" ]; then
    cp "$shared/slides/CMU-1-Small-Region.svs" "$work/slides/real.svs"
    cp "$shared/slides/camelyon_1152x700_jpeg_tiledfull.dcm" "$work/slides/real2.dcm"
    good+=(real real2)
    # Crops of real pixels.
    "$binary" run "$work/slides/real.svs" -o "$work/crops" --model analytic --device cpu --format crops --quiet
    number=0
    while read -r crop && [ $number -lt 2 ]; do
        cp "$crop" "$work/slides/crop$number.png"; good+=("crop$number"); number=$((number + 1))
    done < <(find "$work/crops" -path '*crops/*.png' | sort)
else
    say "skipped: no real slides in $shared"
fi
{ echo path,mpp; for slide in "$work/slides/"*; do
    case $slide in *.png | *.dcm) echo "$slide,0.5";; *) echo "$slide,";; esac; done; } >"$work/cohort.csv"
rows=$(($(wc -l <"$work/cohort.csv") - 1))
[ "$rows" -ge $least_rows ] || fail "only $rows slides"

settings="--device cpu --mask none --tile-size 512 --format json,csv,parquet,report"
say "undisturbed run of $rows slides"
"$binary" run --manifest "$work/cohort.csv" -o "$work/whole" --model analytic $settings --quiet 2>"$work/whole.log" && fail "broken slides went unnoticed"

say "plan"
out="$work/out folder"
# Each patch takes a while, so that there is time to disturb.
model=analytic:${CLUSTER_TEST_DELAY_MS:-100}
"$binary" cohort plan "$work/cohort.csv" -o "$out" --model "$model" $settings --threads 1 --tasks $tasks --at-once 2 \
    --cpus 1 --memory-mib 2500 --minutes 60 --gpus 0 --heartbeat 1 --stale-after 10
start_slurm
array=$(sbatch --parsable "$out/array.sbatch")
merge=$(sbatch --parsable --dependency="afterany:$array" "$out/merge.sbatch")
say "array $array, merge $merge"

# The process of an element that works on a row and has finished tiles there; waits for it.
worker_of() {
    local patience=$((SECONDS + 90)) pid
    while [ $SECONDS -lt $patience ]; do
        pid=$(python3 - "$out/.cohort/claims" "slurm ${array}_$1" <<'PY'
import json, os, sys
for name in os.listdir(sys.argv[1]):
    try:
        claim = json.load(open(os.path.join(sys.argv[1], name)))
    except (OSError, ValueError):
        continue
    if claim["owner"]["job"] == sys.argv[2] and claim["progress"]["mm2_done"] > 0:
        print(claim["owner"]["pid"])
        break
PY
)
        [ -n "$pid" ] && { echo "$pid"; return; }
        sleep 0.3
    done
    fail "element $1 never came to work: $(squeue -h -r)"
}

pid=$(worker_of 0); say "kill -9 of element 0 (process $pid)"; kill -9 "$pid"
worker_of 1 >/dev/null; say "requeue of element 1"; scontrol requeue "${array}_1"
if [ -z "$short" ]; then
    worker_of 2 >/dev/null; say "time limit of element 2"; scontrol update "JobId=${array}_2" TimeLimit=1
    for _ in $(seq 300); do
        restarts=$(scontrol -o show job "${array}_2" | sed -n 's/.*Restarts=\([0-9]*\).*/\1/p')
        [ "${restarts:-0}" -ge 1 ] && break; sleep 0.3
    done
    [ "${restarts:-0}" -ge 1 ] || fail "element 2 was not requeued at its time limit"
    scontrol update "JobId=${array}_2" TimeLimit=60
    "$binary" cohort status "$out"
    worker_of 3 >/dev/null; say "scancel of element 3"; scancel "${array}_3"
fi

patience=$((SECONDS + 400))
while [ -n "$(squeue -h -j "$array,$merge" -t PD,R,CG,CF 2>/dev/null)" ]; do
    [ $SECONDS -lt $patience ] || fail "it does not end: $(squeue -r)"
    sleep 1
done
# Element 0 was killed; 1 and 2 were started again and end with 0, or 1 or 3 where their last rows were broken ones; 3 is cancelled.
# The merge ends with 1: broken rows are missing from it.
ended() { scontrol -o show job "$1" | sed -n 's/.*JobState=\([A-Z]*\).*Restarts=\([0-9]*\).*ExitCode=\([0-9]*\):.*/\1 \2 \3/p'; }
ends=("${array}_0 FAILED 0 137" "${array}_1 [A-Z]* 1 [013]" "$merge FAILED 0 1")
[ -n "$short" ] || ends+=("${array}_2 [A-Z]* [1-9] [013]" "${array}_3 CANCELLED 0 [0-9]*")
for expected in "${ends[@]}"; do
    job=${expected%% *}; found=$(ended "$job")
    say "$job ended as $found"
    [[ $found =~ ^${expected#* }$ ]] || fail "job $job ended as '$found', not as '${expected#* }'"
done
"$binary" cohort status "$out"

# Nobody was left to take the row of whoever ended last? Then status says so, and one more task does it.
if "$binary" cohort status "$out" | grep -q '^missing'; then
    say "rows were left: one more task"
    "$binary" cohort run "$out" --own-only --shard 0/1 || true
fi
"$binary" cohort merge "$out" && fail "merge says that nothing is missing"

say "checks"
for stem in "${good[@]}"; do
    for file in nuclei.json nuclei.csv nuclei.parquet summary.json; do
        cmp "$work/whole/$stem/$file" "$out/$stem/$file" || fail "$stem/$file differs from the undisturbed run"
    done
done
python3 - "$out" "${good[@]}" <<'PY'
import csv, json, os, sys
out, good = sys.argv[1], set(sys.argv[2:])
rows = {row["stem"]: row for row in json.load(open(f"{out}/cohort.json"))["rows"]}
names = os.listdir(f"{out}/.cohort/rows")
records = [json.load(open(f"{out}/.cohort/rows/{name}")) for name in names]
assert len({record["row"] for record in records}) == len(records), f"two records of one row: {sorted(names)}"
done = {record["stem"] for record in records if record["state"] == "done"}
copies = {stem for stem, row in rows.items() if row["duplicate_of"] is not None}
assert copies == {"zcopy"}, copies
assert done == good, (done, good)
failures = {row["slide"]: row for row in csv.DictReader(open(f"{out}/merged/failures.csv"))}
assert set(failures) == {"text", "empty", "cut"} | copies, failures
for stem in ("text", "empty", "cut"):
    assert failures[stem]["state"] == "failed" and failures[stem]["reason"], failures[stem]
merged = {row["slide"]: row for row in csv.DictReader(open(f"{out}/merged/slides.csv"))}
assert set(merged) == done
for stem in done:
    assert os.path.isfile(f"{out}/merged/nuclei/slide={stem}/nuclei.parquet"), stem
claims = os.listdir(f"{out}/.cohort/claims")
assert not [name for name in claims if not name.startswith(".now")], f"claims are left: {claims}"
print(f"cluster-test: {len(done)} slides done, {len(failures)} listed, {len(records)} records")
PY
for process in /proc/[0-9]*; do
    if { tr "\\0" " " <"$process/cmdline"; } 2>/dev/null | grep -qF "cohort run $out"; then fail "a process is left: $process"; fi
done
say "passed in $((SECONDS - begun)) s"
