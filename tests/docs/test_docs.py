"""The documentation: its links lead somewhere, its commands and specs are such, its lists are whole."""

from __future__ import annotations

import getopt
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from testbed.agent.words import WORDS
from testbed.cli.main import COMMANDS, cli
from testbed.coord.keys import RunKeys
from testbed.errors import DeadlineError, Interrupted, LabError, TargetError, TestbedError, UsageError
from testbed.report.verdict import EXIT_CODES
from testbed.spec import load

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/*.md"), ROOT / "changelog.d/README.md"]
)
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def name_of(path: Path) -> str:
    """How a page is called in a test's name."""
    return str(path.relative_to(ROOT))


def blocks(page: Path, language: str) -> Iterator[str]:
    """The fenced blocks of a page in that language."""
    for found in re.finditer(r"^```(\S*)\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        if found[1] == language:
            yield found[2]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The places in a page that a link can lead to, as GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> list[list[str]]:
    """The words of every command line of testbed or make that a page shows, in console blocks or in the text."""
    lines = [
        line[2:] for text in blocks(page, "console") for line in text.splitlines() if line.startswith(("$ ", "# "))
    ]
    lines += re.findall(r"`((?:testbed|make) [a-z][^`]*)`", prose(page))
    words = [shlex.split(part, comments=True) for line in lines for part in line.split(";")]
    for line in words:
        if line and line[0].endswith("/testbed"):
            line[0] = "testbed"
        del line[next((place for place, word in enumerate(line) if word in (">", "|", "&&")), len(line)) :]
    return [line for line in words if line and line[0] in ("testbed", "make")]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page leads to a file of the repository, and to a heading if it names one."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{target} leads nowhere"
        assert not anchor or anchor in anchors(linked), f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_are_there(page: Path) -> None:
    """Every path of the repository that a page names exists; a name in capitals stands for many."""
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()}
    for path in re.findall(r"`([\w.-]+/[\w./*-]*)`", page.read_text("utf-8")):
        root = ROOT if path.partition("/")[0] in folders else ROOT / "testbed"
        ours = root == ROOT or path.endswith(".py")  # else it is in a run directory or on a machine
        if ours and not re.search(r"\b[A-Z]{3,}", path):
            assert [*root.glob(path)], f"{path} does not exist"


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name_of)
def test_commands_are_such(page: Path) -> None:
    """Every command line that a page shows is one that testbed or make takes, on files that are there."""
    for program, *words in commands(page):
        for word in words:
            assert not word.startswith("examples/") or (ROOT / word).exists(), f"{word} does not exist"
        if program == "make":
            targets = [word for word in words if "=" not in word]
            assert all(re.search(rf"^{target}:", MAKEFILE, re.MULTILINE) for target in targets), words
        else:
            check_command(cli, words)


def check_command(group: click.Group, words: list[str]) -> None:
    """Fail unless testbed takes these words; what a page leaves out (`testbed run`) need not be there."""
    name, *rest = words
    command = group.get_command(click.Context(cli), name)
    assert command is not None, f"there is no command {name}"
    if isinstance(command, click.Group) and rest:
        check_command(command, rest)
    elif name in WORDS and group is cli:
        check_word(name, rest)
    elif rest:
        try:
            command.make_context(name, list(rest), resilient_parsing="--help" in rest or rest[0].startswith("-"))
        except click.exceptions.Exit as done:
            assert done.exit_code == 0


def check_word(name: str, words: list[str]) -> None:
    """Fail unless a word of the nodes takes these words; on the controller it takes RUN or --run RUN too."""
    word = WORDS[name]
    options, operands = getopt.gnu_getopt(words, "h" + word.short, ["help", "run=", "uuid=", *word.long])
    least, most = word.counts
    most = len(operands) if most < 0 else most + (name in ("abort", "finalise"))
    assert ("--help", "") in options or not operands or least <= len(operands) <= most


def specs() -> Iterator[tuple[str, str]]:
    """Every spec that a page shows, with a name for it."""
    for page in PAGES:
        for number, text in enumerate(blocks(page, "yaml"), 1):
            if re.search(r"^deployment:", text, re.MULTILINE):
                yield f"{name_of(page)}-{number}", text


@pytest.mark.parametrize("text", [text for _, text in specs()], ids=[name for name, _ in specs()])
def test_specs_are_such(text: str, tmp_path: Path) -> None:
    """Every whole spec that a page shows is right."""
    for configuration in yaml.safe_load(text)["configurations"].values():
        for name in configuration.get("files", ()):
            (tmp_path / name).touch()
    spec = tmp_path / "deployment.yml"
    spec.write_text(text)
    assert load(spec, {}).nodes


def test_the_first_spec_is_the_example() -> None:
    """The README shows the example as it is."""
    (shown,) = blocks(ROOT / "README.md", "yaml")
    assert shown == (ROOT / "examples/hello/deployment.yml").read_text("utf-8")


def test_the_readme_has_every_command() -> None:
    """Each command is in the README's table."""
    table = "".join(line for line in prose(ROOT / "README.md").splitlines() if line.startswith("| `"))
    assert [name for name in COMMANDS if not re.search(rf"`(?:testbed )?{name}[ `]", table)] == []


def test_the_readme_has_every_exit_code() -> None:
    """The README's table of exit codes is that of the code."""
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", prose(ROOT / "README.md"), re.MULTILINE)}
    errors = (TestbedError, UsageError, TargetError, LabError, DeadlineError, Interrupted)
    assert told == {*EXIT_CODES.values(), *(error.exit_code for error in errors)}


def test_the_architecture_has_every_key() -> None:
    """The keys that testbed writes stand in docs/architecture.md."""
    keys = RunKeys("RUN")
    names = [keys.controller, keys.flag("abort"), keys.flag("finalise"), keys.value("KEY"), keys.alive("NODE")]
    names += [
        keys.wants("NODE"),
        keys.served("NODE"),
        keys.results("NODE"),
        keys.home("NODE"),
        keys.left("NODE"),
        keys.asked("NODE"),
        keys.doing("NODE"),
        f"{keys.sequence('NAME')}NODE.NONCE",
        f"{keys.barrier('NAME')}GENERATION/NODE",
        keys.arrivals("NAME", "NODE"),
        f"{keys.lock('NAME')}NODE.NONCE",
        keys.probe(f"{keys.lock('NAME')}NODE.NONCE"),
        f"{keys.topic('NAME')}NODE.NONCE",
        f"{keys.service('NAME')}NODE",
        f"{keys.gone}NODE",
        f"{keys.nodes}NODE/waiting/N",
        f"{keys.events}NODE/SEQUENCE",
    ]
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    assert f"`{keys.prefix}`" in page
    assert [name for name in names if f"`{name.removeprefix(keys.prefix)}`" not in page] == []


def test_every_page_is_listed() -> None:
    """Each page of docs/ is linked from the README, each decision from the decisions' index, under its own number."""
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [page.name for page in ROOT.glob("docs/*.md") if f"(docs/{page.name}" not in readme] == []
    index = (ROOT / "docs/decisions/README.md").read_text("utf-8")
    decisions = sorted(ROOT.glob("docs/decisions/[0-9]*.md"))
    assert len({page.name[:4] for page in decisions}) == len(decisions)
    for page in decisions:
        number = int(page.name[:4])
        title = page.read_text("utf-8").splitlines()[0]
        assert title.startswith(f"# {number}. ")
        assert f"[{number}]({page.name}) | {title.partition('. ')[2]} |" in index


def test_changelog_fragments_are_such() -> None:
    """Each fragment is named NAME.KIND.md and is one line for users."""
    fragments = [page for page in (ROOT / "changelog.d").iterdir() if page.name != "README.md"]
    assert fragments
    for fragment in fragments:
        assert re.fullmatch(r"[a-z0-9-]+\.(added|changed|fixed|removed)\.md", fragment.name), fragment.name
        assert re.fullmatch(r"[A-Z`].*\.\n", fragment.read_text("utf-8")), fragment.name
