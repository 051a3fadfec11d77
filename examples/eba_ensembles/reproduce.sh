#!/usr/bin/env bash
# Score the ensembles that the EBA authors released, beside the row of their table; see README.md.
#
#   bash examples/eba_ensembles/reproduce.sh WORK [ARCHIVE [ATLAS]]
#
# WORK     folder for all that is made; the same command goes on where it was stopped
# ARCHIVE  artifacts.tar.gz, if you have it; downloaded into WORK otherwise
# ATLAS    folder of the MD of ATLAS's test targets, if you have it; downloaded otherwise
# JOBS     (environment) number of processes [default: the number of cores]
set -euo pipefail
URL=https://storage.googleapis.com/project_icml25_eba/artifacts.tar.gz
WORK=${1:?usage: bash $0 WORK [ARCHIVE [ATLAS]]}
ARCHIVE=${2:-$WORK/artifacts.tar.gz}
ATLAS=${3:-$WORK/atlas}
JOBS=${JOBS:-$(nproc)}
scripts=$(cd "$(dirname "$0")/../../scripts" && pwd)

fail() {
    echo "error: $1" >&2
    exit 2
}

mkdir -p "$WORK"
if [ ! -f "$ARCHIVE" ]; then
    [ $# -lt 2 ] || fail "no archive at $ARCHIVE"
    curl --fail --location --retry 5 --continue-at - --output "$ARCHIVE.part" "$URL"
    mv "$ARCHIVE.part" "$ARCHIVE"
fi

# The authors publish no checksum. That of the first use is noted, so that a later run is of the
# same file, and so that others can say whether theirs is.
sum=$(sha256sum < "$ARCHIVE" | cut -d ' ' -f 1)
noted="$WORK/artifacts.sha256"
[ -f "$noted" ] || echo "$sum" > "$noted"
[ "$(cat "$noted")" = "$sum" ] || fail "$ARCHIVE is not the file of the first run: its SHA-256 is
$sum, $noted says $(cat "$noted"); give another WORK"
echo "archive: $ARCHIVE, SHA-256 $sum"

if [ ! -d "$WORK/unpacked" ]; then
    rm -rf "$WORK/unpacking"
    mkdir "$WORK/unpacking"
    tar -xzf "$ARCHIVE" -C "$WORK/unpacking" --no-same-owner ||
        fail "$ARCHIVE cannot be unpacked: it is cut or no .tar.gz; remove it, and $noted, and start again"
    mv "$WORK/unpacking" "$WORK/unpacked"
fi

# The authors' scripts write and read NAME/seed_42/predictions/*.cif, which `evaluate` reads as well.
roots=$(find "$WORK/unpacked" -type d -path '*/seed_*/predictions' |
    sed 's|/[^/]*/seed_[^/]*/predictions$||' | sort -u)
[ -n "$roots" ] || fail "no NAME/seed_*/predictions in $WORK/unpacked: the archive has another form"
[ "$(echo "$roots" | wc -l)" -eq 1 ] || fail "several sets of ensembles, give one to \`evaluate\`:
$roots"

[ $# -ge 3 ] || bash "$scripts/download_atlas.sh" --split test --out "$ATLAS"
[ -d "$ATLAS" ] || fail "no MD at $ATLAS"
targets=()
[ ! -f "$ATLAS/atlas_test.csv" ] || targets=(--targets "$ATLAS/atlas_test.csv")

# Status 3: targets that failed are named; the report has them.
protenix-eba evaluate --reference "$ATLAS" --samples "$roots" "${targets[@]}" \
    --label "EBA, released samples" --compat alphaflow-1.9.9 --jobs "$JOBS" \
    --out "$WORK/evaluation" || [ $? -eq 3 ]
protenix-eba compare "$WORK/evaluation" --published --out "$WORK/comparison"
