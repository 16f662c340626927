"""The race of hypernetworks, cut down to two updates of one network."""

import dataclasses
import json
import pathlib

import pytest
import race

from ghn_jax.evaluation.accuracy import Score
from ghn_jax.hypernet.json_fields import append_lines
from ghn_jax.metatraining.command import parse_config

SMALL = (
    *("--batch-size=16", "--demo-width=8", "--num-architectures=1", "--meta-batch=1", "--sampler-workers=0"),
    *("--validate-every=1", "--validation-architectures=1", "--validation-images=16"),
    *("--test-architectures=1", "--test-images=16", "--hid=8", "--compile-threads=0"),
)


FAMILIES, RECIPES = race.FIELDS["families"], race.FIELDS["recipes"]


def test_families_see_the_same_networks_images_and_number_of_updates() -> None:
    configs = [parse_config(options, "") for options in FAMILIES.values()]
    assert len({(config.architectures, config.images, config.run) for config in configs}) == 1
    assert configs[0].architectures.split == "demo"
    assert len({config.ghn for config in configs}) == len(FAMILIES)


def test_recipes_differ_from_the_third_in_one_point_and_are_scored_alike() -> None:
    common = race.COMMON["recipes"]
    third = dataclasses.asdict(parse_config([*common, *RECIPES["cheaper networks"]], ""))
    for name, options in RECIPES.items():
        config = parse_config([*common, *options], "")
        assert (config.images.image_size, config.optimiser.average) == (32, 0.98)
        ours = dataclasses.asdict(config)
        changed = {
            (part, key)
            for part in third
            if part != "preset"
            for key in third[part]
            if ours[part][key] != third[part][key]
        }
        twice = ("AdamW", "Muon 2e-3", "Muon 4e-3")
        points = {"paper": 4, "16 x 16": 2, "cheaper networks": 0} | dict.fromkeys(twice, 2)
        assert len(changed) == points.get(name, 1), name


def test_what_a_race_does_not_know_or_use_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="no racer 'MLP'; known: 'paper', '16 x 16'"):
        race.run(race.Options(tmp_path, field="recipes", racers=("MLP",)))
    with pytest.raises(ValueError, match="steps = 5 has no effect for recipes"):
        race.run(race.Options(tmp_path, field="recipes", steps=5))


def test_who_has_finished_does_not_run_again_and_who_was_stopped_gets_the_rest(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def finish(command: list[str]) -> None:
        (folder,) = (pathlib.Path(part.partition("=")[2]) for part in command if part.startswith("--run-dir="))
        asked.append(next(part for part in command if part.startswith("--minutes=")))
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "metrics.jsonl").open("a") as file:
            rows = [{"kind": "train", "seconds": 60, "waited_seconds": 30}, {"kind": "validation", "top1": 0.5}]
            file.writelines(json.dumps({"step": 0, **row}) + "\n" for row in rows)
        if len(asked) == 1:
            raise InterruptedError
        for name, top1 in (("a", 0.2), ("b", 0.3)):
            append_lines(folder / "test.jsonl", [Score(name, 1, 1, top1, 0.5, None, None, 0.1)])

    monkeypatch.setattr(race, "train_and_score", finish)
    options = race.Options(tmp_path, racers=("MLP", "GHN-1"), minutes=2.0, warm_up=0)
    with pytest.raises(InterruptedError):
        race.run(options)
    results = race.run(options)
    assert asked == ["--minutes=2.0", "--minutes=0.5", "--minutes=2.0"]
    assert [(result.name, result.updates, result.top1) for result in results] == [("MLP", 2, 25.0), ("GHN-1", 1, 25.0)]
    assert race.run(options) == results
    assert len(asked) == 3
    with pytest.raises(ValueError, match=r"holds other results \(minutes was 2.0, now 3.0\)"):
        race.run(dataclasses.replace(options, minutes=3.0))
    (tmp_path / "race.json").write_text("[{}]")
    with pytest.raises(ValueError, match="is no table of a race"):
        race.run(options)


@pytest.mark.slow
def test_a_short_race_ends_with_a_table_and_a_picture(tmp_path: pathlib.Path) -> None:
    more = (*SMALL, "--schedule=cosine")
    options = race.Options(tmp_path, minutes=30, steps=2, racers=("MLP", "GHN-3 tiny"), more=more)
    results = race.run(options)
    assert [result.name for result in results] == ["MLP", "GHN-3 tiny"]
    assert all(result.updates == 2 and len(result.curve) == 2 for result in results)
    assert [row["name"] for row in json.loads((tmp_path / "race.json").read_text())] == ["MLP", "GHN-3 tiny"]
    assert (tmp_path / "race.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="no racer 'GHN-9'; known: 'GHN-1', 'MLP'"):
        race.run(race.Options(tmp_path, racers=("GHN-9",)))
