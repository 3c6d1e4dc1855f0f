"""`trainyard plan` without a network: what is printed, for people and for machines, and the exit code."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from tests.support.published import CATALOGUE, MODELS, REFUSED, REPOSITORY
from trainyard.neuron.engines import engine
from trainyard.neuron.instances import INSTANCES
from trainyard.neuron.quantization import FORMATS, support
from trainyard_cli.main import app
from trainyard_cli.plan_question import Options
from trainyard_cli.planning import run

PLANS = Path(__file__).parent / "plans"
LLAMA = MODELS / "meta-llama--Llama-3.3-70B-Instruct"
QWEN = MODELS / "Qwen--Qwen3-32B"
WIDTH = 110


def folder_of(spec: Path) -> Path:
    repo: str = yaml.safe_load(spec.read_text())["model"]["repo"]
    return MODELS / repo.replace("/", "--")


def printed(spec: str | Path, config: Path | None, **options: Any) -> tuple[int, str]:
    """Exit code and text, as on a terminal of 110 columns without colours."""
    laid = {key: options.pop(key) for key in list(options) if key in Options.__dataclass_fields__}
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
    code = run(str(spec), Options(**laid), console, config=config, **options)
    assert isinstance(console.file, io.StringIO)
    return code, "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


def answered(spec: str | Path, config: Path | None, **options: Any) -> tuple[int, dict[str, Any]]:
    code, text = printed(spec, config, as_json=True, **options)
    found: dict[str, Any] = json.loads(text)
    return code, found


def spec_file(folder: Path, **document: Any) -> Path:
    document = {"name": "model", "model": {"repo": "org/model", "token_secret": "hub"}, **document}
    path = folder / "model.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize(("spec", "config"), [("my-llama", LLAMA), ("my-qwen", QWEN)])
def test_the_printed_plan_is_the_one_on_record(spec: str, config: Path) -> None:
    # After a change that is meant: read the difference, then write what was printed into the file.
    code, text = printed(PLANS / f"{spec}.yaml", config)
    assert code == 0
    assert text == (PLANS / f"{spec}.txt").read_text()


@pytest.mark.parametrize("spec", ["my-llama", "my-qwen"])
def test_the_page_shows_what_is_printed(spec: str) -> None:
    page = (REPOSITORY / "docs" / "preflight.md").read_text()
    shown = "".join(
        f"    {line}\n" if line else "\n" for line in (PLANS / f"{spec}.txt").read_text().splitlines()
    )
    assert shown.strip("\n") in page


@pytest.mark.parametrize(
    "entry", [path.stem for path in sorted(CATALOGUE.glob("*.yaml")) if folder_of(path).is_dir()]
)
def test_every_entry_of_the_catalogue_can_run(entry: str) -> None:
    code, found = answered(entry, folder_of(CATALOGUE / f"{entry}.yaml"))
    assert (code, found["can_run"], found["problems"]) == (0, True, [])


@pytest.mark.parametrize("spec", sorted(REFUSED.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_cannot_run_is_refused_with_exit_code_1(spec: Path) -> None:
    code, found = answered(spec, folder_of(spec))
    assert (code, found["can_run"]) == (1, False)
    assert found["problems"]
    assert found["plan"]["memory_of_a_core"]["free"] < 0
    code, text = printed(spec, folder_of(spec))
    assert code == 1
    assert "REFUSED: " in text.splitlines()[-1]


def test_options_are_laid_over_the_spec() -> None:
    code, found = answered(
        PLANS / "my-llama.yaml",
        LLAMA,
        engine="optimum",
        instance_type="trn1.32xlarge",
        tensor_parallel=16,
        batch_size=2,
        sequence_length=2048,
    )
    plan = found["plan"]
    assert (plan["engine"], plan["instance_type"], plan["tensor_parallel"]) == (
        "optimum",
        "trn1.32xlarge",
        16,
    )
    assert (plan["batch_size"], plan["sequence_length"], plan["lnc"]) == (2, 2048, 1)
    assert code == 0


def test_another_instance_type_comes_from_its_own_nodepool(tmp_path: Path) -> None:
    _, found = answered(PLANS / "my-llama.yaml", LLAMA, instance_type="trn1.32xlarge")
    assert found["plan"]["nodepool"] == "neuron-trn1"
    own = {"instance_type": "trn2.48xlarge", "tensor_parallel": 16, "nodepool": "mine"}
    _, found = answered(
        spec_file(tmp_path, hardware=own, engine="nxdi"), LLAMA, instance_type="trn1.32xlarge"
    )
    assert found["plan"]["nodepool"] == "mine"


def test_an_instance_type_without_its_nodepool_is_refused(tmp_path: Path) -> None:
    # The default of hardware.nodepool is that of trn2.
    hardware = {"instance_type": "inf2.48xlarge", "tensor_parallel": 16}
    large = "300Gi"
    spec = spec_file(
        tmp_path, hardware=hardware, engine="nxdi", compile={"memory": large}, serving={"memory": large}
    )
    code, found = answered(spec, LLAMA)
    assert code == 1
    assert [problem["field"] for problem in found["problems"]] == ["hardware.nodepool"]


def test_a_refusal_names_rule_field_value_and_remedy() -> None:
    code, text = printed(PLANS / "my-llama.yaml", LLAMA, tensor_parallel=4)
    assert code == 1
    assert "broken" in text
    flat = " ".join(text.split())
    assert "35.3 GB of weights" in flat
    assert "hardware.tensor_parallel = 4: TP 8 fits on trn2.48xlarge." in flat
    assert text.endswith("REFUSED: 1 rule is broken.\n")
    assert "cost of the release" not in text  # nobody pays for what is refused


# -- proposals


def test_a_proposal_is_a_spec_that_can_run_as_it_is_told(tmp_path: Path) -> None:
    code, found = answered(PLANS / "my-qwen.yaml", QWEN)
    assert code == 0
    assert found["open"] == ["engine", "hardware.instance_type", "hardware.tensor_parallel"]
    document = yaml.safe_load((PLANS / "my-qwen.yaml").read_text())
    whole = spec_file(tmp_path, **{**found["plan"]["changes"], "model": document["model"]})
    code, again = answered(whole, QWEN)
    assert (code, again["open"], again["proposal"]) == (0, [], None)
    for key in ("engine", "instance_type", "tensor_parallel", "nodepool", "memory_of_a_core"):
        assert again["plan"][key] == found["plan"][key]


def test_only_what_is_open_is_proposed(tmp_path: Path) -> None:
    spec = spec_file(tmp_path, engine="nxdi", hardware={"instance_type": "trn2.48xlarge"})
    _, found = answered(spec, LLAMA)
    assert found["open"] == ["hardware.tensor_parallel"]
    assert {choice["engine"] for choice in found["proposal"]["choices"]} == {"nxdi"}
    assert {choice["instance_type"] for choice in found["proposal"]["choices"]} == {"trn2.48xlarge"}
    assert found["plan"]["changes"]["hardware"] == {"tensor_parallel": found["plan"]["tensor_parallel"]}


def test_memory_and_cpus_that_the_spec_names_are_kept_and_others_follow(tmp_path: Path) -> None:
    spec = spec_file(tmp_path, compile={"memory": "400Gi"})
    _, found = answered(spec, LLAMA)
    changes = found["plan"]["changes"]
    assert "compile" not in changes
    assert changes["serving"]["memory"].endswith("Gi")
    assert int(changes["serving"]["memory"][:-2]) * 2**30 >= found["plan"]["host_memory"]["serving"]


def test_a_small_instance_is_proposed_with_the_cpus_that_it_has(tmp_path: Path) -> None:
    spec = spec_file(tmp_path, hardware={"instance_type": "trn1.2xlarge"})
    code, found = answered(spec, MODELS / "Qwen--Qwen3-4B")
    assert code == 0
    assert found["plan"]["changes"]["compile"]["cpu"] == 7
    assert found["plan"]["changes"]["serving"]["cpu"] == 7


def test_where_nothing_fits_every_reason_is_told_and_nothing_is_planned(tmp_path: Path) -> None:
    spec = spec_file(tmp_path, hardware={"instance_type": "inf2.xlarge"})
    code, found = answered(spec, LLAMA)
    assert (code, found["can_run"], found["plan"], found["estimate"]) == (1, False, None, None)
    assert found["proposal"]["choices"] == []
    assert {item["rule"] for item in found["proposal"]["refusals"]} == {"fit", "family"}
    code, text = printed(spec, LLAMA)
    assert code == 1
    assert text.endswith("REFUSED: no combination keeps every rule.\n")


def test_a_model_with_its_own_code_gets_no_proposal() -> None:
    code, found = answered(REFUSED / "deepseek-v3.yaml", MODELS / "deepseek-ai--DeepSeek-V3")
    assert code == 1
    assert "auto_map" in found["problems"][0]["field"]


def test_an_open_spec_of_a_model_with_its_own_code_is_refused_at_once(tmp_path: Path) -> None:
    code, text = printed(spec_file(tmp_path), MODELS / "deepseek-ai--DeepSeek-V3")
    assert code == 1
    assert "auto_map" in text
    assert "keeps every rule" not in text


# -- prices


def test_a_price_table_of_ones_own_is_used_and_named(tmp_path: Path) -> None:
    table = tmp_path / "prices.yaml"
    table.write_text("date: 2026-11-01\nsource: our contract\nprices:\n  trn2.48xlarge: 10\n")
    code, found = answered(PLANS / "my-llama.yaml", LLAMA, prices=table)
    assert code == 0
    assert (found["prices"]["date"], found["prices"]["source"]) == ("2026-11-01", "our contract")
    assert found["estimate"]["serving_dollars_an_hour"] == 10
    assert "of 2026-11-01: our contract" in printed(PLANS / "my-llama.yaml", LLAMA, prices=table)[1]


def test_a_price_table_can_be_json_and_may_leave_the_instance_out(tmp_path: Path) -> None:
    table = tmp_path / "prices.json"
    table.write_text('{"prices": {"inf2.xlarge": {"dollars": 1, "sold": "spot"}}}')
    code, found = answered(PLANS / "my-llama.yaml", LLAMA, prices=table)
    assert (code, found["estimate"]["dollars"], found["prices"]["used"]) == (0, None, None)
    assert (
        "not known: the price table has no such instance type"
        in printed(PLANS / "my-llama.yaml", LLAMA, prices=table)[1]
    )


# -- configs


def test_a_config_alone_is_enough(tmp_path: Path) -> None:
    config = tmp_path / "any-name.json"
    config.write_bytes((LLAMA / "config.json").read_bytes())
    _, found = answered(PLANS / "my-llama.yaml", config)
    assert found["model"]["weights_from"] == "config"
    assert found["model"]["weight_bytes"] == 141_107_412_992


def test_an_index_beside_the_config_says_what_the_weights_weigh(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((LLAMA / "config.json").read_bytes())
    index = {"metadata": {"total_size": 140_000_000_000}, "weight_map": {}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    _, found = answered(PLANS / "my-llama.yaml", tmp_path)
    assert (found["model"]["weights_from"], found["model"]["weight_bytes"]) == ("index", 140_000_000_000)


# -- questions that cannot be answered


def bad(spec: str | Path, config: Path | None = LLAMA, **options: Any) -> str:
    code, text = printed(spec, config, **options)
    assert code == 2
    code, found = answered(spec, config, **options)
    assert (code, found["can_run"]) == (2, None)
    assert found["error"].strip() == text.strip()
    return text


def test_an_unknown_entry_is_a_bad_question() -> None:
    assert "no such entry" in bad("no-such-model")


def test_a_file_that_is_not_there_is_a_bad_question() -> None:
    assert "is no file" in bad("somewhere/else.yaml")


def test_a_misspelt_field_is_a_bad_question(tmp_path: Path) -> None:
    assert "hardwear" in bad(spec_file(tmp_path, hardwear={}))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "tensorrt"}, "no such engine"),
        ({"instance_type": "p5.48xlarge"}, "not a Neuron instance type"),
        ({"tensor_parallel": 0}, "hardware.tensor_parallel"),
        ({"batch_size": 100_000}, "compile.batch_size"),
    ],
)
def test_an_option_that_means_nothing_is_a_bad_question(options: dict[str, Any], words: str) -> None:
    assert words in bad(PLANS / "my-llama.yaml", **options)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", b"{", "no JSON"),
        ("config.json", b"[]", "not an object"),
        ("config.json", b"\xff", "cannot be read"),
        ("config.json", b'{"a":' * 100_000, "no JSON"),
        ("weights.json", b"{}", "total_size"),
    ],
)
def test_a_config_that_is_none_is_a_bad_question(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / "config.json").write_bytes((LLAMA / "config.json").read_bytes())
    (tmp_path / name).write_bytes(content)
    assert words in bad(PLANS / "my-llama.yaml", tmp_path)


def test_a_config_that_says_too_little_is_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    code, text = printed(PLANS / "my-llama.yaml", tmp_path)
    assert code == 1
    assert "positive whole number" in text
    code, found = answered(PLANS / "my-llama.yaml", tmp_path)
    assert (code, found["can_run"], set(found)) == (1, False, {"schema", "can_run", "problems"})


@pytest.mark.parametrize("content", ["prices: [", "prices: 3", "a: &b [*b]", "prices: {trn2.48xlarge: free}"])
def test_prices_that_are_none_are_a_bad_question(tmp_path: Path, content: str) -> None:
    table = tmp_path / "prices.yaml"
    table.write_text(content)
    assert str(table) in bad(PLANS / "my-llama.yaml", prices=table)


# -- machines

SCHEMA = {
    "": "can_run estimate model name open plan prices problems proposal repo revision rules schema",
    "plan": "batch_size changes chips chips_of_instance engine engine_version holds host_memory image "
    "instance instance_type lnc loaded memory_of_a_core nodepool nodes replicas sequence_length target "
    "tensor_parallel",
    "estimate": "accelerator_hours assumptions dollars minutes serving_dollars_an_hour stages",
    "prices": "date source used",
    "plan.memory_of_a_core": "copies free hbm kv_bytes_per_token kv_cache overhead weights weights_total",
}


def test_the_json_form_has_the_documented_fields() -> None:
    _, found = answered(PLANS / "my-llama.yaml", LLAMA)
    page = (REPOSITORY / "docs" / "preflight.md").read_text()
    for path, keys in SCHEMA.items():
        part = found
        for key in filter(None, path.split(".")):
            part = part[key]
        assert " ".join(sorted(part)) == keys
        for key in part:
            assert f"`{key}`" in page, f"docs/preflight.md does not explain {path}.{key}"
    assert found["schema"] == 1


def test_the_json_form_of_a_proposal_has_choices_and_refusals() -> None:
    _, found = answered(PLANS / "my-qwen.yaml", QWEN)
    first, last = found["proposal"]["choices"][0], found["proposal"]["choices"][-1]
    assert first["dollars_an_hour"] <= last["dollars_an_hour"]
    assert set(found["proposal"]["refusals"][0]) == {
        "engines",
        "instance_types",
        "tensor_parallels",
        "rule",
        "words",
    }


# -- the command itself


def test_the_command_takes_the_options_and_exits_with_the_code() -> None:
    runner = CliRunner()
    base = ["plan", str(PLANS / "my-llama.yaml"), "--config", str(LLAMA)]
    assert runner.invoke(app, base).exit_code == 0
    laid = runner.invoke(app, [*base, "--tp", "4", "--batch", "2", "--sequence", "1024", "--json"])
    assert laid.exit_code == 1
    plan = json.loads(laid.stdout)["plan"]
    assert (plan["tensor_parallel"], plan["batch_size"], plan["sequence_length"]) == (4, 2, 1024)
    assert runner.invoke(app, ["plan", "no-such-model", "--config", str(LLAMA)]).exit_code == 2
    assert runner.invoke(app, [*base, "--hub"]).exit_code == 2


def test_it_starts_without_airflow_cluster_or_s3() -> None:
    script = (
        "import sys\n"
        "from trainyard_cli.main import app\n"
        "early = {'trainyard.spec', 'trainyard.neuron.rules', 'pydantic'} & set(sys.modules)\n"
        "assert not early, early\n"
        f"sys.argv = ['trainyard', 'plan', {str(PLANS / 'my-llama.yaml')!r}, '--config', {str(LLAMA)!r}]\n"
        "try:\n"
        "    app()\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        "late = {'airflow', 'boto3', 'kubernetes', 'kubernetes_asyncio', 'huggingface_hub', 'aiohttp'}\n"
        "assert not late & set(sys.modules), late & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# -- the page's tables


def test_the_page_has_every_instance_type_rule_and_engine() -> None:
    page = (REPOSITORY / "docs" / "preflight.md").read_text()
    for kind in INSTANCES.values():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{kind.name}` |"))
        for cell in (
            f"{kind.chips} {kind.chip}",
            str(kind.physical_cores),
            f"{kind.hbm_gb} GB",
            str(kind.vcpus),
        ):
            assert f"| {cell} |" in row
        assert row.endswith(f"| {'yes' if kind.auto_mode else 'no'} |")
    _, found = answered(PLANS / "my-llama.yaml", LLAMA)
    for rule in found["rules"]:
        assert f"`{rule['name']}`" in page


def test_the_page_tells_which_format_runs_where() -> None:
    page = (REPOSITORY / "docs" / "preflight.md").read_text().splitlines()
    names = ("BF16", "FP16", "FP8 E4M3", "FP8 E5M2", "INT8", "AWQ", "GPTQ", "GGUF")
    head = next(line for line in page if line.startswith("| format |"))
    columns = [cell.strip() for cell in head.strip("|").split("|")][1:]
    said = {"loads": "loaded", "makes": "made", "no": "no"}
    for name, form in zip(names, FORMATS, strict=True):
        row = next(line for line in page if line.startswith(f"| {name} |"))
        for column, cell in zip(columns, row.strip("|").split("|")[1:], strict=True):
            engine_name, chips = column.replace("`", "").split(", ", 1)
            found = support(engine(engine_name), "trn2" if chips == "Trainium2" else "trn1", form)
            assert tuple(said[word] for word in cell.strip().split(", ")) == found.how
