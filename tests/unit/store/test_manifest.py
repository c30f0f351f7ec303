"""What a manifest and a configuration say, and how two differ."""

import json
import tomllib

from galbatch.store.manifest import differences, dump_toml, fingerprint


def test_differences_name_key_and_file_with_both_values(tmp_path):
    file = tmp_path / "a.fits"
    file.write_bytes(b"x" * 10)
    state = lambda draws, band, sha: {  # noqa: E731
        "config": {"draws": draws, "survey": {"bands": [{"name": band}]}},
        "inputs": [fingerprint(file)],
        "model": {"sha256": sha},
    }
    old = state(16, "a", "1")
    assert differences(old, json.loads(json.dumps(old))) == []
    file.write_bytes(b"y" * 10)
    text = "\n".join(differences(old, state(8, "b", "2")))
    assert "draws: was 16, is 8" in text and "survey.bands.0.name: was a, is b" in text
    assert str(file) in text and "sha256 was 1, is 2" in text


def test_toml_reads_back():
    run = {"seed": 0, "name": 'a "b" \\ ü', "ok": True, "x": 1e-9, "bands": ["a", "b"], "acf": [[1.0, 0.5]]}
    bands = [{"name": "f200w", "tiles": [{"name": "0", "sci": {"path": "a", "ext": []}}]}]
    layout = {"planes": {"err": {"ext": ["ERR"]}}, "empty": {}}
    data = {"run": run, "survey": {"bands": bands, "layout": layout}}
    assert tomllib.loads(dump_toml(data | {"none": None})) == data
