#!/usr/bin/env bash
# Projects that nobody here wrote, through `penstock init` and `penstock run`.
#
#     bench/real.sh            # fetches, runs, prints a table
#     KEEP=1 bench/real.sh     # keeps the folder with the checkouts, and says where
#
# Each is fetched as a source distribution (bench/real-projects.txt: versions and hashes), unpacked, committed
# to a fresh repository and run with the pipeline that `penstock init` writes for it. A project whose own tests
# or scan fail is an outcome like another; the exit code is 1 when Penstock itself failed at one of them.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
penstock=$here/../.venv/bin/penstock
[ -x "$penstock" ] || { echo "bench/real.sh: there is no .venv/bin/penstock; run \`make env\`" >&2; exit 2; }

work=$(mktemp -d "${TMPDIR:-/tmp}/penstock-real-XXXXXX")
export PENSTOCK_HOME=$work/home
[ -n "${KEEP:-}" ] || trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
mkdir "$work/sdists" "$work/projects"
"$work/venv/bin/pip" --disable-pip-version-check download --quiet --require-hashes --no-deps --no-binary :all: \
    --dest "$work/sdists" --requirement "$here/real-projects.txt"

commit() { git -C "$1" -c user.name=bench -c user.email=bench@localhost commit --quiet --message "$2"; }

broken=0
for sdist in "$work"/sdists/*.tar.gz; do
    name=$(basename "$sdist" .tar.gz)
    name=${name%-*}
    project=$work/projects/$name
    mkdir "$project"
    tar --extract --gzip --file "$sdist" --directory "$project" --strip-components 1 --no-same-owner
    git -C "$project" init --quiet
    git -C "$project" add --all --force
    commit "$project" "As distributed"
    "$penstock" init "$project"
    git -C "$project" add penstock.yaml
    commit "$project" "Add a pipeline"
    code=0
    "$penstock" run "$project" || code=$?
    case $code in
        0 | 1) ;; # 1: the project's own tests or findings
        *) broken=1 && echo "bench/real.sh: penstock run exited with $code on $name" >&2 ;;
    esac
done

"$penstock" sql "
    SELECT r.project, r.state AS outcome, round(r.duration_s, 1) AS seconds,
           (SELECT count(*) FROM test_results t WHERE t.run_id = r.run_id) AS tests,
           (SELECT count(*) FROM test_results t WHERE t.run_id = r.run_id AND t.state IN ('failed', 'error')) AS broken,
           (SELECT count(*) FROM findings f WHERE f.run_id = r.run_id) AS findings,
           coalesce(r.reason, '') AS reason
    FROM runs r ORDER BY r.project"
[ -z "${KEEP:-}" ] || echo "kept: $work"
exit $broken
