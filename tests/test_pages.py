"""The pages in two languages: what a README says in English, its Chinese page says too, with the same commands and numbers.

pytest tests/test_pages.py
"""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(page.parent for page in ROOT.glob("**/README.zh-CN.md") if ".nox" not in page.parts)
HAN = r"[\u3400-\u9fff]"
FOR_CHINA = {
    "--extra-index-url https://mirror.nju.edu.cn/pytorch/whl/cpu"
}  # a second mirror, on the Chinese pages alone
FENCE = re.compile(r"^```.*?^```", re.M | re.S)
DIAGRAM = re.compile(r"^```mermaid.*?^```", re.M | re.S)


def name_of(value) -> str:
    return "root" if value == ROOT else getattr(value, "name", None) or value.__name__


def both(folder: Path) -> list[str]:
    return [(folder / name).read_text("utf-8") for name in ("README.md", "README.zh-CN.md")]


def commands(text: str) -> list[str]:
    """The lines of all code blocks, without comments and without what explains a file to its right."""
    lines = [
        line
        for block in FENCE.findall(DIAGRAM.sub("", text))
        for line in block.splitlines()
        if not line.startswith("```")
    ]
    return [code for line in lines if (code := re.split(r"(?:^|\s+)#\s|(?<=\S)\s{3,}", line)[0].rstrip())]


def prose(text: str) -> str:
    return FENCE.sub("", text)


def headings(text: str) -> list[str]:
    """The levels of all headings: ##, ###."""
    return re.findall(r"^#+(?= )", prose(text), re.M)


def code_words(text: str) -> set[str]:
    """What stands between backticks."""
    return {" ".join(word.split()) for word in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(text))} - FOR_CHINA


def links(text: str) -> set[str]:
    found = {target.replace(".zh-CN.md", ".md") for target in re.findall(r"\]\(([^)\s]+)\)", prose(text))}
    return {
        target for target in found if not target.split("#")[0].endswith(("README.md", "LESSONS.md", "CORRECTIONS.md"))
    }


def numbers(text: str) -> set[str]:
    """Numbers in figures, out of code: 45,000 and 99.6 and 1e-4. The single digits 0 to 9 are left out: a page may write them
    as words."""
    plain = re.sub(r"`[^`]*`|\]\([^)]*\)|<[^>]+>", " ", prose(text))
    found = re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", plain)
    return {number.rstrip(",").replace(",", "") for number in found} - set("0123456789")


def tables(text: str) -> list[tuple[int, int]]:
    """(rows, columns) of each table."""
    shapes, rows = [], 0
    for line in [*prose(text).splitlines(), ""]:
        if line.startswith("|"):
            rows, columns = rows + 1, line.replace("\\|", "").count("|") - 1
        elif rows:
            shapes.append((rows, columns))
            rows = 0
    return shapes


def test_each_chapter_has_both_pages():
    assert {page.parent for page in ROOT.glob("ch*_*/README.md")} | {ROOT} == set(PAGES)


@pytest.mark.parametrize("folder", PAGES, ids=name_of)
@pytest.mark.parametrize("part", [headings, commands, code_words, links, numbers, tables], ids=name_of)
def test_both_languages_say_the_same(folder, part):
    english, chinese = map(part, both(folder))
    only_english, only_chinese = Counter(english) - Counter(chinese), Counter(chinese) - Counter(english)
    assert not only_english and not only_chinese, (
        f"{part.__name__}: only in README.md: {sorted(map(str, only_english))}; "
        f"only in README.zh-CN.md: {sorted(map(str, only_chinese))}"
    )


@pytest.mark.parametrize("folder", PAGES, ids=name_of)
def test_chinese_is_set_as_in_print(folder):
    """Full-width marks beside Chinese, and a space between Chinese and Latin letters or digits."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", prose(both(folder)[1]))  # of a link its words
    text = re.sub(r"`[^`]*`|<[^>]+>", " ", text)
    faults = re.findall(rf".{{0,12}}(?:{HAN}[,;:!?()]|[,;:!?(]{HAN}|{HAN}\.(?!\w)).{{0,12}}", text)
    faults += re.findall(rf".{{0,12}}(?:{HAN}[A-Za-z0-9]|[A-Za-z0-9%]{HAN}).{{0,12}}", text)
    assert not faults, faults


def test_both_pages_of_lessons_have_the_same_rows_and_links():
    english, chinese = ((ROOT / name).read_text("utf-8") for name in ("LESSONS.md", "LESSONS.zh-CN.md"))
    rows = [re.findall(r"^\| (\d+(?:-\d+)?) \|", text, re.M) for text in (english, chinese)]
    assert rows[0] == rows[1] and len(set(rows[0])) == len(rows[0]) > 100
    assert links(english) == links(chinese)


def lesson_commands(page: str) -> list[tuple[str, str, str]]:
    """(lesson, folders of its code, command) for each command in the column "run"."""
    rows = re.findall(r"^\| (\d+(?:-\d+)?) \| [^|]* \| ([^|]*) \| ([^|]*) \|", (ROOT / page).read_text("utf-8"), re.M)
    return [
        (number, " ".join(sorted(set(re.findall(r"\]\((ch\d\d_\w+)/", code)))), command)
        for number, code, cell in rows
        for command in re.findall(r"`([^`]+)`", cell)
    ]


def test_the_commands_of_lessons_are_there_and_take_their_flags():
    found = lesson_commands("LESSONS.md")
    assert found == lesson_commands("LESSONS.zh-CN.md") and len(found) > 130
    for number, folders, command in found:
        words = command.split()
        program = words[2] if words[1] == "-m" else words[1]
        homes = [ROOT / name for name in folders.split() if (ROOT / name / program).exists()]
        assert homes or words[0] == "tensorboard", f"{number}: {command}: not in {folders}"
        sources = "".join(path.read_text("utf-8") for home in homes for path in home.glob("*.py"))
        unknown = [word for word in words if word.startswith("--") and f'"{word}"' not in sources + '"--logdir"']
        assert not unknown, f"{number}: {command}: {unknown}"


def test_both_pages_of_corrections_say_the_same():
    english, chinese = ((ROOT / name).read_text("utf-8") for name in ("CORRECTIONS.md", "CORRECTIONS.zh-CN.md"))
    for part in (numbers, tables, links):
        assert part(english) == part(chinese)
    assert len(links(english)) > 20


def unwanted() -> list[str]:
    """The last column of TERMS.md."""
    rows = [line.split("|") for line in (ROOT / "TERMS.md").read_text("utf-8").splitlines() if line.startswith("|")]
    return [word for row in rows[2:] for word in row[3].strip().split("、") if word]


@pytest.mark.parametrize("folder", PAGES, ids=name_of)
def test_terms_are_those_of_terms_md(folder):
    text = both(folder)[1]
    assert len(unwanted()) > 10 and not [word for word in unwanted() if word in text]


def test_terms_are_those_of_terms_md_in_the_lessons_too():
    text = "".join(path.read_text("utf-8") for path in ROOT.glob("ch*_*/locale/zh_CN/LC_MESSAGES/lessons.po"))
    assert text and not [word for word in unwanted() if word in text]
