from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.runs import tiny_config
from transformers import dynamic_module_utils

import trimtab

OWN = "from transformers import LlamaForCausalLM\n\n\nclass Own(LlamaForCausalLM):\n    pass\n"


def test_a_result_with_code_answers_and_is_exported_where_the_run_trusted_it(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    few = {"method": "full", "max_steps": 1, "report_samples": 0, "eval_dataset": "none"}
    trimtab.train(tiny_config(tmp_path, tiny_llama_folder, **few))
    run = tmp_path / "run"
    described = run / "model" / "config.json"
    with_code = {"auto_map": {"AutoModelForCausalLM": "own.Own"}}
    described.write_text(json.dumps(json.loads(described.read_text()) | with_code))
    (run / "model" / "own.py").write_text(OWN)
    with pytest.raises(trimtab.ConfigError, match="brings code of its own"):
        trimtab.generate(run, ["hello"], max_new_tokens=1)

    plan = json.loads((run / "plan.json").read_text())
    (trusts,) = (each for each in plan["decisions"] if each["name"] == "trust_remote_code")
    trusts["value"] = True
    (run / "plan.json").write_text(json.dumps(plan))
    assert len(trimtab.generate(run, ["hello"], max_new_tokens=1)) == 1
    exported = trimtab.export_result(run, "merged", tmp_path / "merged")
    assert exported.comparison.max_logit_difference == 0
