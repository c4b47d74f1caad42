#!/usr/bin/env bash
# Trains on a machine with one CUDA GPU (without, slowly) what two cores are too few for, in two parts of seven minutes:
#   part 1: encoders for queries, cut from the teacher: no layers, then six with exits at 1, 2 and 4
#   part 2: the MiniLM-shaped student for both sides: its closed-form start, then trained
# In each part the teacher encodes the text in the first run, which is short; the second trains in what is left of the
# part's time. Whatever is finished is scored on SETS in the time kept for that, and the scores are OUT/layers-6.json
# and OUT/minilm.json. A part that ran out of time (status 124) or was stopped goes on when it is called again, with
# the same text; one that is finished says so. No GPU has run it yet. On a CPU, with LIMIT=2000 and LIMIT=1000, both
# parts came to their end, killed and called again on the way; the sets were 12 documents each.
#
#   TEACHER=all-mpnet-base-v2 TEXT=en.jsonl.gz SETS="cranfield scifact" OUT=gpu scripts/gpu_student.sh 1|2
#   LIMIT=2000 TOKENS=1024 TIME=20 BUDGET=1200 … scripts/gpu_student.sh 1     # a dry run on a CPU
set -euo pipefail

part=${1:?give 1 or 2}
teacher=${TEACHER:-all-mpnet-base-v2}
text=${TEXT:?a file of training texts}
read -ra sets <<<"${SETS:?folders of evaluation sets}"
out=${OUT:-gpu}
budget=${BUDGET:-420} # seconds of this call
keep=${KEEP:-75}      # of them for the evaluation, and as many for the second run to read its text
tokens=${TOKENS:-16384}
emb=${EMB:-emb}
limit=(${LIMIT:+--set "data.limit=$LIMIT"})

say() { echo "part $part, $SECONDS of $budget s: $*" >&2; }
finished() { grep -qs '"status": "finished"' "$out/$1/run.json"; }

child=
within() { # SECONDS COMMAND…: told once, with SIGTERM, to end when they are over or this script is stopped
    [ "$1" -gt 0 ] || return 124
    timeout --foreground "$@" & # in the background, or the trap would wait for its end
    child=$!
    wait "$child"
}
stopped() {
    [ -z "$child" ] || { kill "$child" && wait "$child"; } || true
    say "stopped: the same call goes on"
    exit 143
}
trap stopped INT TERM

train() { # RUN SECONDS OPTIONS…: begins a run, or goes on with it, and trains so long; status 124: out of time
    local run=$1 seconds=${2%s}
    local new=(--teacher "$teacher" --data "$text" --max-time "$seconds" "${limit[@]}" "${@:3}")
    finished "$run" && return
    if [ -e "$out/$run/run.json" ]; then
        say "$run goes on"
        new=(--resume)
    elif [ "$seconds" -lt 10 ]; then
        return 124 # too little to begin with
    else
        say "$run begins, with at most $seconds s of training"
    fi
    within $((budget - keep - SECONDS)) "$emb" distill "${new[@]}" --out "$out/$run"
}

at_every() { # LAYERS…: the pairs of a student, each with the dims that are scored
    local all=
    for layers; do for dim in 128 256 384 768; do all+="[$layers,$dim],"; done; done
    echo "pairs=[$all]"
}

common=(--set "capture.tokens_per_batch=$tokens")
long=(--set "training.tokens_per_batch=$tokens" --set training.epochs=50 --set training.evaluate_every=1000
    --set training.checkpoint_seconds=60)
case $part in
    1)
        short=(static --for-queries --layers 0)
        sides=(--side asymmetric) # these encode no documents
        main=(layers-6 --for-queries --layers 6 --set "$(at_every 1 2 4 6)" "${long[@]}")
        ;;
    2)
        short=(closed-form --recipe minilm --set training.epochs=0)
        sides=()
        main=(minilm --recipe minilm "${long[@]}")
        ;;
    *)
        echo "part $part: give 1 or 2" >&2
        exit 2
        ;;
esac
scores=$out/${main[0]}.json
if finished "${main[0]}" && [ "$scores" -nt "$out/${main[0]}/run.json" ]; then
    say "finished: $scores"
    exit
fi

mkdir -p "$out"
status=0
train "${short[0]}" "${TIME:-60}" "${common[@]}" "${short[@]:1}" || status=$?
if [ "$status" = 0 ]; then
    train "${main[0]}" "${TIME:-$((budget - 2 * keep - SECONDS))}" "${common[@]}" "${main[@]:1}" || status=$?
fi
[ "$status" = 0 ] || [ "$status" = 124 ] || exit "$status"

done=()
for run in "${short[0]}" "${main[0]}"; do finished "$run" && done+=("$out/$run"); done
if [ ${#done[@]} -gt 0 ]; then
    say "scores of ${done[*]}"
    within $((budget - SECONDS)) "$emb" evaluate "${done[@]}" --teacher "$teacher" "${sets[@]/#/--data=}" \
        "${sides[@]}" --dtype auto --dims 768,384,256,128 --cache "$out/vectors" --out "$scores" || status=$?
fi
[ "$status" = 124 ] && say "out of time: the same call goes on"
[ "$status" = 0 ] && say "finished: $scores"
exit "$status"
