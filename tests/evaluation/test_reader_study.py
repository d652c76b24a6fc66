import base64
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from napari_msgan.errors import VolumeError
from napari_msgan.evaluation import Region, reader_study_page

N = 12


@pytest.fixture
def regions():
    """True regions are dark, generated ones bright; the last grey level names the region."""
    return [
        Region(np.full((8, 8), (200 + i) / 255, np.float32), np.full((8, 8), i / 255, np.float32))
        for i in range(N)
    ]


def shown(page):
    """Return the grey level of every picture and whether the key calls it synthetic."""
    pictures = json.loads(re.search(r"const pictures = (.*);", page)[1])
    key = json.loads(base64.b64decode(re.search(r'atob\("(.*)"\)', page)[1]))
    contents = (io.BytesIO(base64.b64decode(uri.split(",")[1])) for uri in pictures)
    return [Image.open(content).getpixel((0, 0)) for content in contents], key


def test_every_region_is_shown_once_and_half_of_them_generated(regions):
    levels, key = shown(reader_study_page(regions, "Study"))
    assert [level >= 200 for level in levels] == key
    assert sorted(level % 200 for level in levels) == list(range(N))
    assert sum(key) == N // 2


def test_order_follows_the_seed_and_is_no_pattern(regions):
    page = reader_study_page(regions, "Study", seed=1)
    assert page == reader_study_page(regions, "Study", seed=1)
    assert page != reader_study_page(regions, "Study", seed=2)
    levels, key = shown(page)
    assert levels != sorted(levels)
    assert key != [index % 2 == 0 for index in range(N)]


def test_page_reads_nothing_from_elsewhere_and_escapes_its_title(regions):
    page = reader_study_page(regions, "<b>Study</b> & more")
    assert "default-src 'none'" in page
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)|https?://|@import|fetch\(""", page)
    assert "<b>" not in page
    assert "&lt;b&gt;Study&lt;/b&gt; &amp; more" in page


def test_one_region_is_no_study(regions):
    with pytest.raises(VolumeError, match="at least two regions"):
        reader_study_page(regions[:1], "Study")


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's script")
@pytest.mark.parametrize("wrong", [0, 3, N])
def test_page_scores_a_reader_with_the_wilson_interval_of_scipy(regions, wrong):
    page = reader_study_page(regions, "Study")
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)[1]
    said = f"isSynthetic.map((truth, i) => i < {wrong} ? !truth : truth)"
    # a page that a click on a button or a key answers, and nothing else
    harness = (
        "const parts = {}; const document = {addEventListener() {}, getElementById(id) {"
        "return parts[id] ??= {querySelector() { return {}; }}; }};"
        f"{script}; for (const s of {said}) parts[s ? 'synthetic' : 'real'].onclick();"
        "console.log(JSON.stringify({score: score(answers, isSynthetic), "
        "html: parts.result.innerHTML, left: parts.study.hidden}))"
    )
    ran = subprocess.run(["node", "-e", harness], capture_output=True, text=True, check=True)
    found = json.loads(ran.stdout)
    hits = N - wrong
    interval = binomtest(hits, N).proportion_ci(method="wilson")
    assert found["left"]
    assert found["score"]["hits"] == hits
    assert found["score"]["interval"] == pytest.approx([interval.low, interval.high], abs=1e-12)
    assert (
        f"Accuracy {100 * hits / N:.1f} % (95 % interval {100 * interval.low:.1f} %"
        in (found["html"])
    )
