"""hover-net 0.0.10 (PyPI) as an oracle: its network, its post-processing, its metrics, past the package's own __init__.

Needs numpy, scipy, torch, opencv-python-headless, scikit-image and `pip install --no-deps hover-net==0.0.10`.
"""

import importlib
import importlib.util
import sys
import types

import numpy as np
import scipy.ndimage


def _stub():
    """A module `hover_net` that is only a folder, and the names that SciPy has dropped since."""
    spec = importlib.util.find_spec("hover_net")
    if spec is None:
        sys.exit("parity: hover-net is missing\nparity: cure: make parity (it makes an environment of its own)")
    module = types.ModuleType("hover_net")
    module.__path__ = list(spec.submodule_search_locations)
    sys.modules["hover_net"] = module
    for name in ("measurements", "morphology"):
        sys.modules[f"scipy.ndimage.{name}"] = scipy.ndimage
        setattr(scipy.ndimage, name, scipy.ndimage)
    # Only loggers and plots of the package want these.
    for name in ("termcolor", "matplotlib", "matplotlib.pyplot", "docopt", "tqdm", "imgaug"):
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = types.ModuleType(name)
    if not hasattr(np, "bool"):
        np.bool = bool


_stub()


def network():
    return importlib.import_module("hover_net.models.hovernet.net_desc")


def network_parts():
    return importlib.import_module("hover_net.models.hovernet.net_utils")


def process():
    """process(map [H, W, 3] of np, h, v) -> (instance map, None)."""
    return importlib.import_module("hover_net.models.hovernet.post_proc").process


def metrics():
    return importlib.import_module("hover_net.metrics.stats_utils")
