#!/usr/bin/env bash
# Trains, on any machine with CUDA (or, slowly, without), what docs/query-encoders.md cannot train on two cores:
#   part 1: query encoders cut from the teacher, four and six layers, on all of the text
#   part 2: the MiniLM-shaped student for both sides
# Each part resumes where it was stopped, evaluates, and leaves its scores as JSON. So far only the first training of
# part 1 has been run, on a CPU; no GPU has run any of it.
#
#   TEACHER=all-mpnet-base-v2 TEXT=en.jsonl.gz SETS="cranfield scifact" OUT=gpu scripts/gpu_student.sh 1|2
#   LIMIT=5000 TIME=20s … scripts/gpu_student.sh 1      # a dry run on a hundredth of the text
set -euo pipefail

part=${1:?give 1 or 2}
teacher=${TEACHER:-all-mpnet-base-v2}
text=${TEXT:?a file of training texts}
sets=${SETS:?folders of evaluation sets}
out=${OUT:-gpu}
time=${TIME:-90s} # of training, each student; reading the text by the teacher and evaluating come on top
emb=${EMB:-emb}
limit=()
[ -n "${LIMIT:-}" ] && limit=(--set "data.limit=$LIMIT")
data=()
for set in $sets; do data+=(--data "$set"); done

train() { # NAME OPTIONS…: begins, or goes on with, a run
    local run=$out/$1
    shift
    if [ -e "$run/run.json" ]; then
        "$emb" distill --resume --out "$run"
    else
        "$emb" distill --teacher "$teacher" --data "$text" "${limit[@]}" --max-time "$time" --out "$run" "$@"
    fi
    "$emb" evaluate "$run" --teacher "$teacher" "${data[@]}" --dims 768,384,256,128 --cache "$out/vectors" \
        --out "$run/evaluation.json"
}

mkdir -p "$out"
case $part in
    1)
        train layers-4 --for-queries --layers 4 --set training.tokens_per_batch=16384
        train layers-6 --for-queries --layers 6 --set training.tokens_per_batch=16384
        ;;
    2)
        train minilm --recipe minilm --set training.tokens_per_batch=16384
        ;;
    *)
        echo "part $part: give 1 or 2" >&2
        exit 2
        ;;
esac
