"""Lays out the pages of the site: every Markdown file of the repository that README leads to, and the files that these link to.

    pages.py REPOSITORY FOLDER

Pages keep their places, so that their links hold. A link to a folder without a page of its own leads to a list of its
files. A link to nothing ends it.
"""

import pathlib
import re
import shutil
import sys

root, out = (pathlib.Path(argument).resolve() for argument in sys.argv[1:])
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
CODE = re.compile(r"(^```.*?^```|`[^`\n]*`)", re.M | re.S)
shutil.rmtree(out, ignore_errors=True)
dead = []


def is_elsewhere(target):
    return re.match(r"[a-z]+:", target)


def placed(path):
    """Where a file of the repository is in the site's sources. Of what is no page and no picture, text is shown as a page."""
    name = path.relative_to(root)
    if path.is_dir():
        return out / name / "index.md"
    if path.name == "README.md":
        return out / name.parent / "index.md"
    if path.suffix in {".md", ".png", ".svg"}:
        return out / name
    return out / name.parent / (name.name + ".md")


def relative(to, page):
    up = pathlib.PurePath(*[".."] * len(page.parent.relative_to(out).parts))
    return (up / to.relative_to(out)).as_posix()


def page_text(path):
    """The Markdown of a page, its links to where things are placed, and what it links to."""
    found = []

    def moved(match):
        before, target, after = match.groups()
        if is_elsewhere(target):
            return match.group(0)
        file = (path.parent / target).resolve()
        if not file.exists() or root not in [file, *file.parents]:
            dead.append(f"{path.relative_to(root)}: {target}")
            return match.group(0)
        if file.is_dir() and (file / "README.md").exists():
            file /= "README.md"
        found.append(file)
        return before + relative(placed(file), placed(path)) + after

    parts = CODE.split(path.read_text())
    # Every other part is code. A link's text may be code too, hence only its target is looked for.
    return "".join(part if index % 2 else LINK.sub(moved, part) for index, part in enumerate(parts)), found


def folder_text(path):
    files = sorted(file.name for file in path.iterdir() if file.is_file())
    return f"# {path.relative_to(root)}/\n\n" + "".join(f"- `{name}`\n" for name in files), []


def source_text(path):
    text = path.read_text()
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    kind = {".rs": "rust", ".sh": "sh", ".toml": "toml", ".yml": "yaml", ".json": "json"}.get(path.suffix, "")
    return f"# {path.relative_to(root)}\n\n{fence}{kind}\n{text}\n{fence}\n", []


left, seen = [root / "README.md"], set()
while left:
    path = left.pop()
    if path in seen:
        continue
    seen.add(path)
    to = placed(path)
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in {".png", ".svg"}:
        shutil.copy(path, to)
        continue
    text, found = folder_text(path) if path.is_dir() else page_text(path) if path.suffix == ".md" else source_text(path)
    to.write_text(text)
    left += found

for page in sorted((root / "docs").glob("*.md")):
    if page not in seen:
        dead.append(f"{page.relative_to(root)}: no page that README leads to links to it")
if dead:
    sys.exit("dead links:\n" + "\n".join(dead))
shutil.copy(pathlib.Path(__file__).with_name("site.css"), out)
print(f"{len(seen)} pages and figures")
