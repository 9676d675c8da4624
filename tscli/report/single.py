"""The page of one run: what was learnt from whom, how it went, how good it is, and how to do it again."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from typing import Any

from tscli.config import UserError
from tscli.diagnose.diagnosis import findings_of
from tscli.envs.entries import entries_named
from tscli.envs.views import ViewSpec
from tscli.launch.scripts import find_script
from tscli.report.charts import Series, curves, level
from tscli.report.data import dataset_section, parting_section
from tscli.report.episodes import header_of, player
from tscli.report.figures import STUDENT, TEACHER, figures, reached
from tscli.report.fitting import film as fitted_film
from tscli.report.markup import Html, facts, grid, join, page, picture, section, table, tag
from tscli.report.story import FLAGS, Story, changed_settings, command_of, film_of, setting, story_of
from tscli.runs import Run
from tscli.runs.words import headline, made_by
from tscli.terminal.progress import short_time

LIMIT = 5_000_000  # bytes of a page
_FILMS = 8  # of a run, at the most
_OF_EPISODES = ("rollout/", "env/", "eval/", "eval_teacher/")  # what is measured of episodes, by whom
_FIRST, _DETAILS = (
    ("return", "success_rate"),
    ("reward_", "length"),
)  # which of it is shown first, and which folded away
_CLOCKS = ("step", "round", "epoch", "episodes", "updates", "loop_seconds", "steps_per_second", "eval/steps", "lr")


def run_page(run: Run, limit: int = LIMIT) -> str:
    """The page of a run, with what it was made from and the newest evaluation of its policy.

    Args:
        run: what it is about.
        limit: bytes that it should not exceed, which films and pictures of episodes are made to fit.
    """
    story = story_of(run)
    others = [one.path / f"{name}.png" for one in story.chain for name in ("varied", "visits")]
    before = [
        tag("h1", f"{story.subject.task_name}: {made_by(story.subject)}"),
        tag("p", sentence(story), class_="lead"),
        tag("p", " ".join(_about(story)), class_="lead"),
        tag("p", run.note, class_="note") if run.note else "",
        section("How good it is", figures(story.report)),
    ]
    after = [
        parting_section(story.report.get("parting", {})),
        section("Who learnt from whom", lineage(story)),
        section("How it was learnt", *map(lambda one: _learning(story, one), _learners(story))),
        section("What the latents tell", _latents(story.subject)),
        section("What the student can know", _findings(story.subject)),
        *(dataset_section(one, pairs) for one, pairs in story.pairs.items()),
        section("Pictures", *(picture(path, f"{path.parent.name}: {path.stem}") for path in others if path.is_file())),
        section("What was seen and done", _views(story)),
        section("Settings that differ from the defaults", *(_settings(story, one) for one in story.chain)),
        section("Again", _again(story)),
    ]
    title = f"{run.name}: tscli"
    room = limit - len(page(title, *before, *after).encode())
    return page(title, *before, section("In motion", *_motion(story, room)), *after)


def _about(story: Story) -> Iterable[str]:
    """What task and method are, in a sentence each."""
    if story.task is not None:
        yield f"The task: {story.task.about}"
    with contextlib.suppress(UserError):  # of a script of the user's own
        yield f"The method: {find_script(story.subject.command, story.subject.method).about}"


def _motion(story: Story, room: int) -> list[Html]:
    """Episodes to scrub through, and the film where that shows more, in so many bytes."""
    path, grid = film_of(story.evaluation), story.report.get("film_grid", "")
    roles = story.report.get("film_shows", [])
    film = Html()
    if path is not None and (story.evaluation is None or not header_of(story.evaluation) or len(roles) > 1 or grid):
        words = f"the policy of {story.subject.name}"
        if len(roles) > 1:
            words = f"{' beside '.join(f'the {role}' for role in roles)}, in the same episodes"
        beside = max(1, len(roles)) * int(grid.partition("x")[2] or 1)
        film = fitted_film(path, f"Greedy: {words}.{f' {grid} episodes.' if grid else ''}", room // 3, beside)
    shown = player(story.evaluation, room - len(film)) if story.evaluation is not None else Html()
    return [shown, film]


# --- what it is -------------------------------------------------------------------------------------------------------


def _entries(story: Story, run: Run) -> str:
    """What a run's policy saw: its view's entries by name and unit."""
    schema = next((pairs.schema for pairs in story.pairs.values()), None)
    words = []
    groups = schema.groups if schema is not None else {}
    view = run.manifest.get("view")
    for part in ViewSpec.from_json(view).parts if view else ():
        names = [part.group]
        if part.group in groups and not part.is_image and groups[part.group].fields:
            entries = entries_named(ViewSpec("", (part,)), groups)
            names = [entry.name + (f" [{entry.unit}]" if entry.unit else "") for entry in entries]
        elif part.index is not None:
            names = [f"{part.group}[{setting(part.index)}]"]
        words += names if len(names) <= 12 else [f"{part.group} ({len(names)} entries)"]
        disturbed = {"noise": part.noise, "delay": part.delay, "dropout": part.dropout}
        told = ", ".join(f"{name} {value:g}" for name, value in disturbed.items() if value)
        words[-1] += f" ({told})" if told else ""
    return ", ".join(words) or "not said"


def sentence(story: Story) -> Html:
    """The whole experiment in a few sentences."""
    subject, teachers = story.subject, story.teachers
    view = subject.manifest.get("view", {}).get("name")
    who = subject.role or ("policy" if "policy" in subject.holds else "run")
    parts: list[object] = [f"A {who} of ", tag("b", subject.task_name), f", by {made_by(subject)}"]
    if view:
        parts += [f", that sees {view} ({_entries(story, subject)})"]
    found = story.report.get("policies", {})
    for teacher in teachers:
        seen = teacher.manifest.get("view", {}).get("name", "its view")
        measured = found.get("teacher", {}).get("view", seen) if len(teachers) == 1 else seen
        # A run that trains both has the student's view in its manifest.
        words = f"{seen} ({_entries(story, teacher)})" if measured == seen else measured
        parts += [f". Its teacher, {teacher.name}, sees {words}"]
    if "student" in found and "teacher" in found and not teachers:
        parts += [f". Its teacher, trained along with it, sees {found['teacher'].get('view', 'its view')}"]
    if found:
        parts += [reached(story.report)]
    elif headline(subject):
        parts += [f". It reached {headline(subject)} in its own evaluations"]
    if subject.status != "finished":
        parts += [f". It is {subject.status}"]
    return join([*parts, "."])


def lineage(story: Story) -> Html:
    """Runs from the top down, each with lines from those that it was made from."""
    rows = {run.name: i for i, run in enumerate(story.chain)}
    height, left = 44, 30
    parts = []
    for run in story.chain:
        y = 20 + height * rows[run.name]
        sources = {}
        for role, entry in run.manifest["parents"].items():
            if entry["name"] in rows:
                above = 20 + height * rows[entry["name"]]
                bend = left - 10 - 9 * (rows[run.name] - rows[entry["name"]] - 1)
                sources[role] = entry["name"].partition("-")[0].lstrip("0")
                curve = f"M{left - 4},{above} C{bend - 6},{above} {bend - 6},{y} {left - 4},{y}"
                words = tag("title", f"{run.name} has its {role} from {entry['name']}")
                parts.append(tag("path", words, d=curve, fill="none", stroke="var(--rule)", stroke_width=2))
        colour = (
            "var(--c0)" if run.name == story.subject.name else "var(--c1)" if run.role == "teacher" else "var(--c5)"
        )
        parts.append(tag("circle", cx=left, cy=y, r=5, fill=colour))
        number = run.name.partition("-")[0].lstrip("0")
        parts.append(tag("text", f"{number}  {made_by(run)}", x=left + 14, y=y, class_="strong"))
        origin = ", ".join(f"{FLAGS.get(role, role)} {name}" for role, name in sources.items())
        took = short_time(float(run.manifest.get("seconds") or 0))
        under = ", ".join(filter(None, [headline(run) or run.status, took, origin and f"from {origin}"]))
        parts.append(tag("text", under, x=left + 14, y=y + 14))
    high = height * len(rows) + 8
    drawn = tag("svg", *parts, viewBox=f"0 0 360 {high}", role="img", aria_label="lineage", style="max-width:440px")
    return tag("figure", drawn)


# --- curves -----------------------------------------------------------------------------------------------------------


def _learners(story: Story) -> Iterable[Run]:
    return [run for run in story.chain[::-1] if run.command not in ("eval", "collect")]


def _learning(story: Story, run: Run) -> Html:
    lines = run.points
    clock = next((name for name in ("step", "epoch", "updates") if any(name in line for line in lines)), None)
    if clock is None:
        return Html()
    label = "env steps" if clock == "step" else f"{clock}s".replace("updatess", "updates")

    def series(name: str, as_: str, colour: int = STUDENT, **how: Any) -> Series:
        both = [(line.get(clock), line.get(name)) for line in lines]
        points = [(x, y) for x, y in both if x is not None and y is not None and math.isfinite(y)]
        return Series(as_, [p[0] for p in points], [p[1] for p in points], colour, **how)

    own = TEACHER if run.role == "teacher" else STUDENT
    names = [name for name in dict.fromkeys(name for line in lines for name in line) if name not in _CLOCKS]
    measured = dict.fromkeys(name.partition("/")[2] for name in names if name.startswith(_OF_EPISODES))
    first, rest = [], []
    for what in sorted(measured, key=lambda one: one not in _FIRST):
        one = [
            series(f"{'env' if f'env/{what}' in names else 'rollout'}/{what}", "while training", 5),
            series(f"eval/{what}", "evaluation, greedy", own, dots=True),
            series(f"eval_teacher/{what}", "its teacher, evaluation", TEACHER, dots=True),
        ]
        one += [
            level(teacher.name, float(value), one, TEACHER)
            for teacher in (story.teachers if run.name == story.subject.name else ())
            for value in [teacher.teacher_metric(what)]
            if value is not None and _is_number(value)
        ]
        if any(len(s.x) > (what not in _FIRST) for s in one[:3]):
            chart = curves(what.replace("_", " "), label, one, (0.0, 1.0) if what == "success_rate" else None)
            (rest if what.startswith(_DETAILS) else first).append(chart)
    for name in names:
        alone = series(name, name, own)
        if not name.startswith(_OF_EPISODES) and len(alone.x) > 1:
            (first if name.startswith("loss/") else rest).append(curves(name, label, [alone]))
    more = tag("details", tag("summary", f"{len(rest)} more"), grid(*rest)) if rest else ""
    return join([tag("h3", run.name), _films(run, label), grid(*first), more])


def _films(run: Run, label: str) -> Html:
    """What it did while it learnt: some of its short films, from the first to the last."""
    every = sorted((run.path / "films").glob("*.gif"))
    chosen = (
        [every[round(i * (len(every) - 1) / (_FILMS - 1))] for i in range(_FILMS)] if len(every) > _FILMS else every
    )
    shown = [picture(path, f"after {int(path.stem):,} {label}") for path in chosen if path.stem.isdecimal()]
    return tag("div", *shown, class_="films") if shown else Html()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


# --- what is known of it ----------------------------------------------------------------------------------------------


def _latents(run: Run) -> Html:
    """How much of each privileged entry can be read, linearly, from the student's latent and from its teacher's."""
    names = [name.removeprefix("latent/r2_teacher_") for name in run.metrics if name.startswith("latent/r2_teacher_")]
    by_role = [[run.metrics.get(f"latent/r2_{role}{name}") for name in names] for role in ("", "teacher_")]
    rows = [[name, *(f"{value:.2f}" if _is_number(value) else "-" for value in values)]
            for name, *values in zip(names, *by_role, strict=True)]  # fmt: skip
    intro = "R2 of linear probes, on episodes that they were not fitted on: 1 is all of an entry's variance, 0 none."
    titles = ["privileged entry", "from the student's latent", "from the teacher's"]
    drawn = run.path / "latents.png"
    shown = picture(drawn, f"The latents of {run.name}.") if drawn.is_file() else ""
    return join([tag("p", intro, class_="intro") if rows else "", table(titles, rows) if rows else "", shown])


def _findings(run: Run) -> Html:
    """What `tscli diagnose` makes of it in a second."""
    try:
        found = findings_of(run)
    except Exception:  # whatever is wrong with a check must not cost the page
        return Html()
    marks = {"fine": "fine", "note": "note-mark", "problem": "problem"}
    rows = [
        [tag("span", one.level, class_=f"mark {marks[one.level]}"), one.about, f"{one.what} {one.advice}".rstrip()]
        for one in found
    ]
    intro = "The quick ones of the checks that tscli diagnose makes of teacher, pairs and the student's view."
    return (
        join([tag("p", intro, class_="intro"), table(["", "about", "what was found"], rows, "findings")])
        if rows
        else Html()
    )


# --- what it was made with --------------------------------------------------------------------------------------------


def _views(story: Story) -> Html:
    rows: list[tuple[object, object]] = []
    seen = header_of(story.evaluation).get("roles", {}) if story.evaluation is not None else {}
    for role, one in seen.items():
        names = [name + (f" [{unit}]" if unit else "") for name, unit in one["entries"]]
        rows.append((role, f"{one['view']}: {', '.join([*names[:60], *one['images']])}{', ...' if names[60:] else ''}"))
    for run in [story.subject, *story.teachers] if not seen else ():
        if "view" in run.manifest:
            rows.append((f"{run.role or 'policy'} {run.manifest['number']}", _entries(story, run)))
    action = story.subject.manifest.get("action")
    if action:
        sizes = " x ".join(map(str, action["nvec"])) or str(len(action["low"]))
        rows.append(("action", f"{action['kind']}, {sizes}: {', '.join(action['names'])}".rstrip(": ")))
    return facts(rows)


def _settings(story: Story, run: Run) -> Html:
    changed = changed_settings(run, story.task)
    if not changed:
        return Html()
    rows = [[c.name, tag("b", c.value), c.default, "the task" if c.by_task else "the command"] for c in changed]
    shown = table(["setting", "value", "default", "said by"], rows, "wrap")
    return tag("details", tag("summary", f"{run.name}: {len(changed)}"), shown)


def _again(story: Story) -> Html:
    run = story.run
    commands = "\n".join(command_of(one, story.task) for one in story.chain)
    total = sum(float(one.manifest.get("seconds") or 0) for one in story.chain)
    rows: list[tuple[object, object]] = [
        ("runs", ", ".join(one.name for one in story.chain)),
        ("seeds", ", ".join(dict.fromkeys(str(one.seed) for one in story.chain))),
        ("began", story.chain[0].created),
        ("wall time", short_time(total)),
        ("versions", ", ".join(f"{name} {value}" for name, value in run.manifest.get("versions", {}).items())),
        ("commit", run.manifest.get("git_commit") or "none"),
    ]
    intro = "Names of runs stand for those of this folder; elsewhere give the numbers that the runs get there."
    return join([facts(rows), tag("pre", commands), tag("p", intro, class_="intro")])
