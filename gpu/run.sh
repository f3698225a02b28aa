#!/usr/bin/env bash
# Runs a bundle's checks and its benchmark, each within a time limit and whatever became of the others. Ends with a
# table, and a JSON record in $OUT (or ./record). With --simulate: on the simulated GPU, without torch.
set -uo pipefail
cd "$(dirname "$0")"
simulate=no
[ "${1:-}" = --simulate ] && simulate=yes
record=${OUT:-$PWD/record}
budget_seconds=${XQKV_BUNDLE_SECONDS:-520}
mkdir -p "$record/logs"
: >"$record/steps.tsv"
PATH="$PATH:/usr/local/cuda/bin"
export LD_LIBRARY_PATH="$PWD/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export XQKV_LIBRARY_PATH="$PWD/lib/libxqkv.so" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

note() { # name, verdict, seconds
    printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$record/steps.tsv"
    printf '%-34s %-12s %4s s\n' "$1" "$2" "$3"
}

verdict_of() { # exit status
    case $1 in
        0) echo passed ;;
        124 | 137) echo "TIME LIMIT" ;;
        *) echo "FAILED ($1)" ;;
    esac
}

step() { # name, most seconds, command...
    local name=$1 limit=$2 left=$((budget_seconds - SECONDS)) begin=$SECONDS
    shift 2
    [ "$left" -lt "$limit" ] && limit=$left
    if [ "$limit" -lt 2 ]; then
        note "$name" "NO TIME" 0
        return
    fi
    timeout -k 2 "$limit" "$@" >"$record/logs/${name//[ \/]/_}.log" 2>&1 </dev/null
    note "$name" "$(verdict_of $?)" $((SECONDS - begin))
}

libraries() {
    if [ "$simulate" = yes ]; then
        export XQKV_CUDA_LIBRARY="$PWD/lib/libgpusim.so" XQKV_CUBLASLT_LIBRARY="$PWD/lib/libgpusim.so"
        export XQKV_NCCL_LIBRARY="${XQKV_NCCL_LIBRARY-$PWD/lib/libgpusim.so}"
        # Speed is not what it shows, so the suite does less of the same.
        export GPUSIM_REPORT="$record/gpusim.jsonl" XQKV_TEST_IS_SLOW=1
        : >"$GPUSIM_REPORT"
    else
        eval "$(python3 find_libraries.py)"
    fi
    eval "$(python3 nccl_version.py)"
}

c_suite() {
    local scratch program
    for program in ctests/*; do
        scratch=$(mktemp -d)
        step "${program#*/}" 60 env XQKV_TEST_BACKEND=cuda "$program" "$PWD/fixtures/whisper" "$scratch"
        rm -rf "$scratch"
    done
}

verify() {
    local fixture ranks
    for fixture in fixtures/*; do
        for ranks in 1 2 3 4; do
            step "verify ${fixture#*/} ranks $ranks" 30 \
                bin/xqkv verify "$fixture" --ranks "$ranks" --backend cuda
        done
        step "verify ${fixture#*/} layouts" 60 bin/xqkv verify "$fixture" --ranks 3 --backend cuda \
            --layout all --layers-at-once --row-list --scale --norm
    done
}

# Ranks in one process, joined by the NCCL that was found: one has the GPU alone, two share it where NCCL can.
nccl() {
    local together=(--gather --encoder-sharded --chunk-rows 5 --share-replicas) fixture ranks flags
    for ranks in 1 2; do
        for fixture in fixtures/*; do
            for flags in plain together; do
                nccl_verify "$fixture" "$ranks" "$flags"
            done
        done
    done
}

nccl_verify() { # fixture, ranks, plain or together
    local name="nccl ${1#*/} ranks $2 $3" flags=()
    [ "$3" = together ] && flags=("${together[@]}")
    if [ "$NCCL_VERSION_FOUND" = 0 ] || { [ "$2" = 2 ] && [ -n "$NCCL_SHARED_GPU_SKIPPED" ]; }; then
        note "$name" "$NCCL_SHARED_GPU_SKIPPED" 0
    else
        step "$name" 40 env NCCL_MULTI_RANK_GPU_ENABLE=1 bin/xqkv verify "$1" --backend cuda --comm nccl \
            --ranks "$2" --devices 1 "${flags[@]}"
    fi
}

sanitizer() {
    local tool=${COMPUTE_SANITIZER:-compute-sanitizer} kind
    if ! command -v "$tool" >/dev/null; then
        note compute-sanitizer "not there" 0
        return
    fi
    for kind in memcheck racecheck; do
        step "sanitizer $kind" 60 "$tool" --tool "$kind" --error-exitcode 9 \
            bin/xqkv verify fixtures/whisper --ranks 2 --backend cuda --layout all --norm
    done
}

simulated_violations() { # there are reports, and none has one, or something left alive
    [ -s "$GPUSIM_REPORT" ] && ! grep -Evq '"violations":\[\],"live":\{("[^"]*":0,?)*\}' "$GPUSIM_REPORT"
}

libraries
step info 20 bash -c 'bin/xqkv info | tee /dev/stderr | grep -q "CUDA backend *device"'
verify
nccl
step "1000 replays" 60 python3 replay.py
# As many rules differ as the exit status says; the log has both answers to each.
step rules 30 python3 rules.py --compare lib/libgpusim.so
c_suite
if [ "$simulate" = yes ]; then
    export -f simulated_violations
    step "gpusim violations" 10 bash -c simulated_violations
else
    sanitizer
    step benchmark 240 python3 bench.py --seconds 220 --output "$record/bench.json"
fi
python3 record.py "$record" "$simulate"
