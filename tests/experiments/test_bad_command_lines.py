"""Bad command lines of every command: a message that names the option, and an exit code; never a traceback."""

import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import benchmark
import compile_curve
import eval_ghn
import generate_deepnets
import jax
import plot_run
import predict_params
import pytest
import running
import tyro
from benchmarks import memory
from tiny_runs import ROOT, environment

from ghn_jax.metatraining.command import parse_config, set_up
from ghn_jax.metatraining.config import RunConfig

HUGE = "100000000000000000000"
NUMBERS = ("nan", "inf", "-inf", "-1", "x", "")


def options_of(command: Any) -> Callable[[Sequence[str]], Any]:
    return lambda arguments: tyro.cli(command.Options, args=arguments)


PARSERS: dict[str, Callable[[Sequence[str]], Any]] = {
    "meta_train": lambda arguments: parse_config(arguments, ""),
    "eval_ghn": options_of(eval_ghn),
    "generate_deepnets": options_of(generate_deepnets),
    "compile_curve": options_of(compile_curve),
    "benchmark": options_of(benchmark),
    "memory": options_of(memory),
    "plot_run": options_of(plot_run),
    "predict_params": options_of(predict_params),
}
NEEDED = {
    "eval_ghn": ["--ghn=none"],
    "benchmark": ["sampling"],
    "predict_params": ["--model=flax.linen:Dense", "--input=8,8,3", "--out=nowhere"],
}

CLUSTER = ["--distributed", "--num-processes=2", "--process-id=0"]

Line = tuple[str, list[str], str]
"""Command, arguments, and what the message must name."""


def each(command: str, option: str, *values: str) -> list[Line]:
    """The same option with one bad value after the other."""
    return [(command, [f"--{option}={value}"], option) for value in values]


