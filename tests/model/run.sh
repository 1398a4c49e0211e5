#!/bin/sh
# Model check of the ring's and the bell's memory orders with spin: builds and runs every variant.
# A right variant must show no error in an exhausted search; a wrong one (an order weakened, a step
# left out) must show an error, which proves that the model would see it.
# Exit 0: all as expected; 1: not; 77: skipped, spin or a compiler is not installed.
set -u

here=$(cd "$(dirname "$0")" && pwd)
for tool in spin "${CC:-cc}"; do
    if ! command -v "$tool" >/dev/null 2>&1; then
        echo "skipped: $tool not installed"
        exit 77
    fi
done
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
failed=0

# check EXPECTED MODEL DEFINES...: EXPECTED is "holds" or "breaks".
check() {
    expected=$1
    model=$2
    shift 2
    name="$model $*"
    rm -rf "$dir/run"
    mkdir "$dir/run"
    if ! (cd "$dir/run" && spin "$@" -a "$here/$model.pml" &&
        "${CC:-cc}" -O1 -w -DSAFETY -DVECTORSZ=2048 -DMEMLIM=1024 -o pan pan.c &&
        ./pan -m1000000 -w22) >"$dir/log" 2>&1; then
        echo "FAILED  $name: does not build or run"
        cat "$dir/log"
        failed=1
        return
    fi
    states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' "$dir/log" | head -n 1)
    verdict=unknown
    if grep -q 'errors: 0$' "$dir/log" && ! grep -qi 'not completed\|too small' "$dir/log"; then
        verdict=holds
    elif grep -q 'errors: [1-9]' "$dir/log" && grep -q 'assertion violated\|invalid end' "$dir/log"; then
        verdict=breaks
    fi
    if [ "$verdict" = "$expected" ]; then
        how=$(sed -n 's/^pan:1: \(assertion violated.*\|invalid end state\).*/: \1/p' "$dir/log")
        echo "ok      $name: $verdict ($states states)$how"
    else
        echo "FAILED  $name: expected $expected, found $verdict"
        cat "$dir/log"
        failed=1
    fi
}

check holds ring
check holds ring -DN=1 -DK=4
check holds ring -DN=3 -DA=2 -DK=5
check breaks ring -DRELAXED_PUBLISH
check breaks ring -DRELAXED_TAIL_LOAD
check breaks ring -DRELAXED_RELEASE
check breaks ring -DRELAXED_HEAD_LOAD
check breaks ring -DEARLY_PUBLISH
check breaks ring -DEARLY_RELEASE
check breaks ring -DONE_TOO_MANY
check breaks ring -DNO_PADDING_FREE
check holds bell -DEPOLL
check holds bell -DEPOLL -DB=2
check holds bell -DSEMAPHORE
check breaks bell -DEPOLL -DNO_FENCE
check breaks bell -DEPOLL -DB=2 -DNO_FENCE
check breaks bell -DEPOLL -DNO_LOOK
check breaks bell -DEPOLL -DLATE_FLAG
check breaks bell -DSEMAPHORE -DNO_FENCE
exit $failed
