#!/bin/sh
# The site's tests: each page has a title and closes what it opens. Writes reports/junit.xml; exits 1 when one fails.
set -u
mkdir -p reports
failed=0
cases=""
for page in site/*.html; do
  if grep -q "<title>..*</title>" "$page" && grep -q "</html>" "$page"; then
    cases="$cases<testcase classname=\"site\" name=\"$page\"/>"
  else
    cases="$cases<testcase classname=\"site\" name=\"$page\"><failure message=\"no title, or not closed\"/></testcase>"
    failed=1
  fi
done
echo "<testsuite name=\"site\">$cases</testsuite>" > reports/junit.xml
exit "$failed"