TRAINING: list[Line] = [
    *(
        line
        for option in ("learning-rate", "clip", "decay", "minutes")
        for line in each("meta_train", option, "0", *NUMBERS)
    ),
    *(line for option in ("l2", "checkpoint-minutes", "max-skipped") for line in each("meta_train", option, *NUMBERS)),
    *each("meta_train", "label-smoothing", "nan", "-0.1", "1", "1.5"),
    *each("meta_train", "decay", "1.1"),
    *each("meta_train", "seed", HUGE, "-1", "4294967296", "1.5", "nan", "1e3"),
    *(
        line
        for option in ("epochs", "steps", "batch-size", "image-size", "images-per-class", "num-architectures")
        for line in each("meta_train", option, "0", "-1", HUGE, "2.5")
    ),
    *(
        line
        for option in ("meta-batch", "max-nodes", "keep-last", "validate-every", "validation-images", "test-images")
        for line in each("meta_train", option, "0", "-3", HUGE)
    ),
    *(
        line
        for option in ("compile-ahead", "compile-threads", "sampler-workers", "image-workers", "warmup-steps")
        for line in each("meta_train", option, "-1", HUGE)
    ),
    *each("meta_train", "validation-architectures", "-1"),
    *each("meta_train", "test-architectures", "-1"),
    *each("meta_train", "threads", "0", "-1", HUGE),
    *each("meta_train", "hid", "0", "-4", "30", "x"),
    *each("meta_train", "s-max", "0", "251"),
    *each("meta_train", "rounds", "0"),
    *each("meta_train", "preset", "ghn4", ""),
    *each("meta_train", "split", "tset", ""),
    *each("meta_train", "schedule", "linear"),
    *each("meta_train", "dtype", "int32", "float16"),
    *each("meta_train", "encoder", "gru"),
    *each("meta_train", "decoder", "linear"),
    *each("meta_train", "normalization", "fan"),
    *each("meta_train", "few-shot", "last"),
    *each("meta_train", "dataset", ""),
    *each("meta_train", "num-classes", "7"),
    *each("meta_train", "learning-rat", "1"),
    ("meta_train", ["--num_classes", "7"], "num-classes"),
    ("meta_train", ["--num-classes"], "num-classes"),
    ("meta_train", ["--milestones", "10", "-1"], "milestones"),
    ("meta_train", ["--milestones", "x"], "milestones"),
    ("meta_train", ["--max-shape", "8", "8", "3"], "max-shape"),
    ("meta_train", ["--max-shape", "8", "8", "3", "5"], "max-shape"),
    ("meta_train", ["--max-shape", "8", "8", "0", "0"], "max-shape"),
    ("meta_train", ["--compile-ahead=-1", "--compile-threads=1"], "compile-ahead"),
    ("meta_train", ["extra"], "extra"),
    ("meta_train", ["--preset=mlp", "--s-max=4"], "s-max"),
    # Options that contradict others or have no effect beside them.
    ("meta_train", ["--preset=demo", "--architecture-file=a.hdf5"], "architecture-file"),
    ("meta_train", ["--split=demo", "--architecture-file=a.hdf5"], "architecture-file"),
    ("meta_train", ["--demo-width=8"], "demo-width"),
    ("meta_train", ["--preset=demo", "--demo-width=12"], "demo-width"),
    ("meta_train", ["--preset=demo", "--milestones", "3"], "milestones"),
    ("meta_train", ["--preset=demo", "--decay=0.5"], "decay"),
    ("meta_train", ["--few-shot=first"], "few-shot"),
    ("meta_train", ["--dataset=digits", "--data-dir=here"], "data-dir"),
    ("meta_train", ["--dataset=folder:there", "--data-dir=here"], "data-dir"),
    ("meta_train", ["--coordinator=localhost:1234"], "coordinator"),
    ("meta_train", ["--num-processes=2"], "num-processes"),
    ("meta_train", ["--process-id=0"], "process-id"),
    ("meta_train", ["--distributed", "--process-id=0"], "coordinator"),
    ("meta_train", ["--distributed", "--coordinator=localhost:1"], "num-processes"),
    *(
        ("meta_train", [*CLUSTER, f"--coordinator={place}"], "coordinator")
        for place in ("localhost", ":12", "a b:12", "host:x", "")
    ),
    ("meta_train", ["--distributed", "--coordinator=a:1", "--num-processes=2", "--process-id=2"], "process-id"),
    ("meta_train", ["--distributed", "--coordinator=a:1", "--num-processes=0", "--process-id=0"], "num-processes"),
    ("meta_train", ["--distributed", "--coordinator=a:1", "--num-processes=2", "--process-id=-1"], "process-id"),
]
OTHERS: list[Line] = [
    *(
        line
        for option in ("architectures", "images", "batch-size", "bn-batches", "image-size")
        for line in each("eval_ghn", option, "0", "-1", HUGE, "x")
    ),
    *each("eval_ghn", "seed", HUGE, "-1"),
    *each("eval_ghn", "split", "train", "tset", ""),
    *each("eval_ghn", "image-split", "train"),
    *each("eval_ghn", "bn", "running"),
    *each("eval_ghn", "random-init", "zeros"),
    *each("eval_ghn", "demo-width", "0", "8"),
    *each("eval_ghn", "ghn", ""),
    *each("eval_ghn", "dataset", ""),
    *each("eval_ghn", "bn-batches", "3"),
    *each("eval_ghn", "data-dir", "here"),
    ("eval_ghn", ["--split=demo", "--demo-width=12"], "demo-width"),
    ("eval_ghn", ["--split=demo", "--architecture-file=a"], "architecture-file"),
    ("eval_ghn", ["--split=predefined", "--architecture-file=a"], "architecture-file"),
    *each("generate_deepnets", "split", "predefined", "tset", ""),
    *each("generate_deepnets", "count", "0", "-1", HUGE, "x"),
    *each("generate_deepnets", "seed", HUGE, "-1"),
    *each("generate_deepnets", "workers", "0", "-2", HUGE),
    *each("generate_deepnets", "out", "a.png", "a.json", "a", ""),
    *(line for option in ("networks", "first", "seed") for line in each("compile_curve", option, "-1", HUGE, "x")),
    *each("compile_curve", "first", "300", "301"),
    *each("compile_curve", "networks", "0", "100"),
    *each("compile_curve", "picture", "a.txt", "a"),
    *each("benchmark", "repeats", "0", "-1", HUGE, "x"),
    ("benchmark", ["speed"], "speed"),
    ("memory", ["0"], "networks"),
    ("memory", ["-1"], ""),
    ("memory", ["x"], "networks"),
    ("plot_run", [], "run-dir"),
    ("plot_run", ["a", "b"], "b"),
    *each(
        "predict_params", "model", "", "flax.linen", ":", "flax.linen:", ":Dense", "a:b:c", "../a:b", "a b:c", "a;x:y"
    ),
    *each("predict_params", "input", "", "8,8", "8,x,3", "-1,8,3", "0,8,3", "8,8,3,3", f"{HUGE},8,3", "8.5,8,3"),
    *each("predict_params", "arguments", "", "[]", "3", "{", "{'a': 1}", "null", "[" * 100_000),
    *each("predict_params", "call-kwargs", "", "[1]", "{"),
    *each("predict_params", "layout", "", "HW", "HHC", "XYZ", "NCHWD", "H1C"),
    *each("predict_params", "seed", HUGE, "-1", "x"),
]


def words(text: str) -> str:
    """Text without the frames, line ends and hyphens that a terminal's width and style decide."""
    return re.sub(r"[\s│─╭╮╰╯]+", "", text).replace("_", "-")


