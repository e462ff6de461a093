#!/usr/bin/env bash
# Proves that the models can fail: each patch in mutants/ seeds one bug into a copy of the tree; the model it
# names must report it, with the message it names: under loom, or, where it says `# under: shuttle`, there. What no model can reach (the
# death of a worker, real time), a unit test reports: `# native:` has the arguments of its `cargo test`. `mutants.sh NAME..` runs only
# those. As many at once as there are processors, four at most (`JOBS`): a model runs on one.
set -uo pipefail
cd "$(dirname "$0")/.."
unset RUSTFLAGS FOREBAY_SCHEDULES FOREBAY_SEED $(compgen -e SHUTTLE_ || true)
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
targets=${CARGO_TARGET_DIR:-$PWD/loom-tests/target}/mutants
cores=$(nproc 2>/dev/null || echo 2)
jobs=${JOBS:-$((cores < 4 ? cores : 4))}
# One tree a job for all, changed and changed back, so that little is compiled again: half the time.
export CARGO_INCREMENTAL=1

names=()
for patch in loom-tests/mutants/*.patch; do
    name=$(basename "$patch" .patch)
    [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
    names+=("$name")
done

# The patch at hand, which the functions below read.
tree="" name="" patch="" expected="" native="" under=""

report() { # MODEL: prints one line; fails unless it reported the bug
    local model=$1 file features out status
    if [ -n "$native" ]; then
        # shellcheck disable=SC2086 # arguments
        out=$(cd "$tree" && timeout 300 cargo test --quiet $native "$model" 2>&1)
    else
        # Two checkers may have a model of one name: a file of its own comes first under shuttle.
        file=$(basename "$(cd "$tree/loom-tests/$under" && grep -sl "^fn $model()" tests/*.rs ../tests/*.rs | head -1)" .rs)
        # Only what the model needs: a bus and a task take longer to build than the core.
        features=$(case $file in bus | task) echo "$file" ;; pooled_bus) echo bus ;; esac)
        out=$(cd "$tree/loom-tests/$under" && timeout 300 cargo test --quiet --profile mutants --no-default-features \
            --features "$features ${under:-}" --test "$file" -- --exact "$model" 2>&1)
    fi
    status=$?
    if grep -q '^error.*could not compile' <<<"$out"; then
        echo "BROKEN    $name: does not compile"; grep -m3 '^error' <<<"$out"; return 1
    elif [ $status -eq 0 ]; then
        echo "SURVIVED  $name: $model does not see it"; return 1
    elif grep -qE "$expected" <<<"$out"; then
        echo "killed    $name by $model: $expected"
    else
        echo "WRONG     $name: $model failed without /$expected/"; tail -5 <<<"$out"; return 1
    fi
}

check() { # NAME: fails unless each model that the patch names reported the bug
    local model failed=0
    name=$1 patch=$PWD/loom-tests/mutants/$1.patch
    expected=$(sed -n 's/^# expect: //p' "$patch")
    native=$(sed -n 's/^# native: //p' "$patch") under=$(sed -n 's/^# under: //p' "$patch")
    if ! (cd "$tree" && patch -s -p1 --dry-run <"$patch" && patch -s -p1 <"$patch") >/dev/null; then
        echo "STALE     $name: does not apply"; return 1
    fi
    for model in $(sed -n 's/^# test: //p' "$patch"); do report "$model" || failed=1; done
    (cd "$tree" && patch -s -R -p1 <"$patch") || exit 2
    return $failed
}

job() { # NUMBER: every name whose turn it is
    local number=$1 failed=0 place
    tree=$work/$1
    mkdir "$tree"
    git ls-files -z | tar --null -T - -c | tar -x -m -C "$tree"
    export CARGO_TARGET_DIR=$targets-$number
    for ((place = number; place < ${#names[@]}; place += jobs)); do
        check "${names[place]}" || failed=1
    done
    return $failed
}

running=() bad=0
for ((number = 0; number < jobs; number++)); do job "$number" & running+=($!); done
for pid in "${running[@]}"; do wait "$pid" || bad=1; done
[ $bad -ne 0 ] || echo "${#names[@]} mutants killed"
exit $bad
