#!/bin/sh
# The documentation as a site, in target/site: every page that README leads to, with its figures. Fails at a link or an
# anchor that leads nowhere. Needs Python; MkDocs and its theme are installed from PyPI into a folder of their own once.
set -eu
cd "$(dirname "$0")/.."

tools=${XDG_CACHE_HOME:-$HOME/.cache}/dirtyrig/site
versions="mkdocs==1.6.1 mkdocs-material==9.8.2"
if [ "$(cat "$tools/versions" 2>/dev/null)" != "$versions" ]; then
    python3 -m venv "$tools"
    # Two words.
    # shellcheck disable=SC2086
    "$tools/bin/pip" --quiet install $versions >&2
    echo "$versions" >"$tools/versions"
fi
# The configuration lies beside the pages, because the folders in it are relative to it.
mkdir -p target/site-sources
cp xtask/site/mkdocs.yml target/site-sources/mkdocs.yml
"$tools/bin/python" xtask/site/pages.py . target/pages
# The theme advertises its successor otherwise.
NO_MKDOCS_2_WARNING=1 "$tools/bin/mkdocs" build --strict --config-file target/site-sources/mkdocs.yml
echo target/site/index.html
