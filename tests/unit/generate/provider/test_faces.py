"""What the rooms of generate load."""

import subprocess
import sys


def test_the_stage_loads_no_http_library_until_a_connection_is_opened():
    """An offline run, and whoever only needs a prompt or an answer, shall not wait for it."""
    code = (
        "import sys; import nanosft.generate.stage, nanosft.generate.authoring; from nanosft.generate import provider; "
        "heavy = {'httpx', 'aiohttp', 'torch'}; assert not heavy & set(sys.modules), heavy & set(sys.modules); "
        "provider.open_post; assert 'httpx' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
