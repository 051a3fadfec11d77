#!/usr/bin/env bash
# Download ATLAS trajectories; see usage below.
set -u -o pipefail

usage() {
    cat <<'TEXT'
Download the protein archives of ATLAS (Vander Meersche et al., NAR 2024): NAME_protein.zip, each
with NAME.pdb and three trajectories.

Usage:
  scripts/download_atlas.sh --names FILE.csv --out FOLDER [options]
  scripts/download_atlas.sh --split train|val|test --out FOLDER [options]

  --names FILE   CSV with a column "name" (PDB id and chain, 16pk_A), such as AlphaFlow's splits
  --split NAME   fetch AlphaFlow's split file of this name into FOLDER first, then its targets
  --out FOLDER   where the archives go
  --jobs N       downloads at a time (default 4)
  --retries N    attempts for each archive (default 5)
  --wait S       seconds before the second attempt; more before later ones (default 5)
  --url BASE     archives are at BASE/NAME/NAME_protein.zip
                 (default https://www.dsimb.inserm.fr/ATLAS/database/ATLAS)
  --splits-url BASE   split files are at BASE/atlas_NAME.csv
                 (default https://raw.githubusercontent.com/bjing2016/alphaflow/master/splits)

Example:
  scripts/download_atlas.sh --split test --out atlas --jobs 8
  protenix-eba import --input atlas --split atlas/atlas_test.csv --stride 100 --out md

Start it again after an interruption: partial files (.part) are continued, archives without .part
were checked and are kept. Exit status: 0 all archives are there, 2 unusable options, 3 some are
missing (their names are printed last).
TEXT
}

fail() {
    echo "error: $1" >&2
    exit 2
}

# Name column of a CSV file, in any position before fields with quoted commas.
names_of() {
    awk -F, '
        { sub(/\r$/, ""); gsub(/"/, "") }
        NR == 1 { sub(/^\xef\xbb\xbf/, ""); for (i = 1; i <= NF; i++) if ($i == "name") column = i }
        NR > 1 && column && $column != "" { print $column }
    ' "$1" | sort -u
}

# Whole, and with what an import needs. Prints what is wrong.
check_archive() {
    local path=$1 name=$2 members
    unzip -tqq "$path" >/dev/null 2>&1 || { echo "the archive is broken"; return 1; }
    members=$(unzip -Z1 "$path")
    grep -qE "(^|/)${name//./\\.}\.pdb$" <<<"$members" || { echo "it holds no $name.pdb"; return 1; }
    [ "$(grep -cE '\.xtc$' <<<"$members")" -ge 3 ] || { echo "it holds less than three .xtc"; return 1; }
}

# One archive, in as many attempts as it takes; prints one line.
fetch() {
    local name=$1 target part attempt code status reason=""
    target=$OUT/${name}_protein.zip
    part=$target.part
    [ -f "$target" ] && { echo "$name: there already"; return; }
    for ((attempt = 1; attempt <= RETRIES; attempt++)); do
        [ "$attempt" -gt 1 ] && sleep "$(awk "BEGIN { print $WAIT * ($attempt - 1) }")"
        code=$(curl --fail --location --silent --connect-timeout 30 --speed-limit 1000 \
            --speed-time 60 --continue-at - --output "$part" --write-out '%{http_code}' \
            "$URL/$name/${name}_protein.zip" 2>/dev/null)
        status=$?
        case $status:$code in
            0:* | 22:416) # 416: there was nothing left to continue with
                if reason=$(check_archive "$part" "$name"); then
                    mv "$part" "$target" && echo "$name: done" && return
                    reason="cannot be renamed"
                fi
                rm -f "$part" ;;
            22:404 | 22:410) reason="the server does not have it ($code)"; break ;;
            22:*) reason="the server answers $code" ;;
            23:*) reason="cannot write $part: is the disk full?"; break ;;
            33:* | 36:*) reason="the server cannot continue a partial file"; rm -f "$part" ;;
            *) reason="the connection broke off (curl status $status)" ;;
        esac
    done
    [ -s "$part" ] || rm -f "$part"
    echo "$name: FAILED: $reason"
}

names="" split="" out="" jobs=4
RETRIES=5 WAIT=5
URL=https://www.dsimb.inserm.fr/ATLAS/database/ATLAS
splits_url=https://raw.githubusercontent.com/bjing2016/alphaflow/master/splits
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --names | --split | --out | --jobs | --retries | --wait | --url | --splits-url)
            [ $# -ge 2 ] || fail "$1 needs a value"
            case $1 in
                --names) names=$2 ;;
                --split) split=$2 ;;
                --out) out=$2 ;;
                --jobs) jobs=$2 ;;
                --retries) RETRIES=$2 ;;
                --wait) WAIT=$2 ;;
                --url) URL=${2%/} ;;
                --splits-url) splits_url=${2%/} ;;
            esac
            shift 2 ;;
        *) fail "unknown option $1; see --help" ;;
    esac
done
for tool in curl unzip awk; do
    command -v "$tool" >/dev/null || fail "$tool is not installed"
done
[ -n "$out" ] || fail "give --out FOLDER; see --help"
[ -n "$names$split" ] || fail "give --names or --split; see --help"
[ -z "$names" ] || [ -z "$split" ] || fail "give --names or --split, not both"
[[ $jobs =~ ^[1-9][0-9]*$ && $RETRIES =~ ^[1-9][0-9]*$ ]] || fail "--jobs and --retries are numbers from 1"
[[ $WAIT =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail "--wait is a number of seconds"
mkdir -p "$out" 2>/dev/null && [ -w "$out" ] || fail "cannot write to $out"
if [ -n "$split" ]; then
    [[ $split =~ ^(train|val|test)$ ]] || fail "--split is train, val or test, not $split"
    names=$out/atlas_$split.csv
    if [ ! -s "$names" ]; then
        curl --fail --location --silent --show-error --retry "$RETRIES" --output "$names.part" \
            "$splits_url/atlas_$split.csv" && mv "$names.part" "$names" \
            || fail "cannot fetch $splits_url/atlas_$split.csv"
    fi
fi
[ -f "$names" ] || fail "no file at $names"
mapfile -t wanted < <(names_of "$names")
[ ${#wanted[@]} -gt 0 ] || fail "$names has no column \"name\", or no rows"
for name in "${wanted[@]}"; do
    [[ $name =~ ^[A-Za-z0-9][A-Za-z0-9_.-]*$ ]] || fail "$names: '$name' is no name of a target"
done
if command -v flock >/dev/null; then
    exec 9>"$out/.download.lock"
    flock -n 9 || fail "another download into $out is running"
fi

export -f fetch check_archive
export OUT=$out RETRIES WAIT URL
# In a process group of its own, so that an interrupt ends all downloads; .part files stay.
set -m
(
    count=0
    printf '%s\0' "${wanted[@]}" | xargs -0 -P "$jobs" -n 1 bash -c 'fetch "$1"' _ |
        while IFS= read -r line; do
            count=$((count + 1))
            printf '[%d/%d] %s\n' "$count" "${#wanted[@]}" "$line"
        done
) &
group=$!
set +m
trap 'kill -- "-$group" 2>/dev/null; echo "interrupted; start again to go on" >&2; exit 130' INT TERM
wait "$group"

missing=()
for name in "${wanted[@]}"; do
    [ -f "$out/${name}_protein.zip" ] || missing+=("$name")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "${#missing[@]} of ${#wanted[@]} archives are missing in $out:" >&2
    printf '  %s\n' "${missing[@]}" >&2
    exit 3
fi
echo "all ${#wanted[@]} archives are in $out"
