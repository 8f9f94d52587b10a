"""data/README.md says what the code says."""

from pathlib import Path

from kdlab.world import MEANING, NUISANCE, RANGES

TEXT = (Path(__file__).resolve().parents[1] / "data" / "README.md").read_text()


def test_the_nuisance_table_is_the_code_s():
    rows = TEXT.split("| nuisance | standard | range | what it is |\n")[1].split("\n\n")[0]
    said = [[cell.strip() for cell in row.strip("|").split(" | ")]
            for row in rows.splitlines()[1:]]
    assert said == [[f"`{name}`", f"{NUISANCE[name]:g}", "{:g} to {:g}".format(*RANGES[name]),
                     MEANING[name]] for name in NUISANCE]


def test_every_shipped_file_is_listed():
    data = Path(__file__).resolve().parents[1] / "data"
    for path in [*data.glob("*.*"), *(data / "teachers").glob("*.safetensors")]:
        if path.name != "README.md" and not path.name.startswith("LICENSE"):
            assert str(path.relative_to(data)) in TEXT, path


def test_measured_blocks_are_filled():
    for name in ("exposure", "protocols"):
        block = TEXT.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]
        assert len([row for row in block.splitlines() if row.startswith("| ")]) >= 4
