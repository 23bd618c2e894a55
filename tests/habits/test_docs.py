"""The documents are whole: every kind, command, setting and error has its page, and tables are those of the code."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

import holdfast
from holdfast import errors
from holdfast.cli.app import COMMANDS, LazyCommand
from holdfast.core import evidence, kinds, spec
from holdfast.core.specfile import parse_spec

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
SOURCES = sorted(Path(holdfast.__file__).parent.rglob("*.py"))
SECTIONS = [
    section
    for section in [*vars(spec).values(), evidence.Limit]
    if isinstance(section, type)
    and issubclass(section, msgspec.Struct)
    and section.__module__ in (spec.__name__, evidence.__name__)
    and section.__struct_fields__
]
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
SECTION_LINK = re.compile(r"\]\(([^)#\s]*)#([^)\s]+)\)")
COMMAND = re.compile(r"(?:^|`|\$ |bin/|\d )holdfast ([a-z][a-z-]*)", re.MULTILINE)
OPTION = re.compile(r"--[a-z][a-z-]*")
FENCE = re.compile(r"^ *```yaml\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")


def generator() -> ModuleType:
    """The program that writes the tables, ``docs/generate.py``."""
    found = importlib.util.spec_from_file_location("holdfast_docs_generate", DOCS / "generate.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def options_of(name: str) -> set[str]:
    """The long options of a command and of the commands below it, as its --help shows them."""
    command = LazyCommand(name, *COMMANDS[name]).real()
    parameters = [each for one in (command, *getattr(command, "commands", {}).values()) for each in one.params]
    found = {option for each in parameters for option in (*each.opts, *each.secondary_opts)}
    return {option for option in found if option.startswith("--")}


def leads_somewhere(target: Path) -> bool:
    """A file, or a directory with a page in it."""
    return target.is_file() or any(target.glob("*.md"))


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def environment_variables() -> set[str]:
    """Names in capitals that stand as text in a module that looks at the environment."""
    found: set[str] = set()
    for file in SOURCES:
        text = file.read_text(encoding="utf-8")
        if "environ" in text or "envvar" in text or "getenv" in text:
            texts = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
            found |= {value for value in texts if isinstance(value, str) and VARIABLE.fullmatch(value)}
    return found


def whole_system_files() -> Iterator[tuple[str, str]]:
    """Blocks of YAML that begin with a system's name and state its data: page and text."""
    for path in TEXTS:
        for block in FENCE.findall(path.read_text(encoding="utf-8")):
            if re.match(r"(#.*\n)*system:", block) and re.search(r"^data:", block, re.MULTILINE):
                yield str(path.relative_to(ROOT)), block


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("group", [group for group in kinds.GROUPS if group != "engines"])
def test_every_kind_has_its_page(group: str) -> None:
    missing = [name for name in kinds.registered(group) if not (DOCS / group / f"{name}.md").is_file()]
    assert not missing, f"write docs/{group}/<kind>.md for {missing}"


def test_every_engine_is_described() -> None:
    text = page("engines.md")
    assert [name for name in kinds.registered("engines") if f"`{name}`" not in text] == []


def test_every_command_has_a_section() -> None:
    text = page("commands.md")
    assert [name for name in COMMANDS if f"## {name}\n" not in text] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_stands_in_its_section(name: str) -> None:
    section = page("commands.md").partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    assert options_of(name) - set(OPTION.findall(section)) == set()


def test_the_search_for_options_finds_those_of_commands_and_of_their_commands() -> None:
    assert {"--grpc-port", "--state"} <= options_of("up")
    assert {"--record", "--no-record"} <= options_of("predict")
    assert {"--role", "--json"} <= options_of("token")


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_setting_is_described(section: type[msgspec.Struct]) -> None:
    text = page("reference/system-file.md")
    written_as_words = (spec.Step,)
    beside = {"options", "limit"}
    names = {field.encode_name for field in msgspec.structs.fields(section)} - beside
    if section not in written_as_words:
        assert [name for name in sorted(names) if f"| `{name}` |" not in text] == []
    assert f"# {section.__name__.removesuffix('Spec')}\n" in text


def test_every_error_is_described() -> None:
    text = page("reference/errors.md")
    named = [name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)]
    assert [name for name in named if f"`{name}`" not in text] == []


def test_tables_are_those_of_the_code() -> None:
    render = generator().render
    stale = [str(path.relative_to(ROOT)) for path in PAGES if render(path.read_text()) != path.read_text()]
    assert not stale, "run `make docs`"


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in TEXTS
        for target, _ in LINK.findall(path.read_text(encoding="utf-8"))
        if "://" not in target and not leads_somewhere(path.parent / target)
    ]
    assert not broken


def test_every_page_can_be_reached_from_the_index() -> None:
    seen, open_pages = set(), [DOCS / "index.md"]
    while open_pages:
        path = open_pages.pop()
        if path in seen or not path.is_file() or path.suffix != ".md":
            continue
        seen.add(path)
        found = [(path.parent / target).resolve() for target, _ in LINK.findall(path.read_text(encoding="utf-8"))]
        open_pages += [inner for one in found for inner in ([*one.glob("*.md")] if one.is_dir() else [one])]
    assert [str(path.relative_to(DOCS)) for path in PAGES if path not in seen] == []


def test_every_environment_variable_is_described() -> None:
    variables = environment_variables()
    assert "HOLDFAST_STATE" in variables, "the search finds nothing any more"
    table = page("commands.md").partition("## Environment\n")[2]
    assert [name for name in sorted(variables) if f"| `{name}` |" not in table] == []


def test_commands_that_are_named_exist() -> None:
    named = {(str(path.relative_to(ROOT)), name) for path in TEXTS for name in COMMAND.findall(path.read_text())}
    assert len(named) > 50, "the search finds nothing any more"
    assert sorted((where, name) for where, name in named if name not in COMMANDS) == []


def test_whole_system_files_are_in_order() -> None:
    files = list(whole_system_files())
    assert files, "the search finds nothing any more"
    for where, text in files:
        read = parse_spec(text, file=where)
        assert read.gates or read.predictions


def test_links_to_sections_lead_to_a_heading() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {target}#{anchor}"
        for path in TEXTS
        for target, anchor in SECTION_LINK.findall(path.read_text(encoding="utf-8"))
        if "://" not in target and anchor not in anchors(path.parent / target if target else path)
    ]
    assert not broken


def test_the_example_of_the_system_file_is_in_order() -> None:
    block = re.search(r"```yaml\n(.*?)```", page("reference/system-file.md"), re.DOTALL)
    assert block is not None
    assert parse_spec(block[1], file="docs/reference/system-file.md").system == "flights"


def test_decisions_say_what_was_given_up() -> None:
    for path in (DOCS / "adr").glob("0*.md"):
        headings = re.findall(r"^## (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert headings == ["Context", "Choice", "What we gave up", "When to look again"], path.name


def test_the_changelog_has_a_place_for_what_comes() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
