#!/usr/bin/env bash
# Proves that the models can fail: each patch in mutants/ seeds one bug into a copy of the tree; the model it
# names must report it, with the message it names. `mutants.sh NAME..` runs only those.
set -uo pipefail
cd "$(dirname "$0")/.."
unset RUSTFLAGS
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/loom-tests/target/mutants}
# One tree for all, changed and changed back, so that little is compiled anew: half the time.
export CARGO_INCREMENTAL=1
mkdir "$work/tree"
git ls-files -z | tar --null -T - -c | tar -x -m -C "$work/tree"
bad=0 killed=0
for patch in "$PWD"/loom-tests/mutants/*.patch; do
    name=$(basename "$patch" .patch)
    [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
    model=$(sed -n 's/^# test: //p' "$patch") expected=$(sed -n 's/^# expect: //p' "$patch")
    if ! (cd "$work/tree" && patch -s -p1 --dry-run <"$patch" && patch -s -p1 <"$patch"); then
        echo "STALE     $name: does not apply"; bad=1; continue
    fi
    out=$(cd "$work/tree/loom-tests" && timeout 300 cargo test --quiet --release --test protocol -- --exact "$model" 2>&1)
    status=$?
    (cd "$work/tree" && patch -s -R -p1 <"$patch") || exit 2
    if grep -q '^error.*could not compile' <<<"$out"; then
        echo "BROKEN    $name: does not compile"; grep -m3 '^error' <<<"$out"; bad=1
    elif [ $status -eq 0 ]; then
        echo "SURVIVED  $name: $model does not see it"; bad=1
    elif grep -qE "$expected" <<<"$out"; then
        echo "killed    $name by $model: $expected"; killed=$((killed + 1))
    else
        echo "WRONG     $name: $model failed without /$expected/"; tail -5 <<<"$out"; bad=1
    fi
done
echo "$killed mutants killed"
exit $bad
