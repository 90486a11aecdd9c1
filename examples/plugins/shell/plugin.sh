#!/bin/sh
# Counts what was left to do; see docs/index.md. No SDK: inputs are variables, results are files in /ci.
set -eu
ci=${PENSTOCK_CI_DIR:-/ci}

# A text inside of JSON's quotes.
quoted() { printf '%s' "$1" | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' | tr -d '\000-\037'; }

status=0
found=$(mktemp)
trap 'rm -f "$found"' EXIT
cd "$WORKSPACE"
grep -rnIE -- "$PLUGIN_WORDS" . >"$found" || status=$?
if [ "$status" -gt 1 ]; then
  echo "grep does not understand the words: $PLUGIN_WORDS"
  exit 78
fi

todos=$(wc -l <"$found" | tr -d ' ')
echo "::group::$todos lines"
cat "$found"
echo "::endgroup::"
printf '{"name": "todos", "value": %d}\n' "$todos" >"$ci/metrics.jsonl"
printf '{"todos": %d}\n' "$todos" >"$ci/output.json"

{
  printf '{"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "todo-count"}}, "results": ['
  comma=
  while IFS=: read -r path line text; do
    printf '%s{"ruleId": "todo", "level": "note", "message": {"text": "%s"}, "locations": [{"physicalLocation": ' \
      "$comma" "$(quoted "$text")"
    printf '{"artifactLocation": {"uri": "%s"}, "region": {"startLine": %d}}}]}' "$(quoted "${path#./}")" "$line"
    comma=,
  done <"$found"
  printf ']}]}\n'
} >"$ci/results/todo-count.sarif"
