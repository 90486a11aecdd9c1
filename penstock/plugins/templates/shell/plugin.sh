#!/bin/sh
# Counts files; see docs/index.md. Inputs are variables: `at-most` is $PLUGIN_AT_MOST.
set -eu
ci=${PENSTOCK_CI_DIR:-/ci}

# A text inside of JSON's quotes.
quoted() { printf '%s' "$1" | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' | tr -d '\000-\037'; }

files=0 bytes=0 largest= most=-1
list=$(mktemp)
trap 'rm -f "$list"' EXIT
find "$WORKSPACE" -type f >"$list"
echo "::group::Files that end with $PLUGIN_SUFFIX"
while IFS= read -r path; do
  case $path in *"$PLUGIN_SUFFIX") ;; *) continue ;; esac
  size=$(wc -c <"$path" | tr -d ' ')
  echo "${path#"$WORKSPACE"/}: $size bytes"
  files=$((files + 1)) bytes=$((bytes + size))
  if [ "$size" -gt "$most" ]; then most=$size largest=${path#"$WORKSPACE"/}; fi
done <"$list"
echo "::endgroup::"

printf '{"name": "files", "value": %d}\n{"name": "bytes", "value": %d}\n' "$files" "$bytes" >"$ci/metrics.jsonl"
printf '{"files": %d}\n' "$files" >"$ci/output.json"
if [ "$files" -gt 0 ]; then
  printf '{"kind": "largest", "value": {"path": "%s", "bytes": %d}}\n' "$(quoted "$largest")" "$most" >"$ci/data.jsonl"
fi

results= words="$files files end with $PLUGIN_SUFFIX, at most $PLUGIN_AT_MOST may"
if [ "$PLUGIN_AT_MOST" -gt 0 ] && [ "$files" -gt "$PLUGIN_AT_MOST" ]; then
  results=$(printf '{"ruleId": "too-many-files", "level": "note", "message": {"text": "%s"}}' "$(quoted "$words")")
fi
cat >"$ci/results/PLUGIN-NAME.sarif" <<END
{"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "PLUGIN-NAME"}}, "results": [$results]}]}
END
if [ -n "$results" ]; then
  echo "$words"
  exit 1
fi
