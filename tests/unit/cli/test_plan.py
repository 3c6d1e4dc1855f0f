"""`trainyard plan` without a network: what is printed, for people and for machines, and the exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.printed_plans import LLAMA, PLANS, QWEN, answered, folder_of, printed, spec_file
from tests.support.published import CATALOGUE, REFUSED, REPOSITORY
from trainyard.neuron.engines import engine
from trainyard.neuron.instances import INSTANCES
from trainyard.neuron.quantization import FORMATS, support
from trainyard_cli.main import app


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
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=180)
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
