#!/bin/sh
# The browser that the page is tested in. Nothing to do where Chromium (or Chrome) is installed; else Debian's and
# Ubuntu's packages where we may install them, else Playwright's own download. Without any of them the browser tests
# are skipped, and pytest's header says so.
set -eu
for name in chromium chromium-browser google-chrome; do
  if command -v "$name" >/dev/null; then exit 0; fi
done
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  echo "· Chromium for the browser tests"
  { apt-get update -qq && apt-get install -y -qq chromium fonts-noto-cjk; } >/dev/null 2>&1 && exit 0
fi
echo "· Chromium for the browser tests (Playwright's)"
.venv/bin/python -m playwright install chromium >/dev/null 2>&1 || echo "  none could be installed: the browser tests are skipped"