@pytest.mark.parametrize("command", PARSERS)
def test_bad_options_are_refused_by_name(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for line in TRAINING + OTHERS if line[0] == command]
    assert lines
    for _, arguments, name in lines:
        needed = [part for part in NEEDED.get(command, []) if not any(part.split("=")[0] in one for one in arguments)]
        needed = [] if arguments == ["speed"] else needed
        with pytest.raises(SystemExit) as ended:
            PARSERS[command]([*needed, *arguments])
        said = words("".join(capsys.readouterr()))
        assert ended.value.code == 2, arguments
        assert name in said.lower(), (arguments, said)


def test_there_are_many() -> None:
    assert len(TRAINING) + len(OTHERS) >= 250


def test_good_options_are_taken() -> None:
    for arguments in (["--preset=demo"], ["--dataset=imagenet2012"], ["--preset=demo", "--dataset=imagenet2012"]):
        PARSERS["meta_train"](arguments)
    cluster = ["--distributed", "--coordinator=[::1]:1234", "--num-processes=2", "--process-id=1"]
    assert PARSERS["meta_train"](cluster).run.coordinator == "[::1]:1234"
    assert PARSERS["meta_train"](["--distributed"]).run.coordinator is None
    for command, needed in NEEDED.items():
        PARSERS[command](needed)
    assert PARSERS["generate_deepnets"](["--count=3", "--out=a.h5"]).count == 3


class Broken:
    """A model whose making fails, in a way of its own."""

    def __init__(self, kind: str = "KeyError") -> None:
        raise {"KeyError": KeyError, "OSError": OSError, "RuntimeError": RuntimeError}[kind]("no such thing")


THIS = "test_bad_command_lines"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "there_is_no_such_module:Net"}, "--model .*ModuleNotFoundError"),
        ({"model": "flax.linen:NoSuchNet"}, "--model .*NoSuchNet"),
        ({"model": "math:pi"}, "--model 'math:pi' cannot be initialised.*cannot trace a float"),
        ({"model": "math:sqrt"}, "--model 'math:sqrt' cannot be made with --arguments: TypeError"),
        ({"model": "flax.linen:Dense"}, "--model .*--arguments: TypeError: .*features"),
        ({"model": "flax.linen:Dense", "arguments": '{"feature": 1}'}, "--model .*--arguments: TypeError: .*feature"),
        ({"model": "flax.linen:Dense", "arguments": '{"features": "x"}'}, "--model .*--input=8,8,3"),
        ({"model": "flax.linen:Dense", "arguments": '{"features": -1}'}, "--model .*--input=8,8,3"),
        ({"model": "small_models:INSTANCE", "arguments": '{"classes": 3}'}, "--arguments have no effect"),
        ({"model": "small_models:Small", "call_kwargs": '{"speed": 3}'}, "--model .*speed"),
        ({"model": "small_models:Small", "input": "4,4,64"}, "layout="),
        ({"model": "small_models:Small", "ghn": "there/is/none"}, "there/is/none"),
        ({"model": "small_models:Small", "ghn": ""}, "hypernetwork"),
        ({"out": pathlib.Path()}, "--out .*exists already"),
    ],
)
def test_bad_models_end_with_a_message(options: dict[str, Any], message: str, tmp_path: pathlib.Path) -> None:
    given: dict[str, Any] = {"model": "small_models:Small", "input": "8,8,3", "out": tmp_path / "out", **options}
    with pytest.raises(ValueError, match=message) as raised:
        predict_params.run(predict_params.Options(**given))
    assert running.message(raised.value) == str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["KeyError", "OSError", "RuntimeError"])
def test_whatever_a_model_raises_is_told(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, THIS, sys.modules[__name__])
    with pytest.raises(ValueError, match=f"--model .*{kind}: .*no such thing"):
        predict_params.load_model(f"{THIS}:Broken", {"kind": kind}, 0)


@pytest.mark.parametrize("error", [ValueError("coordinator_address should be defined."), RuntimeError("deadline")])
def test_processes_that_do_not_meet_are_told_what_to_give(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def initialize(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ValueError, match=f"--distributed: {error}.*--coordinator, --num-processes and --process-id"):
        set_up(RunConfig(distributed=True, compilation_cache=""))


@pytest.mark.parametrize(
    ("command", "code", "name"),
    [
        (["meta_train.py", "--distributed", "--compilation-cache="], 1, "--distributed"),
        (["eval_ghn.py", "--ghn=there/is/none", "--compilation-cache="], 1, "there/is/none"),
        (["generate_deepnets.py", "--out=/proc/none/a.hdf5", "--count=1"], 1, "/proc/none"),
        (["plot_run.py", "there/is/none"], 1, "there/is/none"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_whole_commands(command: list[str], code: int, name: str, tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / command[0]), *command[1:]],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert name in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
