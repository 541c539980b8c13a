"""The reference and the sample: true to the model, and useful as they are."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.config.docs import REFERENCE, SAMPLE, reference_markdown, sample_yaml
from gateway.config.load import read_settings
from gateway.config.model import Settings
from gateway.mail.dkim.keys import SigningKey
from gateway.testing import CA

ROOT = Path(__file__).parents[2]


def test_the_committed_files_are_fresh() -> None:
    stale = "run `python -m gateway.config.docs`"
    assert (ROOT / REFERENCE).read_text(encoding="utf-8") == reference_markdown(), stale
    assert (ROOT / SAMPLE).read_text(encoding="utf-8") == sample_yaml(), stale


def test_every_key_has_a_meaning_and_stands_in_both() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert f"| `{name}` |" in reference_markdown()
        assert re.search(rf"^#?{name}:", sample_yaml(), re.MULTILINE), name
    assert "|  |\n" not in reference_markdown(), "a key without a meaning"


def test_the_sample_loads_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(sample_yaml(), encoding="utf-8")
    assert read_settings(tmp_path / "gateway.yaml", environ={}).faults == ()


def test_the_sample_loads_with_everything_taken_in(tmp_path: Path) -> None:
    """Taking away the # in the first column gives a file whose every default and example is valid."""
    certificate = CA().issue("gw.clinic.example")
    (tmp_path / "tls.key").write_bytes(certificate.key_pem)
    (tmp_path / "tls.crt").write_bytes(certificate.chain_pem)
    (tmp_path / "relay.secret").write_text("0123456789abcdef")
    (tmp_path / "dkim").mkdir()
    (tmp_path / "dkim/s1.pem").write_bytes(SigningKey.generate("ed25519").pem)
    text = re.sub(r"^#(?=\S|  )", "", sample_yaml(), flags=re.MULTILINE)
    text = text.replace("/etc/gateway/", "").replace("data_dir: /var/lib/gateway", "data_dir: var")
    (tmp_path / "gateway.yaml").write_text(text, encoding="utf-8")
    reading = read_settings(tmp_path / "gateway.yaml", environ={})
    assert reading.faults == ()
    assert reading.settings is not None
    assert reading.settings.connectors[0].lock_factors == {"tenant", "header"}
    assert reading.settings.delivery == reading.settings.delivery.model_copy()
