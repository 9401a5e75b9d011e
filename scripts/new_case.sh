#!/usr/bin/env bash
# Adds a damage case to tests/cases/: applies the edits, runs the program on the damaged file, and records how it ended.
#
#   scripts/new_case.sh CASES NAME EDITS [FLAGS]
#
# CASES  a file of tests/cases/ without its ending: aperio, generic or images
# NAME   what is damaged, as a sentence
# EDITS  a TOML array; tests/binary/cases.rs lists the kinds:
#        '[{ kind = "fill_tile", directory = 0, tile = 64, value = 0 }]'
# FLAGS  more flags of `wsi-nuclei run` for this case
#
# It runs all cases two or three times. What it records is what the program does today: check it, and shorten the
# messages to the words that matter.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
    echo "new-case: error: $1" >&2
    echo "new-case: cure: $2" >&2
    exit 1
}
[ $# -ge 3 ] || { sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2; }
cases=tests/cases/$1.toml name=$2 edits=$3 flags=${4:-}
[ -f "$cases" ] || die "no $cases" "give one of: $(basename -s .toml tests/cases/*.toml | xargs)"
[ -f .deps/env ] || die "no .deps/env" "make setup"
. .deps/env
grep -qF "name = \"$name\"" "$cases" && die "$cases has a case \"$name\"" "give another name"

work=$(mktemp -d)
cp "$cases" "$work/before.toml"
# Whatever goes wrong, the cases are as they were.
trap 'cp "$work/before.toml" "$cases"; rm -rf "$work"' EXIT

# The case with exit code $1, messages $2 and unreadable mm² $3.
write_case() {
    cp "$work/before.toml" "$cases"
    {
        printf '\n[[case]]\nname = "%s"\nedits = %s\n' "$name" "$edits"
        if [ -n "$flags" ]; then printf 'flags = "%s"\n' "$flags"; fi
        printf 'code = %s\nsays = [%s]\n' "$1" "$2"
        if [ -n "$3" ]; then printf 'unreadable_mm2 = %s\n' "$3"; fi
    } >>"$cases"
}

# Runs all cases. 0: all end as they say; else the messages of ours are in $work/ours.
run_cases() {
    cargo test --locked --test binary -- broken_slides_end_as_their_cases_say >"$work/log" 2>&1 && return
    # A failed case is told as NAME: WHY, its command line and its messages, up to an empty line.
    NAME="$name: " awk 'index($0, ENVIRON["NAME"]) == 1 { ours = 1 } /^$/ { ours = 0 } ours' "$work/log" >"$work/ours"
    [ -s "$work/ours" ] && return 1
    tail -n 30 "$work/log" >&2
    die "the test ended without telling of this case" "mend what stands above: the edits, or a test that failed before"
}

# No program ends with -1: the test fails and tells the code and the messages.
write_case -1 '' ''
run_cases && die "the case was not run" "set WSI_NUCLEI_SHARED to the folder that has the base of $cases"
code=$(sed -n '1s/.*: ended with Some(\([0-9]*\)), not -1$/\1/p' "$work/ours")
[ -n "$code" ] || { cat "$work/ours" >&2; die "the program did not end with a code" "a crash is a bug: mend it first"; }
# Each error and warning, as a TOML string.
says=$(sed -n '3,${s/\(error\|warning\): /\n/; T; s/^[^\n]*\n//; p}' "$work/ours" | sed 's/[\\"]/\\&/g; s/.*/"&"/' | paste -sd, | sed 's/","/", "/g')
[ -n "$says" ] || says='"nuclei in"'
write_case "$code" "$says" ''
if ! run_cases; then
    unreadable=$(sed -n '1s/.*: \([0-9.e-]*\) mm² are unreadable, not 0$/\1/p' "$work/ours")
    [ -n "$unreadable" ] || { cat "$work/ours" >&2; die "a second run ended in another way" "look at the difference"; }
    write_case "$code" "$says" "$unreadable"
    run_cases || { cat "$work/ours" >&2; die "a third run ended in another way" "look at the difference"; }
fi
cp "$cases" "$work/before.toml"
echo "new-case: recorded in $cases:"
sed -n "/^name = \"$(printf %s "$name" | sed 's/[]\/$*.^[]/\\&/g')\"/,\$p" "$cases"
