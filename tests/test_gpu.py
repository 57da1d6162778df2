"""gpu/: steps in processes of their own, the plan, the report, and going on with it. No PyTorch is needed: the steps here are
lines of Python. The plan itself runs with `nox -s gpu -- --device cpu --dry`."""

import json
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "gpu"))

import benchmarks  # noqa: E402
import measure  # noqa: E402
import pages  # noqa: E402
import plan  # noqa: E402
import steps  # noqa: E402

MACHINE = {"name": "Some GPU 80GB", "torch": "2.11.0", "products": {"fp32": 50.0, "bf16": 800.0}, "bf16_over_fp32": 2.0}


def python(name, code, **more):
    return steps.Step(name, 1, (("-c", code),), **more)


@pytest.fixture
def setting(tmp_path):
    return steps.Setting("cpu", tmp_path / "work")


def is_alive(pid):
    """A zombie, which nobody has waited for, is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


# ---- a step -----------------------------------------------------------------------------------------------------------


def test_a_step_runs_in_its_chapter_and_its_last_json_is_its_figures(setting):
    code = "import os; print('words'); print('{\"a\": 1}'); print({'not': 'json'}); print(os.getcwd())"
    record = steps.run(setting, python("ch06 some", code + "; print('[1]')"), 30)
    assert record["status"] == "done" and record["figures"] == {"a": 1}
    assert (setting.folder(python("ch06 some", "")) / "0.out").read_text().splitlines()[-2].endswith("ch06_cifar10")


def test_a_step_that_fails_says_how_and_its_next_command_does_not_run(setting, tmp_path):
    commands = (("-c", "raise SystemExit('no such thing')"), ("-c", f"open({str(tmp_path / 'ran')!r}, 'w')"))
    record = steps.run(setting, steps.Step("ch06 bad", 1, commands), 30)
    assert record["status"] == "failed" and record["why"] == "exit 1: no such thing" and record["figures"] == {}
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_step_beyond_its_time_is_ended_with_all_that_it_started(setting, tmp_path):
    code = (
        "import os, signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        f"open({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}'); time.sleep(60)"
    )
    patience, steps.end.__defaults__ = steps.end.__defaults__, (0.2,)
    try:
        record = steps.run(setting, python("ch06 slow", code), 1.0)
    finally:
        steps.end.__defaults__ = patience
    assert record["status"] == "out of time" and record["seconds"] < 8
    wait_for(lambda: not any(is_alive(pid) for pid in (tmp_path / "pids").read_text().split()))


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_step_ends_with_the_program_when_that_is_killed(tmp_path):
    code = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'gpu')!r}); import pathlib, steps;"
        f"steps.run(steps.Setting('cpu', pathlib.Path({str(tmp_path)!r})), steps.Step('ch06 x', 1, (('-c', {code!r}),)), 60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not is_alive((tmp_path / "pid").read_text()))


def test_a_test_run_is_counted_from_its_xml(setting):
    xml = '<testsuites><testsuite tests="3" failures="1" errors="0" skipped="1"/></testsuites>'
    code = f"import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(); (p / 'tests.xml').write_text({xml!r})"
    record = steps.run(setting, steps.Step("ch06 tests", 1, (("-c", code, "{run}"),)), 30)
    assert record["figures"] == {"tests": 3, "failures": 1, "errors": 0, "skipped": 1}
    code += "; print('10/254 tests collected (244 deselected) in 5.74s')"
    record = steps.run(setting, steps.Step("ch07 tests", 1, (("-c", code, "{run}"),)), 30)
    assert record["figures"] == {"tests_found": 10}


def test_what_a_stopped_step_left_is_cleared_but_a_training_goes_on(setting):
    step = steps.Step("ch06 train", 1, (("train.py", "--arch", "vgg", "--run", "{run}"), ("test.py", "--run", "{run}")))
    run = setting.folder(step) / "run"
    assert setting.commands(step)[0][1:] == ["train.py", "--arch", "vgg", "--run", str(run)]
    run.mkdir(parents=True)
    (run / "last.pt").touch()
    assert setting.commands(step)[0][1:] == ["train.py", "--resume", str(run), "--device", "cpu"]
    assert setting.commands(step)[1][1:] == ["test.py", "--run", str(run)]
    other = python("ch06 other", "import pathlib, sys; print({True: 1}[not pathlib.Path(sys.argv[0]).exists()])")
    (setting.folder(other) / "run").mkdir(parents=True)
    steps.run(setting, other, 30)
    assert not (setting.folder(other) / "run").exists()


def test_a_dry_run_is_tiny_on_the_sample_and_not_compiled(tmp_path):
    one = next(step for step in plan.plan() if step.name == "ch06 vgg seed 0")
    whole, dry = (steps.Setting("cuda", tmp_path, dry=dry).commands(one)[0] for dry in (False, True))
    assert "--compile" in whole and "cifar10" in whole and "--limit" not in whole
    assert "--compile" not in dry and "sample" in dry and "--limit" in dry
    assert not [word for word in (*whole, *dry) if re.search(r"{\w+}", word)]


def test_where_a_package_or_the_data_lack_the_step_is_skipped_by_name(setting, tmp_path):
    step = python("ch06 x", "pass", needs=("json", "no_such_module"), data="cifar10")
    setting.data_root = tmp_path
    lacks = steps.missing(setting, [step])
    assert "no_such_module" in lacks["ch06"] and "json" not in lacks["ch06"]
    assert steps.why_not(setting, step, ["torch", "no_such_module", "of_another"]) == "lacks torch, no_such_module"
    assert steps.why_not(setting, step, []) == f"no cifar-10-batches-py in {tmp_path}"
    (tmp_path / "cifar-10-python.tar.gz").touch()
    assert steps.why_not(setting, step, ["of_another"]) == ""
    setting.python = str(tmp_path / "{chapter}" / "python")
    (name,) = steps.missing(setting, [step])["ch06"]
    assert name.startswith("Python: ") and steps.why_not(setting, step, [name]).startswith("lacks Python: ")


def test_wheels_are_unpacked_for_the_steps(tmp_path, setting):
    with zipfile.ZipFile(tmp_path / "small-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("small_module/__init__.py", "ANSWER = 42")
    setting.path = str(tmp_path / "site")
    step = python("ch06 x", "import small_module; print('{\"a\": %d}' % small_module.ANSWER)", needs=("small_module",))
    assert "small_module" in steps.missing(setting, [step])["ch06"]
    assert steps.unpack(tmp_path, tmp_path / "site") == ["small-1.0-py3-none-any.whl"]
    assert "small_module" not in steps.missing(setting, [step])["ch06"]
    assert steps.run(setting, step, 30)["figures"] == {"a": 42}


def test_commands_are_reported_without_the_places_of_this_machine(tmp_path):
    setting = steps.Setting("cuda", ROOT / "gpu" / "work", data_root=tmp_path)
    one = next(step for step in plan.plan() if step.name == "ch06 vgg seed 0")
    shown = [setting.shown(command) for command in setting.commands(one)]
    assert all(str(ROOT) not in text and str(tmp_path) not in text for text in shown)
    assert (
        "--data-root data " in shown[0] and "../gpu/work/" in shown[0] and shown[2].startswith("../gpu/run_figures.py")
    )


# ---- the whole --------------------------------------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """measured(*words) -> what the report holds and which steps ran; the machine and its packages are made up."""
    monkeypatch.setattr(measure, "GPU", tmp_path)
    monkeypatch.setattr(measure, "machine_of", lambda *_: MACHINE)
    monkeypatch.setattr(steps, "missing", lambda setting, wanted: {step.chapter: [] for step in wanted})
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    ran, real = [], steps.run
    monkeypatch.setattr(
        steps, "run", lambda setting, step, seconds: (ran.append(step.name), real(setting, step, seconds))[1]
    )

    def call(*words):
        ran.clear()
        try:
            measure.main(["--report", str(tmp_path / "report"), *words])
        except SystemExit as error:
            assert error.code in (1, "stopped; --resume goes on")
        newest = max((tmp_path / "report").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        return newest.name, json.loads(newest.read_text("utf-8")), list(ran)

    return call


def test_a_report_is_written_after_each_step_and_gone_on_with(measured, monkeypatch, tmp_path):
    fine, bad = python("ch06 one", "print('{\"score\": 0.5}')"), python("ch06 two", "raise SystemExit('broken')")
    monkeypatch.setattr(plan, "plan", lambda: [fine, bad, python("ch06 three", "import os; os._exit(0)")])
    name, found, ran = measured("--only", "one,two")
    assert name == "Some-GPU-80GB.json" and ran == ["ch06 one", "ch06 two"]
    assert [record["status"] for record in found["steps"].values()] == ["done", "failed"]
    text = (tmp_path / "report" / "Some-GPU-80GB.md").read_text("utf-8")
    assert "| ch06 one | score 0.5 |" in text and "| ch06 two | failed | exit 1: broken |" in text and "2.11.0" in text
    name, found, ran = measured("--resume")
    assert name == "Some-GPU-80GB.json" and ran == ["ch06 two", "ch06 three"] and len(found["steps"]) == 3
    name, found, ran = measured("--only", "one")
    assert name == "Some-GPU-80GB-2.json" and ran == ["ch06 one"]


def test_a_stopped_call_keeps_what_was_done(measured, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(plan, "plan", lambda: [python("ch06 one", "pass"), python("ch06 two", "pass")])
    real = steps.run
    monkeypatch.setattr(
        steps, "run", lambda s, step, left: (stop if step.name.endswith("two") else real)(s, step, left)
    )
    _, found, _ = measured()
    assert list(found["steps"]) == ["ch06 one"]
    monkeypatch.setattr(steps, "run", real)
    assert measured("--resume")[2] == ["ch06 two"]


def test_no_step_begins_that_would_end_too_late(measured, monkeypatch):
    long = steps.Step("ch06 long", 5, (("-c", "pass"),))
    monkeypatch.setattr(plan, "plan", lambda: [long, python("ch06 short", "pass")])
    _, found, ran = measured("--minutes", "2")
    assert ran == ["ch06 short"] and found["steps"]["ch06 long"]["why"] == "takes about 5 min, and 2.0 are left"
    assert measured("--minutes", "6", "--resume")[2] == ["ch06 long"]


def test_a_step_that_needs_another_waits_for_it(measured, monkeypatch):
    second = steps.Step("ch09 two", 1, (("-c", "pass"),), after="ch06 one")
    monkeypatch.setattr(plan, "plan", lambda: [python("ch06 one", "pass"), second])
    _, found, ran = measured("--only", "two")
    assert ran == [] and found["steps"]["ch09 two"]["why"] == "ch06 one is not done"
    assert measured("--resume")[2] == ["ch06 one", "ch09 two"]


def test_seeds_are_averaged_in_the_report():
    records = {
        f"ch06 vgg seed {seed}": {
            "status": "done", "group": "ch06 vgg", "goal": "score >= 0.9", "seconds": 9.0, "commands": ["train.py"],
            "figures": {"score": score, "score_is": "accuracy", "train_s": 10.0 * seed},
        }
        for seed, score in ((1, 0.91), (2, 0.93))
    }  # fmt: skip
    assert list(pages.groups(records)) == ["| ch06 vgg | accuracy 0.9200 ± 0.0141 | 15.0 | 2 | score >= 0.9 |"]


# ---- the plan ---------------------------------------------------------------------------------------------------------

ALL = plan.plan() + plan.page()


def test_names_are_unique_and_lead_to_chapters():
    for listed in (plan.plan(), plan.page()):
        assert len({step.name for step in listed}) == len(listed)
        assert all((step.folder / "README.md").exists() and 0 < step.minutes <= 20 for step in listed)
        assert {step.after for step in listed} - {""} <= {step.name for step in listed}
    assert {"cifar10", "weibo", "cmn-eng", ""} == {step.data for step in ALL}


@pytest.mark.parametrize("chapter", sorted({step.chapter for step in ALL}))
def test_the_plan_uses_flags_networks_and_packages_that_there_are(chapter):
    folder = next(ROOT.glob(f"{chapter}_*"))
    sources = "\n".join(path.read_text("utf-8") for path in [*folder.glob("*.py"), *(ROOT / "gpu").glob("*.py")])
    pytests = {"-p", "-k", "-m", "-q", "--junit-xml", "--collect-only"}
    for step in (step for step in ALL if step.chapter == chapter):
        words = [word for command in step.commands for word in (*command, *step.tiny)]
        for word, value in zip(words, [*words[1:], ""], strict=True):
            if word.startswith("-") and word not in pytests:
                name = word.removeprefix("--")
                assert word in sources or re.search(rf"[\"']{name.replace('-', '_')}[\"']", sources), (step.name, word)
            if word == "--arch":
                assert re.search(rf"\b{value}\b", (folder / "models.py").read_text("utf-8")), (step.name, value)
        for command in step.commands:
            assert command[0] == "-m" or Path(steps.fill(command[0], {"gpu": str(ROOT / "gpu")})).exists() or (
                folder / command[0]
            ).exists()  # fmt: skip
    pinned = (folder / "requirements.txt").read_text("utf-8").lower().replace("-", "_")
    other_names = {"PIL": "pillow", "sklearn": "scikit_learn", "cv2": "opencv", "yaml": "pyyaml"}
    for name in plan.NEEDS[chapter]:
        assert re.search(
            rf"^{other_names.get(name, name).lower()}\b|^{other_names.get(name, name).lower()}_", pinned, re.M
        ), name


def test_the_list_says_how_long_all_takes(capsys):
    measure.main(["--list", "--only", "speed"])
    assert capsys.readouterr().out.splitlines()[-1] == "   5 min in 2 steps"
    with pytest.raises(SystemExit, match="no step has such a name"):
        measure.main(["--list", "--only", "nonsense"])


# ---- BENCHMARKS.md ----------------------------------------------------------------------------------------------------


def report_of(machine, steps_, date="2026-01-02", dry=False):
    about = {
        "name": machine,
        "cpu": machine,
        "cores": 2,
        "flags": ["avx2"],
        "torch": "2.14.1",
        "products": {"fp32": 0.2, "bf16": 0.1},
    }
    return {"date": date, "dry": dry, "machine": about | {"bf16_over_fp32": 0.5}, "steps": steps_, "lacks": {}}


def bench(**figures):
    figures = {"arch": "vgg", "precision": "fp32", "batch_size": 8, "utilisation": 0.25} | figures
    return {
        "status": "done",
        "figures": figures,
        "commands": ["train.py --bench --arch vgg --precision auto"],
        "seconds": 3.0,
        "goal": "",
    }


def test_the_page_sets_ours_beside_the_plain_loop_and_lists_machines(tmp_path):
    rows = [{"format": "eager", "batch": 1, "p50_ms": 1.5, "p95_ms": 2, "p99_ms": 3, "per_s": 600, "over_eager": 1.0}]
    chosen = {"commands": ["train.py --bench --arch mobilenet"]}  # its precision is not what auto took
    records = {
        "ch06 bench mobilenet": bench(precision="bf16", pictures_per_s=9.0, plain_pictures_per_s=3.0) | chosen,
        "ch06 bench vgg": bench(pictures_per_s=300.0, plain_pictures_per_s=150.0),
        "ch12 bench general": bench(arch="general", pairs_per_s=9, tokens_per_s=4000, course_tokens_per_s=500),
        "ch13 bench formats": {**bench(), "figures": {"rows": rows}, "commands": ["bench.py"]},
        "ch11 bench textcnn": {"status": "skipped", "why": "no weibo_senti_100k.csv in data"},
    }
    (tmp_path / "a.json").write_text(json.dumps(report_of("New CPU", records)), "utf-8")
    (tmp_path / "b.json").write_text(
        json.dumps(report_of("Old CPU", {"x": records["ch06 bench vgg"]}, "2025-01-01")), "utf-8"
    )
    benchmarks.main([str(tmp_path), str(tmp_path)])
    english, chinese = ((tmp_path / f"BENCHMARKS{end}.md").read_text("utf-8") for end in ("", ".zh-CN"))
    assert (
        "| 6 | vgg | fp32 | 8 | 300 pictures/s | 150 | 2.00 | 25.0% | `train.py --bench --arch vgg --precision auto` |"
        in english
    )
    assert "| 12 | general | fp32 | 8 | 4,000 tokens/s | 500 | 8.00 | 25.0% |" in english
    assert "| eager | 1 | 1.5 | 2 | 600 | 1 |" in english and "Not measured: `ch11 bench textcnn`." in english
    assert english.index("New CPU | 2 | avx2 | 0.2 | 0.1 | 0.5 | fp32 |") < english.index("Old CPU | 2")
    rows = [[line for line in page.splitlines() if re.match(r"\|.*\d", line)] for page in (english, chinese)]
    assert [re.findall(r"[\d.,]*\d", row) for row in rows[0]] == [re.findall(r"[\d.,]*\d", row) for row in rows[1]]
    one_line = r"`[^`\n]+`"
    assert re.findall(one_line, english) == re.findall(one_line, chinese) and len(re.findall(one_line, english)) > 3


def test_a_dry_runs_figures_never_become_the_page(tmp_path):
    with pytest.raises(SystemExit, match="no report"):
        benchmarks.main([str(tmp_path)])
    (tmp_path / "a.json").write_text(json.dumps(report_of("CPU", {}, dry=True)), "utf-8")
    with pytest.raises(SystemExit, match="a dry run's report"):
        benchmarks.main([str(tmp_path)])
